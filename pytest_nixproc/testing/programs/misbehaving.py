"""A program that misbehaves: ``misbehaving.py BEHAVIOUR [NAME=VALUE...] [-D]``.

``-D`` makes it a daemon, which writes its PID into ``pid_file=PATH``, as ``written=TEXT`` says: with ``{}`` for the
number, and with Python's escapes. Its starter ends then, or ``stays=SECONDS`` longer, and with ``leaves=STATUS``; just
before, it writes the time into ``left=PATH``. Behaviours, and what else they are told:

- ``dies``: says why on its standard error, and ends with ``status=N`` or by ``signal=N``; as a daemon, after it has
  written its PID file, which it removes again unless ``keeps_pid_file=1``; with ``early=1``, before;
- ``ignores-term``: ends at SIGKILL only;
- ``minds-quit``: ends at SIGQUIT, and says so; SIGTERM is but a line of its log;
- ``escapes``: a grandchild leaves the session, ignores SIGTERM and writes its pid into ``escaped=PATH``;
- ``leaves-children``: a child, whose pid is in ``escaped=PATH``, is not told when the program ends;
- ``leaves-a-server``: a child serves as well, and is not told either;
- ``leaves-a-helper``: a child that heeds no SIGTERM ends ``delay=SECONDS`` after the program;
- ``forks``: a child serves in its place, and is told, and waited for, when the program ends;
- ``wraps``: a child serves in its place, and is not told when the program ends, which it does when the child has;
- ``ends-before-ready``: a child kills the program, and says ``ready`` when it has ended;
- ``ends-slowly``: needs ``delay=SECONDS`` to end after SIGTERM, and says so when it does;
- ``never-ready``: runs and does not listen;
- ``listens-elsewhere``: listens on ``other_port=N``;
- ``late-pid-file``, ``wrong-pid-file``, ``no-pid-file``, ``stale-pid-file``: a daemon that writes its PID file
  ``delay=SECONDS`` after its starter has ended, and ``first=TEXT`` into it before; with the pid of its starter, which
  has ended; not at all; and that does not remove it.

The others listen on ``port=N``, when it is given, say ``ready`` when told to with ``ready=1`` (with ``ready=crlf`` in a
line that ends in CR LF, with ``ready=late`` after ``delay=SECONDS``), and stay until SIGTERM.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn

sys.path.insert(0, os.path.abspath(f"{__file__}/../../../.."))

from pytest_nixproc.testing.programs import serving

Options = Mapping[str, str]


def write_pid(options: Options, pid: int | None = None) -> None:
    """Write the PID file, if one is asked for."""
    if "pid_file" in options:
        text = options.get("written", r"{}\n").encode().decode("unicode_escape")
        serving.write_atomically(options["pid_file"], text.format(pid or os.getpid()))


def serve(options: Options) -> NoReturn:
    """Listen if asked to, and stay."""
    listener = serving.bound_to(int(options["port"])) if "port" in options else None
    if listener:
        listener.listen()
    if "ready" in options:
        time.sleep(float(options["delay"]) if options["ready"] == "late" else 0)
        serving.say("ready\r" if options["ready"] == "crlf" else "ready")
    serving.stay(listener)


def die(options: Options) -> NoReturn:
    """Exit with the requested status, or die of the requested signal, after a last line on standard error."""
    serving.say("the disk is on fire")
    if number := int(options.get("signal", 0)):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(int(options.get("status", 1)))


def ignore_term(options: Options) -> NoReturn:
    """Serve, and ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(options)


def mind_quit(options: Options) -> NoReturn:
    """Serve, and end at SIGQUIT alone."""

    def end(*_: object) -> None:
        serving.say("told to quit")
        sys.exit(0)

    signal.signal(signal.SIGQUIT, end)
    signal.signal(signal.SIGTERM, lambda *_: serving.say("does not mind SIGTERM"))
    serve(options)


def serve_beside(options: Options, *, leave_session: bool) -> NoReturn:
    """Serve, with a child that does not end with the program, or a grandchild that has left the session."""
    readable, writable = os.pipe()
    if os.fork():
        os.read(readable, 1)
        serve(options)
    if leave_session:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serving.write_atomically(options["escaped"], f"{os.getpid()}\n")
    os.write(writable, b"!")
    serving.stay(None)


