"""Modules beside the tests that are called like those of others: no process of ours imports them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.crash.storm import LIMIT_SECONDS, RUN_SECONDS, Session, unavailable_reason_of, wait

UNUSED = "antigravity"
"""A module that nobody has imported before the last traps are set."""

CONFTEST = '''
"""Fills the directory with modules that nobody must import, but for those that pytest has imported itself."""

import os
import sys
from pathlib import Path

OTHERS = ("docker", "filelock", "pluggy", "psutil", "pytest", "pytest_nixproc", "requests", "supervisor", "yaml")
TRAP = """
import posix
descriptor = posix.open({path!r}, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o600)
posix.write(descriptor, (__name__ + " ").encode())
raise ImportError("this is not the module that you want")
"""


def set_traps(names):
    here = Path(__file__).parent
    for name in names:
        if name not in ("conftest", "processes", "test_it"):
            (here / f"{name}.py").write_text(TRAP.format(path=os.environ["TRAPPED"]))


def known():
    return {*sys.stdlib_module_names, *OTHERS}


def pytest_collection_finish():
    set_traps(known() & sys.modules.keys())
'''

TEST = """
import os
import signal
import sys

from conftest import known, set_traps


def test_it(nixproc_system):
    assert os.getcwd() in sys.path
    # A program has ended and been started again by what its manager imports now.
    nixproc_system["front"].restart()
    set_traps(known())
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    "manager",
    [
        "supervisord",
        pytest.param("sysvinit", marks=pytest.mark.long),
        "docker",
        pytest.param("systemd", marks=pytest.mark.long),
        pytest.param("supervisord@nspawn", marks=pytest.mark.long),
    ],
)
def test_nothing_of_ours_imports_what_lies_beside_the_tests(project: Session, manager: str) -> None:
    """Guardian, agent, proxies, supervisord and recovery do their work beside modules called as the ones they need."""
    if reason := unavailable_reason_of(manager):
        pytest.skip(reason)
    trapped = Path(project.place) / "trapped"
    (Path(project.place) / "project" / "conftest.py").write_text(CONFTEST)
    (Path(project.place) / "project" / "test_it.py").write_text(TEST)
    project.start(manager=manager, TRAPPED=str(trapped), PYTHONPATH=os.path.join(project.place, "project"))
    assert wait(project.is_over, RUN_SECONDS), project.output
    assert os.path.exists(f"{project.place}/project/{UNUSED}.py"), project.output
    is_clean = wait(lambda: project.left() == {}, LIMIT_SECONDS)
    imported = trapped.read_text() if trapped.exists() else ""
    assert (is_clean, imported) == (True, ""), project.left()
