"""What version b1b6249 has written is recovered by this one: a kept file of each form, as a crash would have left it.

The files of ``former/`` were written by that version, in test runs that were still going on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_nixproc._cli.api import ExitStatus
from pytest_nixproc._persistence.leases import VARIABLE

FORMER: Final = Path(__file__).parent / "former"
FORMS: Final = {path.name: path for path in FORMER.iterdir()}
IDLE: Final = [sys.executable, "-I", "-S", "-c", "import signal; print('up', flush=True); signal.pause()"]


class Leftover:
    """A deployment of that version: its directory, and the leases that it has."""

    def __init__(self, form: Path, place: Path) -> None:
        self.leases = place / "leases"
        self.top = place / "state" / "top"
        is_guest = (form / "machine-journal").exists()
        self.root = self.top / "0e6c3f35" if is_guest else self.top
        self.root.mkdir(parents=True)
        self.leases.mkdir(mode=0o700)
        self.put(form / "journal", self.root / "journal")
        self.put(form / "lease.json", self.leases / f"{self.root.name}.json")
        self.put(form / "ports.json", self.leases / "ports.json")
        if is_guest:
            self.put(form / "machine-journal", self.top / "journal")
            self.put(form / "machine-lease.json", self.leases / f"{self.top.name}.json")

    def put(self, source: Path, target: Path) -> None:
        """Write a file of that version for this place."""
        text = source.read_text().replace("@ROOT@", str(self.root)).replace("@TOP@", str(self.top))
        target.write_text(text.replace("@IDENTITY@", self.root.name))

    def keep(self) -> None:
        """Have the deployment kept for people to look at."""
        lease = self.leases / f"{self.root.name}.json"
        lease.write_text(json.dumps(json.loads(lease.read_text()) | {"kept": True, "users": [], "guardian": None}))

    def nixproc(self, *words: str, status: ExitStatus = ExitStatus.DONE) -> dict[str, Any]:
        """Run a command, which has to end with a status; return its facts."""
        argv = [sys.executable, "-m", "pytest_nixproc", *words, "--json"]
        environment = {**os.environ, VARIABLE: str(self.leases)}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    @contextmanager
    def process(self) -> Iterator[subprocess.Popen[str]]:
        """Run a process of the deployment that its guardian did not end."""
        tags = {"NIXPROC_DEPLOYMENT": str(self.root), "NIXPROC_INSTANCE": "web"}
        process = subprocess.Popen(IDLE, env=tags, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("form", FORMS)
def test_reap(form: str, tmp_path: Path) -> None:
    """The rest of a crashed run is found by its lease, and taken down: processes, directories, leases, ports."""
    if form == "machine" and os.geteuid() != 0:
        pytest.skip("only root has machines")
    leftover = Leftover(FORMS[form], tmp_path)
    with leftover.process() as process:
        facts = leftover.nixproc("reap")
        assert process.wait(timeout=10) != 0
    assert str(leftover.root) in facts["deployments"]
    assert facts["left"] == facts["unreadable"] == []
    assert not leftover.top.exists()
    assert not leftover.leases.exists()


def test_end(tmp_path: Path) -> None:
    """A deployment that was kept is ended by its directory; reap leaves it alone.

    Its scripts are not there any more: what they would have stopped is killed, and that is told.
    """
    leftover = Leftover(FORMS["host"], tmp_path)
    leftover.keep()
    with leftover.process() as process:
        assert leftover.nixproc("reap")["deployments"] == {}
        assert process.poll() is None
        facts = leftover.nixproc("end", str(leftover.root), status=ExitStatus.INCONSISTENT)
        assert f"process {process.pid} of web was left behind, and killed" in facts["details"]
        assert process.wait(timeout=10) != 0
    assert not leftover.root.exists()


def test_every_form_is_there() -> None:
    """There are a deployment of a test, one that a run shares, and one on a throwaway machine."""
    assert FORMS.keys() == {"host", "shared", "machine"}
    assert json.loads((FORMS["shared"] / "lease.json").read_text())["run"]
