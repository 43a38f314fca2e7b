"""The command ``nixproc``: its help, its exit statuses, and what it prints as JSON."""

from __future__ import annotations

import json
import os
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_nixproc import _cli
from pytest_nixproc._cli import MODULES, command_of, main
from pytest_nixproc._cli.api import MEANINGS, ExitStatus
from pytest_nixproc._cli.assign_ids import replace_text
from pytest_nixproc.errors import Busy, NixprocError, TeardownError, Unreachable
from pytest_nixproc.machines.guardian import LEFT_TO_OTHERS

MODEL = """
from pytest_nixproc import Instance, create_managed_process

def processes():
    return {name: Instance(create_managed_process(name=name, process="/bin/x"), port=80) for name in ("a", "b")}
"""

OUTCOMES: list[tuple[NixprocError, str, ExitStatus]] = [
    (NixprocError("it is so"), "end", ExitStatus.FAILED),
    (NixprocError("it is so"), "check", ExitStatus.WRONG_CALL),
    (Busy("somebody is at it"), "end", ExitStatus.BUSY),
    (TeardownError(["left"]), "end", ExitStatus.INCONSISTENT),
    (Unreachable("no answer"), "reap", ExitStatus.INCONSISTENT),
]


def test_help_lists_what_people_call(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command has its line below its group; what guardians call, and former names, have none."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in printed if line.startswith("  ") and line.split()[0] in MODULES]
    assert names == ["check", "assign-ids", "end", "reap", "completion"]
    assert printed.index("deployments of tests:") < printed.index(next(line for line in printed if "  end " in line))


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that there is not is a wrong call, and the others are named: those that people call."""
    with pytest.raises(SystemExit, match="2"):
        main(["unheard-of"])
    listed = capsys.readouterr().err.partition("choose from ")[2]
    assert re.findall(r"[\w-]+", listed) == ["check", "assign-ids", "end", "reap", "completion"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is that of the distribution."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"pytest-nixproc {version('pytest-nixproc')}\n"


@pytest.mark.parametrize(("error", "name", "status"), OUTCOMES)
def test_status_after_an_error(error: NixprocError, name: str, status: ExitStatus) -> None:
    """An error says how it leaves things; where it does not, the command has a status for it."""
    assert _cli.status_after(error, command_of(name)) is status


def test_every_status_has_a_meaning() -> None:
    """The table of the documentation is complete, and guardians know the status of what others still use."""
    assert list(MEANINGS) == list(ExitStatus)
    assert ExitStatus(LEFT_TO_OTHERS) is ExitStatus.BUSY


@pytest.mark.parametrize("name", ["end", "stop"])
def test_error_as_json(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--json``, an error is a value on the output, and nothing is said beside; the former name is the same."""
    assert main([name, "--json", str(tmp_path)]) == ExitStatus.FAILED
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"] == f"{tmp_path} is no deployment: it has no journal"
    assert printed.err == ""
    assert main([name, str(tmp_path)]) == ExitStatus.FAILED
    assert capsys.readouterr().err.startswith(f"{tmp_path} is no deployment")


def test_findings_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Findings are one value; an error among them fails the command."""
    (tmp_path / "model.py").write_text(MODEL)
    assert main(["check", "--json", str(tmp_path / "model.py")]) == ExitStatus.FAILED
    assert [finding["code"] for finding in json.loads(capsys.readouterr().out)] == ["NP101"]
    assert main(["check", "--json", "--ignore=NP101", str(tmp_path / "model.py")]) == ExitStatus.DONE
    assert json.loads(capsys.readouterr().out) == []


def test_completion_of_an_unknown_shell(capsys: pytest.CaptureFixture[str]) -> None:
    """A shell for which there is none is an error that names the others."""
    assert main(["completion", "ed"]) == ExitStatus.FAILED
    assert "fix: name one of bash, " in capsys.readouterr().err


def test_file_of_ids_has_the_mode_of_others(tmp_path: Path) -> None:
    """A new file gets what the umask leaves, one that is there keeps its own mode; the umask stays as it is."""
    before = os.umask(0o027)
    try:
        replace_text(f"{tmp_path}/ids.nix", "first")
        (tmp_path / "shared.nix").touch()
        (tmp_path / "shared.nix").chmod(0o664)
        replace_text(f"{tmp_path}/shared.nix", "second")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    found = {path.name: (path.read_text(), path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert found == {"ids.nix": ("first", 0o640), "shared.nix": ("second", 0o664)}
