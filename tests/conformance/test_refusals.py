"""What a manager declares missing is refused with its reason; the suite finds a refusal that is not declared."""

from __future__ import annotations

import sys

import pytest

from pytest_nixproc.testing.conformance.results import REFUSED, Outcome, Results

MANAGERS = """
from pytest_nixproc import hookimpl
from pytest_nixproc.managers.api import Capabilities, Generator, Manager
from pytest_nixproc.values.units import File

REASON = "it knows no niceness"

class Plain(Generator):
    def generate(self, launch):
        return launch.unit(File(launch.key, launch.name))

class Secretive(Plain):
    def generate(self, launch):
        if launch.nice is not None:
            raise launch.refusal(REASON)
        return super().generate(launch)

@hookimpl
def nixproc_managers():
    unavailable_reason = lambda machine: "it is only an example"
    can = Capabilities("foreground", unsupported={"nice": REASON})
    picky = Manager("picky", Plain, None, can, unavailable_reason)
    return [picky, Manager("secretive", Secretive, None, Capabilities("foreground"), unavailable_reason)]
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
    options = ("--nixproc-manager=picky,secretive", "--nixproc-conformance-results=results")
    # What tests say of themselves goes into pytest's own report, too, also where warnings are errors.
    report = ("-W", "error", "--junitxml=report.xml")
    result = pytester.runpytest_subprocess(*suite, *options, *report, "-rsf", "-k", "parameter or nice")
    result.stdout.fnmatch_lines_random(["SKIPPED*picky cannot run here: it is only an example*"])
    result.stdout.fnmatch_lines(["E *nice is refused, and not declared missing*"])
    result.stdout.fnmatch_lines(["FAILED *test_parameter?secretive-nice?*"])
    assert result.parseoutcomes()["failed"] == 1
    return pytester


def test_declared_refusals_are_told_from_others(found: pytest.Pytester) -> None:
    """What is refused with a declared reason is written down as such, and in the tables; any other refusal fails."""
    picky, secretive = (Results.read(str(found.path / "results" / f"{name}.json")) for name in ("picky", "secretive"))
    assert picky.absent == "it is only an example"
    test = "Declarations.test_parameter[nice]"
    assert picky.findings[test] == Outcome(REFUSED, "nice: it knows no niceness")
    assert {finding.outcome for name, finding in picky.findings.items() if name != test} == {"pass"}
    assert secretive.findings[test].outcome == "FAIL"
    table = found.run(sys.executable, "-m", "pytest_nixproc.testing.conformance", "results")
    table.stdout.fnmatch_lines(["| umask | pass | pass |", "| nice | refused | FAIL |"])
    table.stdout.fnmatch_lines(["| picky | parameter | refused | nice: it knows no niceness |"])
