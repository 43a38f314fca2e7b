"""pytest is killed: a program that may take long to stop has its time all the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.crash.storm import MARKS, RUN_SECONDS, session, wait

STOP_SECONDS = 13
"""Longer than the guardian would wait for a recovery by itself."""

MODEL = f'''
import sys
from pytest_nixproc import Instance, create_managed_process, ready

PROGRAM = """
import os, pathlib, signal, sys, time

def end(*_):
    time.sleep({STOP_SECONDS})
    pathlib.Path(sys.argv[1]).write_text("ended by itself")
    os._exit(0)

signal.signal(signal.SIGTERM, end)
print("up", flush=True)
while True:
    signal.pause()
"""

def processes(*, told):
    slow = create_managed_process(name="slow", foreground_process=sys.executable, args=["-c", PROGRAM, told])
    return {{"slow": Instance(slow, stop_timeout={STOP_SECONDS * 3}, ready=ready.log("up"))}}
'''

INI = "[pytest]\nnixproc_model = processes.py\nnixproc_stop_timeout = 2\naddopts = -p no:xdist\n"

TEST = """
import time
from conftest import mark

def test_it(nixproc_system):
    mark("deployed")
    time.sleep(600)
"""


@pytest.mark.long
@pytest.mark.parametrize("manager", ["supervisord", "sysvinit"])
def test_recovery_waits_for_a_slow_stop(manager: str) -> None:
    """A program with a long limit of its own ends by itself when pytest is killed; then nothing is left."""
    files = {"processes.py": MODEL, "test_it.py": TEST, "conftest.py": MARKS, "pytest.ini": INI}
    with session(files) as one:
        told = Path(f"{one.place}/told")
        one.start(f"--nixproc-manager={manager}", f"--nixproc-param=told={told}")
        assert wait(lambda: "deployed" in one.marks().values(), RUN_SECONDS), one.output
        os.kill(one.pid, signal.SIGKILL)
        assert wait(told.exists, STOP_SECONDS + RUN_SECONDS), one.left()
        assert told.read_text() == "ended by itself"
        assert wait(lambda: not one.left(), RUN_SECONDS), one.left()
