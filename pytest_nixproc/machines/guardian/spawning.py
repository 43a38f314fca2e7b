"""The start of a process in a session of its own; standard library only, because the guardian does it."""

from __future__ import annotations

import errno
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

ERROR_BYTES = 16


def spawn(argv: list[str], environment: dict[str, str], output: str | None, defaults: Sequence[int]) -> int:
    """Start a process in a new session, with default signals, and return its pid.

    Raises OSError when it cannot be, and OSError or ValueError for text that no program can be given: one with a NUL.
    ``output`` is the file that its output is appended to, and it has nothing to read then; without one, it shares ours.
    Who has the file made is who can read it.
    ``defaults`` are signals that get their default action. FreeBSD's and Cygwin's posix_spawn(3) know no sessions, so
    they take the longer way.
    """
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
    if output is not None:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
    try:
        return os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True, setsigdef=defaults)
    except NotImplementedError:
        return spawn_by_fork(argv, environment, output, defaults)


def spawn_by_fork(argv: list[str], environment: dict[str, str], output: str | None, defaults: Sequence[int]) -> int:
    """Start a process as :func:`spawn` does, with the system calls that every system has."""
    heard, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(argv, environment, output, defaults, said)
    os.close(said)
    # It is closed by the exec, and holds a number when that, or anything before it, has failed.
    number = os.read(heard, ERROR_BYTES)
    os.close(heard)
    if number:
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)), argv[0])
    return pid


def become(
    argv: list[str], environment: dict[str, str], output: str | None, defaults: Sequence[int], said: int
) -> NoReturn:
    """Turn a forked child into the requested program; report an error to the parent."""
    try:
        os.setsid()
        if output is not None:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1)
            os.dup2(1, 2)
        for number in defaults:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.execve(argv[0], argv, environment)  # noqa: S606 - no shell is wanted
    except (OSError, ValueError) as error:
        os.write(said, str(error.errno if isinstance(error, OSError) else errno.EINVAL).encode())
    finally:
        os._exit(127)
