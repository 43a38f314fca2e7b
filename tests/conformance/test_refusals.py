"""A parameter that a manager declares missing is refused with its reason; the suite finds one that is dropped."""

from __future__ import annotations

import sys

import pytest

from pytest_nixproc.testing.conformance.results import REFUSED, Finding, Results

MANAGERS = """
from pytest_nixproc import hookimpl
from pytest_nixproc.managers.api import Capabilities, File, Generator, Manager, Unit, refuse_unsupported

REASON = "it knows no niceness"
CAN = Capabilities("foreground", unsupported={"nice": REASON})

class Forgetful(Generator):
    def generate(self, key, model, target):
        process = model[key].pkg
        return Unit(process.name, "foreground", "/log", None, (File(key, process.name),), key=key)

class Picky(Forgetful):
    def generate(self, key, model, target):
        refuse_unsupported("picky", model[key].pkg, CAN)
        return super().generate(key, model, target)

@hookimpl
def nixproc_managers():
    obstacle = lambda machine: "it is only an example"
    return [Manager("picky", Picky, None, CAN, obstacle), Manager("forgetful", Forgetful, None, CAN, obstacle)]
"""


@pytest.fixture
def found(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return a directory with what the suite has found of two managers, which need not be able to run for that."""
    pytester.makepyfile(managers=MANAGERS)
    info = pytester.path / "managers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: managers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pytest_nixproc]\nmanagers = managers\n")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    suite = ("-p", "no:cacheprovider", "--pyargs", "pytest_nixproc.testing.conformance")
    options = ("--nixproc-manager=picky,forgetful", "--nixproc-conformance-results=results")
    result = pytester.runpytest_subprocess(*suite, *options, "-rsf", "-k", "Manager and (parameter or nice)")
    result.stdout.fnmatch_lines_random(["SKIPPED*picky cannot run here: it is only an example*"])
    result.stdout.fnmatch_lines(["E *nice is declared missing, and is not refused*"])
    result.stdout.fnmatch_lines(["FAILED *test_parameter?forgetful-nice?*"])
    assert result.parseoutcomes()["failed"] == 1
    return pytester


def test_refusals_are_told_from_omissions(found: pytest.Pytester) -> None:
    """What is refused with its reason is written down as such, and in the tables; what is silently dropped fails."""
    picky, forgetful = (Results.read(str(found.path / "results" / f"{name}.json")) for name in ("picky", "forgetful"))
    assert picky.absent == "it is only an example"
    test = "Declarations.test_parameter[nice]"
    assert picky.findings[test] == Finding(REFUSED, "nice: it knows no niceness")
    assert {finding.outcome for name, finding in picky.findings.items() if name != test} == {"pass"}
    assert forgetful.findings[test].outcome == "FAIL"
    table = found.run(sys.executable, "-m", "pytest_nixproc.testing.conformance", "results")
    table.stdout.fnmatch_lines(["| umask | pass | pass |", "| nice | FAIL | refused |"])
    table.stdout.fnmatch_lines(["| picky | parameter | refused | nice: it knows no niceness |"])
