"""How the package is imported: by a session as it was compiled, but for the suites; by small processes in part."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_nixproc.machines.package import FINDER, PACKAGE_ROOT

LOADERS = """
import sys

import pytest_nixproc.testing.conformance.living


def loader_of(name):
    return type(sys.modules[name].__spec__.loader).__name__


def test_it(nixproc_system):
    ours = [name for name in sys.modules if name.startswith("pytest_nixproc.")]
    entry = ["pytest_nixproc._plugin", "pytest_nixproc._plugin.imports"]
    rewritten = {name for name in ours if loader_of(name) == "AssertionRewritingHook"} - {*entry}
    print("rewritten", *sorted({name.split(".")[2] for name in rewritten}))
    print("as compiled", len(ours) - len(rewritten) > 100)
"""


def test_only_suites_are_rewritten(pytester: pytest.Pytester) -> None:
    """Nothing is rewritten of what a session imports but the suites of tests, as pytest would all of a plugin."""
    pytester.makepyfile(test_it=LOADERS, processes="def processes():\n    return {}\n")
    result = pytester.runpytest_subprocess("-s", "--nixproc-model=processes.py", "--nixproc-manager=sysvinit")
    result.stdout.fnmatch_lines(["*rewritten conformance", "as compiled True"])


@pytest.mark.parametrize("module", ["machines.guardian.process", "machines.guardian.template", "managers.proxy"])
def test_small_processes_do_not_import_typing(module: str) -> None:
    """What starts with a session, or with a daemon, does not import what takes as long as its own start."""
    program = f"{FINDER.format(root=PACKAGE_ROOT)}import pytest_nixproc.{module}\nprint('typing' in sys.modules)\n"
    argv = [sys.executable, "-I", "-S", "-c", program]
    assert subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout == "False\n"
