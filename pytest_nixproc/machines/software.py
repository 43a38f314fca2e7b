"""The directories of the software that programs need, for machines and containers with a root of their own."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from typing import BinaryIO, Final

ESSENTIAL: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/run/current-system"),
    # What the dynamic loader, libc and TLS libraries read; the rest of /etc is the machine's own affair.
    *("/etc/ld.so.cache", "/etc/alternatives", "/etc/nsswitch.conf", "/etc/services", "/etc/protocols"),
    *("/etc/localtime", "/etc/ssl", "/etc/pki", "/etc/ca-certificates"),
)

TOO_MUCH: Final = frozenset(
    {"/", "/dev", "/dev/shm", "/etc", "/home", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/srv", "/sys"}  # noqa: S108
    | {"/tmp", "/var", "/var/cache", "/var/lib", "/var/log", "/var/run", "/var/spool", "/var/tmp"}  # noqa: S108
)
"""Directories that hold everything and nothing: of a file directly in one, only the file itself is needed."""

KERNEL: Final = ("/proc/", "/sys/", "/dev/")
PARTS_OF_A_PREFIX: Final = ("bin", "sbin", "libexec")
"""Directories of programs whose libraries and data lie beside them (Filesystem Hierarchy Standard 3.0, 4.1)."""

SIGNS_OF_A_PREFIX: Final = ("lib", "lib64", "libexec", "share", "pyvenv.cfg")
LIBRARIES_PER_PROGRAM_SECONDS: Final = 5
HEAD_BYTES: Final = 4096
ELF: Final = b"\x7fELF"
PT_INTERP: Final = 3
LAYOUTS: Final = {1: ("I", 28, 42, "II8xI"), 2: ("Q", 32, 54, "I4xQ16xQ")}
"""Of 32 and 64 bits: how the place of the program headers is written, and where; where their size and number is; and,
in each of them, its type, and the offset and length of what it describes (elf(5))."""

LINKS_IN_A_CHAIN: Final = 40
"""As many as the kernel follows (path_resolution(7))."""


class Software:
    """The software of this machine, as far as it was asked for; every program is looked at once."""

    def __init__(self) -> None:
        self._loads = cache(lambda file: tuple(loads(file)))

    def needed_by(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return the directories and files that hold ``paths`` and everything that they load, the outermost alone."""
        places = {place for path in paths for file in self._closure(path) if (place := place_of(file))}
        return outermost(filter(os.path.exists, {*ESSENTIAL, *places}))

    def _closure(self, path: str) -> set[str]:
        """Return the paths by which a file is reached, and those of everything that it loads."""
        found: set[str] = set()
        waiting = [path]
        while waiting:
            name = waiting.pop()
            if name not in found and os.path.exists(name):
                hops = set(chain(name))
                found |= hops
                waiting += self._loads(os.path.realpath(name))
        return found


def chain(path: str) -> Iterator[str]:
    """Yield a path, then each path that its links lead to, and at last the path without any link."""
    name = os.path.abspath(path)
    yield name
    for _ in range(LINKS_IN_A_CHAIN):
        if not os.path.islink(name):
            break
        name = os.path.normpath(os.path.join(os.path.dirname(name), os.readlink(name)))
        yield name
    yield os.path.realpath(path)


def loads(file: str) -> Iterator[str]:
    """Yield the files that a program needs to run: a script's interpreter, or a binary's loader and libraries."""
    if not (os.path.isfile(file) and os.access(file, os.R_OK | os.X_OK)):
        return
    with open(file, "rb") as content:
        head = content.read(HEAD_BYTES)
    if head.startswith(b"#!"):
        yield from (os.fsdecode(word) for word in head[2:].partition(b"\n")[0].split() if word.startswith(b"/"))
    elif head.startswith(ELF) and (loader := loader_of(file)):
        yield loader
        yield from libraries(loader, file)


def loader_of(file: str) -> str:
    """Return the dynamic loader that a binary names; empty for one that names none, or is damaged."""
    try:
        with open(file, "rb") as content:
            return interpreter_in(content)
    except (IndexError, KeyError, struct.error):
        return ""


def interpreter_in(content: BinaryIO) -> str:
    """Return the interpreter of a binary; it may stand anywhere in the file, as programs like patchelf(1) leave it."""
    head = content.read(64)
    address, place, sizes, header = LAYOUTS[head[4]]
    order = "<" if head[5] == 1 else ">"
    content.seek(*struct.unpack_from(order + address, head, place))
    size, number = struct.unpack_from(f"{order}HH", head, sizes)
    headers = [struct.unpack_from(order + header, content.read(size)) for _ in range(number)]
    for kind, offset, length in headers:
        if kind == PT_INTERP:
            content.seek(offset)
            return os.fsdecode(content.read(length).rstrip(b"\0"))
    return ""


def libraries(loader: str, file: str) -> Iterator[str]:
    """Yield the libraries of a binary, as its own loader lists them (ld.so(8), ``--list``; musl's has it too)."""
    try:
        command = [loader, "--list", file]
        limit = LIBRARIES_PER_PROGRAM_SECONDS
        listing = subprocess.run(command, capture_output=True, timeout=limit, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return
    for found in re.finditer(rb"^\s*(?:\S+ => )?(/.+?) \(0x[0-9a-f]+\)$", listing, re.MULTILINE):
        yield os.fsdecode(found.group(1))


def place_of(file: str) -> str:
    """Return the path to make available for a file to be of use: its directory, or the prefix that it is installed in.

    It is the file alone where its directory holds far more, and empty for files that the kernel provides.
    """
    if f"{file}/".startswith(KERNEL) and not file.startswith("/dev/shm/"):  # noqa: S108
        return ""
    if os.path.isdir(file):
        return "" if is_too_much(file) else file
    directory, prefix = os.path.dirname(file), os.path.dirname(os.path.dirname(file))
    if is_too_much(directory):
        return file
    if is_too_much(prefix) or os.path.basename(directory) not in PARTS_OF_A_PREFIX:
        return directory
    # Programs of an installation may use all of it.
    is_installation = any(os.path.exists(os.path.join(prefix, sign)) for sign in SIGNS_OF_A_PREFIX)
    return prefix if is_installation else directory


def is_too_much(directory: str) -> bool:
    """Tell whether a directory holds far more than one program: a top level of the system, or somebody's home."""
    home = os.path.expanduser("~")
    return directory in {*TOO_MUCH, home, os.path.realpath(home)} or os.path.dirname(directory) == "/home"


def outermost(places: Iterable[str]) -> tuple[str, ...]:
    """Return the places that lie in no other one."""
    kept: list[str] = []
    for place in sorted(places):
        if not any(place.startswith(f"{above}/") for above in kept):
            kept.append(place)
    return tuple(kept)
