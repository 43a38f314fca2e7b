"""Our end of the guardian, with nothing but a socket at the other end."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from threading import Event, Thread
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.guardian.connection import TURN_SECONDS, GuardianConnection

ROUNDS = 300


@pytest.fixture
def ends() -> Iterator[tuple[GuardianConnection, socket.socket]]:
    """Return a connection, and the end at which a guardian would be."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield GuardianConnection(cast("subprocess.Popen[bytes]", SimpleNamespace(pid=1)), ours), theirs


def test_nobody_sleeps_on_beside_what_another_thread_has_taken_in(
    ends: tuple[GuardianConnection, socket.socket],
) -> None:
    """A report wakes whoever waits for it, whichever thread has read it; nobody sleeps through a whole turn."""
    connection, theirs = ends
    is_over = Event()

    def listen() -> None:
        while not is_over.is_set():
            connection.listen(TURN_SECONDS)

    beside = Thread(target=listen)
    beside.start()
    try:
        for pid in range(ROUNDS):
            theirs.sendall(b'{"exited": [[%d, 0]]}\n' % pid)
            while pid not in connection.exited:
                assert connection.listen(TURN_SECONDS, lambda pid=pid: pid in connection.exited)  # type: ignore[misc]
    finally:
        is_over.set()
        beside.join()


def test_guardian_that_ends_before_its_answer(ends: tuple[GuardianConnection, socket.socket]) -> None:
    """Whoever waits for an answer is told that none will come, as soon as the other end is closed."""
    connection, theirs = ends

    def end() -> None:
        theirs.recv(4096)
        theirs.shutdown(socket.SHUT_WR)

    beside = Thread(target=end)
    beside.start()
    with pytest.raises(MachineError, match="the guardian of the deployed processes is gone"):
        connection.synchronize()
    beside.join()
    assert connection.is_gone
