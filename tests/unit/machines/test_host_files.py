"""Files of this machine: those that are not there, and those that are written under an odd umask."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import HAS_PROC


def test_path_below_a_file(tmp_path: Path) -> None:
    """Below a file, there is nothing."""
    (tmp_path / "file").touch()
    path = f"{tmp_path}/file/below"
    assert (Host().files.read(path), Host().files.size(path)) == (None, 0)


@pytest.mark.parametrize(("umask", "mode"), [(0o777, 0o700), (0o277, 0o700), (0o027, 0o750), (0, 0o755)])
def test_script_that_is_written_can_be_executed(tmp_path: Path, umask: int, mode: int) -> None:
    """A umask takes rights on what is written from others, never from the owner, who executes it."""
    path = tmp_path / "script"
    before = os.umask(umask)
    try:
        Host().files.write(str(path), "#!/bin/sh\n", 0o755)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(not HAS_PROC, reason="there is no /proc")
def test_process_that_ends_while_its_facts_are_read() -> None:
    """What the system tells about a process is not there, as soon as the process has ended."""
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    descriptor = os.open(f"/proc/{child.pid}/status", os.O_RDONLY)
    path = f"/proc/self/fd/{descriptor}"
    before = Host().files.read(path)
    child.communicate(b"\n")
    after = Host().files.read(path)
    os.close(descriptor)
    assert (before is None, after) == (False, None)
