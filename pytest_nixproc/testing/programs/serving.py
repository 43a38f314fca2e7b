"""Functions that the programs share: becoming a daemon, listening, staying until SIGTERM.

While it stays, a program logs ``reloaded`` on SIGHUP, a numbered line on SIGUSR1, and ends with status 3 on SIGUSR2.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from itertools import count
from typing import NoReturn

STATUS_ON_REQUEST = 3


def say(line: str, descriptor: int = 2) -> None:
    """Write one line at once: no buffer is lost when the program ends."""
    os.write(descriptor, f"{line}\n".encode(errors="surrogateescape"))


def answer_signals() -> None:
    """Install the handlers; called first, so that no later signal finds the program unprepared."""
    numbers = count(1)

    def end(*_: object) -> None:
        say("ending")
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, lambda *_: say("reloaded"))
    signal.signal(signal.SIGUSR1, lambda *_: say(f"line {next(numbers)} on request"))
    signal.signal(signal.SIGUSR2, lambda *_: sys.exit(STATUS_ON_REQUEST))


def enter_background(announce: Callable[[], None], leave: Callable[[], int] = lambda: 0) -> None:
    """Go on as a daemon; the caller's process ends as ``leave`` says after the daemon has run ``announce``."""
    readable, writable = os.pipe()
    if os.fork():
        os.close(writable)
        os._exit(leave() if os.read(readable, 1) else 1)
    os.close(readable)
    os.setsid()
    if os.fork():
        os._exit(0)
    announce()
    os.write(writable, b"!")
    os.close(writable)


def write_atomically(path: str, text: str) -> None:
    """Write a file so that nobody sees half of it."""
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(text)
    os.rename(temporary, path)


def bound_to(port: int, host: str = "127.0.0.1") -> socket.socket:
    """Return a socket that is bound and does not listen yet."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def stay(listener: socket.socket | None) -> NoReturn:
    """Answer every HTTP request with the process's pid, until a signal ends the program.

    Handlers are called between instructions of the interpreter: a signal just before a call that waits would be heeded
    at the next one only, so it wakes that call by a socket.
    """
    signalled, told = socket.socketpair()
    told.settimeout(0)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    sources = [signalled, listener] if listener else [signalled]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if signalled in ready:
            signalled.recv(4096)
        if listener and listener in ready:
            answer(listener.accept()[0])


def answer(connection: socket.socket) -> None:
    """Answer one request; a client that says nothing, or leaves, is no problem."""
    with connection:
        connection.settimeout(1)
        try:
            if connection.recv(4096):
                body = str(os.getpid())
                connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        except OSError:
            return
