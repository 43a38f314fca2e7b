"""Files of this machine that are not there."""

from __future__ import annotations

import os
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