def serve_twice(options: Options) -> NoReturn:
    """Serve, and so does a child, which does not end with the program."""
    listener = serving.bound_to(int(options["port"]))
    listener.listen()
    os.fork()
    serving.stay(listener)


def serve_with_helper(options: Options) -> NoReturn:
    """Serve, with a child that ends a while after the program."""
    readable, writable = os.pipe()
    if not os.fork():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.close(writable)
        os.read(readable, 1)
        time.sleep(float(options["delay"]))
        os._exit(0)
    serve(options)


def fork(options: Options) -> NoReturn:
    """Have a child serve, which ends with its parent."""
    if not (worker := os.fork()):
        serve(options)

    def end(*_: object) -> None:
        os.kill(worker, signal.SIGTERM)
        os.waitpid(worker, 0)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    serving.stay(None)


def wrap(options: Options) -> NoReturn:
    """Have a child serve, and end with its status, as a script does that runs a server."""
    if not (worker := os.fork()):
        serve(options)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) & 0xFF)


def end_before_ready(_: Options) -> NoReturn:
    """Have a child say that the program is ready once it has killed it."""
    program = os.getpid()
    if not os.fork():
        os.kill(program, signal.SIGKILL)
        while os.getppid() == program:
            time.sleep(0)
        serving.say("ready")
        os._exit(0)
    serving.stay(None)


def end_slowly(options: Options) -> NoReturn:
    """Serve, and take a while to end."""

    def end(*_: object) -> None:
        time.sleep(float(options["delay"]))
        serving.say("ended after a while")
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    serve(options)


def write_pid_late(options: Options) -> NoReturn:
    """Serve, and write the PID file long after the starter has ended."""
    if "ready" in options:
        serving.say("ready")
    if "first" in options:
        serving.write_atomically(options["pid_file"], options["first"])
    time.sleep(float(options["delay"]))
    write_pid(options)
    serve({name: value for name, value in options.items() if name != "ready"})


BEHAVIOURS: Mapping[str, Callable[[Options], NoReturn]] = {
    "dies": die,
    "ignores-term": ignore_term,
    "minds-quit": mind_quit,
    "escapes": partial(serve_beside, leave_session=True),
    "leaves-children": partial(serve_beside, leave_session=False),
    "leaves-a-server": serve_twice,
    "leaves-a-helper": serve_with_helper,
    "forks": fork,
    "wraps": wrap,
    "ends-before-ready": end_before_ready,
    "ends-slowly": end_slowly,
    "never-ready": lambda _: serving.stay(None),
    "listens-elsewhere": lambda options: serve({"port": options["other_port"]}),
    "late-pid-file": write_pid_late,
    "wrong-pid-file": serve,
    "no-pid-file": serve,
    "stale-pid-file": serve,
}


def leave(options: Options) -> int:
    """Stay for a while after the daemon is there; return the status to end with."""
    time.sleep(float(options.get("stays", 0)))
    if "left" in options:
        serving.write_atomically(options["left"], str(time.monotonic()))
    return int(options.get("leaves", 0))


def become_daemon(behaviour: str, options: Options) -> None:
    """Go into the background, and write the PID file as the behaviour asks for."""
    starter = os.getpid()
    announcements: Mapping[str, Callable[[], None]] = {
        "late-pid-file": lambda: None,
        "no-pid-file": lambda: None,
        "wrong-pid-file": lambda: write_pid(options, starter),
    }
    serving.enter_background(announcements.get(behaviour, lambda: write_pid(options)), lambda: leave(options))


def main() -> None:
    """Run the behaviour that the command line names."""
    behaviour, *words = sys.argv[1:]
    options = dict(word.split("=", 1) for word in words if "=" in word)
    serving.answer_signals()
    if "early" in options:
        die(options)
    is_daemon = words[-1:] == ["-D"]
    if is_daemon:
        become_daemon(behaviour, options)
    try:
        BEHAVIOURS[behaviour](options)
    finally:
        tidy = is_daemon and behaviour != "stale-pid-file" and "keeps_pid_file" not in options
        if tidy and os.path.exists(options.get("pid_file", "")):
            os.unlink(options["pid_file"])


if __name__ == "__main__":
    main()
