"""Which PID files belong to which instance, as far as arguments and environment tell."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixproc.checks.claims import Inventory
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target

STATE = StateDirs.under("/s")
OWN = f"{STATE.runtime_dir}/a.pid"
"""Where the manager of ``a`` has its PID file."""

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[tuple[str, str, bool]]]] = {
    "a variable": ({"environment": {"WEB_PID_FILE": "/s/x"}}, {}, [("/s/x", "a", False)]),
    "an option": ({"args": ["--pidfile", "/s/x"]}, {}, [("/s/x", "a", True)]),
    "a directive within an argument": ({"args": ["-g", "user me; pid /s/x.pid;"]}, {}, [("/s/x.pid", "a", False)]),
    "a path that is not normal": ({"args": ["/s//x.pid"]}, {}, [("/s/x.pid", "a", False)]),
    "that of the manager": ({"args": ["--pid-file", OWN]}, {}, [(OWN, "a", True)]),
    "another's, of whom one is a client": ({"args": ["--pid-file", "/s/x"]}, {"args": ["/s/x"]}, [("/s/x", "a", True)]),
    "that of the manager of another": ({}, {"args": ["--watch", OWN], "environment": {"PID_FILE": OWN}}, []),
    "one that nobody claims": ({"args": ["/s/x.pid"]}, {"args": ["/s/x.pid"]}, [("/s/x.pid", "ab", False)]),
    "no PID file": ({"args": ["/s/x.pid.old", "/s/x.pidgin", "x.pid", "http://h/x.pid"]}, {}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_referenced_pid_files(case: str) -> None:
    """A PID file belongs to who claims it; else to all that are told it."""
    *parameters, expected = CASES[case]
    made = zip("ab", parameters, strict=True)
    model = {n: Instance(create_managed_process(name=n, process="/bin/x", **given)) for n, given in made}
    told = Inventory.of(ProcessesModel(model), Target(STATE, "/s/profile")).referenced_pid_files()
    assert [(t.path, "".join(c.instance for c in t.claims), t.is_asked_for) for t in told] == expected
