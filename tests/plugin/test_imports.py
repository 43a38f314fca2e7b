"""How a session imports the package: as it was compiled, but for the suites, whose assertions show their values."""

from __future__ import annotations

import pytest

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
