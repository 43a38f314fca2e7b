"""A program with planted faults: ``planted.py ACTION...``; it does them in order, says ``ready``, and stays.

``listen=HOST:PORT``, ``udp=HOST:PORT``, ``open=PATH`` (for writing, kept open), ``write=PATH`` (and closed), ``trace=``
(a file that is called by its number is written where it works), ``fifo=PATH``, ``socket=PATH`` (bound), ``rebind=PATH``
(bound, whatever was there), ``umask=OCTAL``, ``chdir=PATH``, ``escape=PATH`` (a process of a session of its own writes
its pid there), ``zombie=PATH``, ``pid=PATH`` (its own pid is written there, and left), ``stale=PATH`` (the pid of a
process that has ended), ``init=PATH`` (the pid of a stranger), ``ready=PATH`` (made when all is done).

At its end: ``end-kill=PATH`` (whoever is named there), ``end-remove=PATH``, ``end-bequeath=`` (what it listens on, to a
process that does not know whose it is).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

KEPT: list[Any] = []
AT_END: list[Callable[[], object]] = []


def listen(value: str) -> None:
    """Listen on an address."""
    host, _, port = value.rpartition(":")
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, int(port)))
    server.listen()
    KEPT.append(server)


def open_file(path: str) -> None:
    """Open a file for appending, and keep it."""
    KEPT.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))


def open_fifo(path: str) -> None:
    """Make a FIFO, unless it is there, and open it for both, which does not wait for others."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
    KEPT.append(os.open(path, os.O_RDWR))


def bind(path: str) -> None:
    """Bind a Unix socket."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    KEPT.append(server)


def receive(value: str) -> None:
    """Wait for datagrams on an address."""
    host, _, port = value.rpartition(":")
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind((host, int(port)))
    KEPT.append(server)


def rebind(path: str) -> None:
    """Bind a Unix socket in place of what is there."""
    if os.path.exists(path):
        os.unlink(path)
    bind(path)


def write_stale(path: str) -> None:
    """Write the pid of a child that has ended, and is waited for."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    make(path, f"{child}\n")


def kill(path: str) -> None:
    """Kill the process that a file names."""
    with open(path, encoding="ascii") as file:
        os.kill(int(file.read()), signal.SIGKILL)


def bequeath() -> None:
    """Give everything that is open to a process with an empty environment, and a session of its own."""
    for item in KEPT:
        os.set_inheritable(item.fileno(), True)  # noqa: FBT003 - the only parameter there is
    os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsid=True)


def end(*_: object) -> None:
    """Do what is to be done at the end."""
    for action in AT_END:
        action()
    os._exit(0)


def leave_trace(_: str) -> None:
    """Write a file that is called by our number, where we are."""
    make(f"trace-{os.getpid()}")


def escape(path: str) -> None:
    """Leave a process behind in a session of its own."""
    readable, writable = os.pipe()
    if child := os.fork():
        os.read(readable, 1)
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    make(path, str(os.getpid()))
    os.write(writable, b"!")
    while True:
        signal.pause()


def leave_zombie(_: str) -> None:
    """Let a child end, and do not wait for it."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    # It returns when the child has ended, and leaves it as it is.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)


def make(path: str, text: str = "") -> None:
    """Write a file."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


ACTIONS: dict[str, Callable[[str], object]] = {
    "listen": listen,
    "open": open_file,
    "fifo": open_fifo,
    "socket": bind,
    "umask": lambda value: os.umask(int(value, 8)),
    "chdir": os.chdir,
    "escape": escape,
    "zombie": leave_zombie,
    "ready": make,
    "udp": receive,
    "trace": leave_trace,
    "write": make,
    "rebind": rebind,
    "pid": lambda path: make(path, f"{os.getpid()}\n"),
    "stale": write_stale,
    "init": lambda path: make(path, "1\n"),
    "--pid-file": str,
    "end-kill": lambda path: AT_END.append(partial(kill, path)),
    "end-remove": lambda path: AT_END.append(partial(os.unlink, path)),
    "end-bequeath": lambda _: AT_END.append(bequeath),
}


def main() -> None:
    """Do what is asked for, and stay until SIGTERM."""
    signal.signal(signal.SIGTERM, end)
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        ACTIONS[name](value)
    # Not pause(): a signal just before it would be heeded at the next one only.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.sigwait([signal.SIGTERM])
    end()


if __name__ == "__main__":
    main()
