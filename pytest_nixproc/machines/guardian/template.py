"""The template: an interpreter that has imported a module, and is forked whenever that module is to be run.

Importing what a manager is made of takes most of its start. Where it is forked, it shows the command line and the
environment that it would have been executed with, and starts from the same session, directory, descriptors, signals
and limits. Run by :mod:`pytest_nixproc.machines.guardian.templates`, with a socket as its standard input, on which
each line asks for a process: ``[ARGV, ENVIRONMENT, OUTPUT]``. The answer is ``["pid", NUMBER]`` or ``["errno",
NUMBER]``.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import sys

# Not imported from typing: that is not what the module would have imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

PR_SET_MM: Final = 35  # <linux/prctl.h>
PR_SET_MM_MAP: Final = 14
NO_FILE: Final = 0xFFFFFFFF
SHOWN: list[Any] = []
"""The memory that the kernel reads command line and environment from; it is to stay."""


class MemoryMap(ctypes.Structure):
    """Where the kernel is to look for the parts of a process's memory (prctl(2), ``struct prctl_mm_map``)."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("start_code", "end_code", "start_data", "end_data", "start_brk", "brk")),
        *((name, ctypes.c_uint64) for name in ("start_stack", "arg_start", "arg_end", "env_start", "env_end", "auxv")),
        *((name, ctypes.c_uint32) for name in ("auxv_size", "exe_fd")),
    )


def show_as(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Have the kernel show another command line and initial environment of this process; raises OSError."""
    words = b"".join(os.fsencode(word) + b"\0" for word in argv)
    variables = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    memory = ctypes.create_string_buffer(words + variables, len(words) + len(variables))
    begin = ctypes.addressof(memory)
    middle = begin + len(words)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype = ctypes.c_void_p
    code_and_data, stack = facts(26, 27, 45, 46, 47), facts(28)
    shown = (begin, middle, middle, middle + len(variables))
    memory_map = MemoryMap(*code_and_data, libc.sbrk(0), *stack, *shown, 0, 0, NO_FILE)
    if libc.prctl(PR_SET_MM, PR_SET_MM_MAP, ctypes.byref(memory_map), ctypes.sizeof(memory_map), 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    SHOWN[:] = [memory]


def facts(*numbers: int) -> list[int]:
    """Return some fields of ``/proc/self/stat`` by their numbers (proc(5)); the second is the command's name."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return [int(fields[number - 3]) for number in numbers]


def serve() -> tuple[list[str], dict[str, str]]:
    """Fork a process for each request, until the other end is closed; in such a process, return what it is to be."""
    for line in sys.stdin:
        argv, environment, path = json.loads(line)
        try:
            output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            answer("errno", error.errno)
            continue
        if pid := fork_away():
            os.close(output)
            answer("pid", pid)
            continue
        enter(output)
        return argv, environment
    sys.exit(0)


def answer(kind: str, number: int | None) -> None:
    """Send an answer to where requests come from."""
    os.write(0, json.dumps([kind, number]).encode() + b"\n")


def fork_away() -> int:
    """Fork a process that is no child of ours, but of whoever adopts orphans here; return its pid, and 0 in it."""
    heard, said = os.pipe()
    if between := os.fork():
        os.close(said)
        with open(heard, "rb") as file:
            pid = int(file.read())
        # It has its new parent when this one is gone.
        os.waitpid(between, 0)
        return pid
    os.close(heard)
    if pid := os.fork():
        os.write(said, str(pid).encode())
        os._exit(0)
    os.close(said)
    return 0


def enter(output: int) -> None:
    """Take the session and the standard descriptors of a process that is started on its own."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, number in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, number)
    os.close(nothing)
    os.close(output)


def main(module: str) -> None:
    """Import a module, and run it in each process that is asked for."""
    importlib.import_module(module)
    # What is run is imported anew, as the main module.
    del sys.modules[module]
    # This raises where the system does not let us; without it, a process could be told from one that was executed.
    show_as(sys.orig_argv, os.environ)
    gc.freeze()
    argv, environment = serve()
    os.environ.update(environment)
    show_as(argv, environment)
    sys.orig_argv[:] = argv
    sys.argv[:] = argv[argv.index("-m") + 1 :]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
