"""The probe: it writes down its execution environment, byte for byte, and then serves until SIGTERM.

Its arguments are free for the test; ``-D`` as the last one makes it a daemon. Everything else is told by variables:

- ``PROBE_DUMP``: the JSON file that it writes before it listens; bytes are in hexadecimal digits; removed at SIGTERM;
- ``PROBE_PORT``: the TCP port to listen on; none, when it is not set;
- ``PROBE_HOST``: the address to listen on; 127.0.0.1, when it is not set;
- ``PROBE_DELAY``: seconds to wait before listening;
- ``PROBE_MEETS``: ``NUMBER:DIRECTORY``: to wait, after that, until as many probes have come to a directory;
- ``PROBE_PID_FILE``: where the daemon writes its PID; removed again at SIGTERM.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import resource
import sys
import time
from typing import Any

sys.path.insert(0, os.path.abspath(f"{__file__}/../../../.."))

from pytest_nixproc.testing.programs import serving

LIMITS = ("NOFILE", "NPROC", "CORE", "STACK", "MEMLOCK", "AS")


def lines_of(path: str) -> list[bytes]:
    """Return the NUL-terminated strings of a file below ``/proc``; none without such a file."""
    try:
        with open(path, "rb") as file:
            return file.read().split(b"\0")[:-1]
    except FileNotFoundError:
        return []


def arguments() -> list[bytes]:
    """Return the whole command line, as the kernel keeps it where it can be read (proc(5))."""
    return lines_of("/proc/self/cmdline") or [os.fsencode(word) for word in sys.orig_argv]


def environment() -> list[bytes]:
    """Return ``NAME=VALUE`` strings as the process was given them, before anybody changed one."""
    return lines_of("/proc/self/environ") or [name + b"=" + value for name, value in os.environb.items()]


def umask() -> int:
    """Return the umask, and leave it as it is."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def descriptors() -> dict[str, str]:
    """Return the open descriptors, each with the file that it refers to, except the one that this function opens."""
    directory = os.open("/dev/fd", os.O_RDONLY)
    numbers = [int(name) for name in os.listdir(directory)]
    os.close(directory)
    return {str(number): target for number in numbers if number != directory and (target := target_of(number))}


def target_of(descriptor: int) -> str:
    """Return the file that a descriptor refers to, or ``?``; empty when it is closed meanwhile."""
    try:
        return os.readlink(f"/dev/fd/{descriptor}")
    except OSError as error:
        return "?" if error.errno == errno.EINVAL else ""


def surroundings() -> dict[str, Any]:
    """Return everything that a program is given when it starts."""
    return {
        "arguments": [word.hex() for word in arguments()],
        "environment": [entry.hex() for entry in environment()],
        "directory": os.getcwdb().hex(),
        "umask": umask(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "users": {entry.pw_name: (entry.pw_uid, entry.pw_gid) for entry in pwd.getpwall()},
        "limits": {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in LIMITS},
        "descriptors": descriptors(),
        "begun": time.monotonic(),
    }


def meet() -> None:
    """Wait in a directory until the other probes have come there too, if ``PROBE_MEETS`` asks for it."""
    if "PROBE_MEETS" in os.environ:
        number, _, directory = os.environ["PROBE_MEETS"].partition(":")
        serving.write_atomically(f"{directory}/{os.environ['NIXPROC_INSTANCE']}", "")
        while sum(not name.endswith(".new") for name in os.listdir(directory)) < int(number):
            time.sleep(0.01)


def main() -> None:
    """Dump, go into the background if asked to, listen if asked to, and stay."""
    found = surroundings()
    serving.answer_signals()
    dump, pid_file = os.environ["PROBE_DUMP"], os.environ.get("PROBE_PID_FILE", "")
    is_daemon = sys.argv[-1] == "-D"
    if is_daemon:
        serving.enter_background(lambda: serving.write_atomically(pid_file, f"{os.getpid()}\n"))
    serving.say("the probe is up", descriptor=1)
    time.sleep(float(os.environ.get("PROBE_DELAY", "0")))
    meet()
    host = os.environ.get("PROBE_HOST", "127.0.0.1")
    listener = serving.bound_to(int(os.environ["PROBE_PORT"]), host) if "PROBE_PORT" in os.environ else None
    serving.write_atomically(dump, json.dumps(found | {"pid": os.getpid(), "listening": time.monotonic()}))
    if listener:
        listener.listen()
    try:
        serving.stay(listener)
    finally:
        os.unlink(dump)
        if is_daemon:
            os.unlink(pid_file)


if __name__ == "__main__":
    main()
