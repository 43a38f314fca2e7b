"""The command ``nixproc`` as shells run it; what needs no process of its own is tried in ``tests/unit``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_nixproc._cli import main
from pytest_nixproc._cli.api import ExitStatus

MODEL = """
from pytest_nixproc import Instance, create_managed_process

def processes():
    return {name: Instance(create_managed_process(name=name, process="/bin/x"), port=80) for name in ("a", "b")}
"""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("nixproc ''", ["check", "assign-ids", "end", "reap", "completion"]),
        ("nixproc end /us", ["/usr"]),
        ("nixproc check --form", ["--format"]),
    ],
)
def test_completion_in_bash(words: str, completed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The printed script completes commands that people call, their options, and directories."""
    assert main(["completion", "bash"]) == ExitStatus.DONE
    script = capsys.readouterr().out
    asked = f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_nixproc; echo ${{COMPREPLY[@]}}"
    bash = ["/bin/bash", "-c", f"{script}\n{asked}"]
    done = subprocess.run(bash, capture_output=True, text=True, check=True)
    assert done.stdout.split() == completed


@pytest.mark.parametrize("option", ["--format=json", "--json"])
def test_reader_that_has_seen_enough(option: str, tmp_path: Path) -> None:
    """Whoever closes the other end of the pipe gets no traceback."""
    (tmp_path / "model.py").write_text(MODEL)
    argv = [sys.executable, "-m", "pytest_nixproc", "check", option, str(tmp_path / "model.py")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == ExitStatus.FAILED
