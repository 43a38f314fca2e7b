"""Directories and files that are made for their owners, who may write beside them: by descriptors, through no link.

A file is made under another name and gets its owner and mode before it takes the place of an earlier one: nobody reads
it before, and what is behind a link that somebody has put there is left alone.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from pytest_nixproc.errors import MachineError
from pytest_nixproc.values.state_files import StateDirectory, StateEntry, StateFile

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
AS_IT_IS: Final = -1
"""What chown(2) takes for an owner that stays."""

DESCRIBE: Final = "describe the account in the credentials of the process"


def provide(
    place: str, directories: Iterable[StateDirectory], files: Iterable[StateFile], obsolete: Iterable[str]
) -> None:
    """Remove obsolete files below a place, and make directories and files there, with what is missing on the way.

    Raises ``OSError``, and :class:`~pytest_nixproc.errors.MachineError` for an owner that there is not.
    """
    for path in obsolete:
        parent, name = os.path.split(path)
        with suppress(FileNotFoundError), named(path), opened(place, parent, inner_of) as descriptor:
            os.unlink(name, dir_fd=descriptor)
    # The outer ones come first, before they would be made on the way to the inner ones.
    for directory in sorted(directories, key=lambda directory: directory.path):
        with named(directory.path), opened(place, directory.path, made_in) as descriptor:
            settle(descriptor, directory)
    for file in files:
        parent, name = os.path.split(file.path)
        with named(file.path), opened(place, parent, made_in) as descriptor:
            write(descriptor, name, file)


@contextmanager
def named(path: str) -> Iterator[None]:
    """Have errors of the system name a whole path: descriptors have none."""
    try:
        yield
    except OSError as error:
        error.filename = path
        raise


@contextmanager
def opened(place: str, path: str, step: Callable[[int, str], int]) -> Iterator[int]:
    """Open a directory below a place, one step after the other."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in os.path.relpath(path, place).split("/"):
            outer = descriptor
            descriptor = step(outer, name)
            os.close(outer)
        yield descriptor
    finally:
        os.close(descriptor)


def inner_of(outer: int, name: str) -> int:
    """Return the descriptor of a directory in another one, which is itself for ``.``."""
    return os.open(name, DIRECTORY, dir_fd=outer)


def made_in(outer: int, name: str) -> int:
    """Return the descriptor of a directory in another one; it is made if it is missing."""
    try:
        return inner_of(outer, name)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=outer)
        descriptor = inner_of(outer, name)
        # Under any umask, owners of what is in it come through.
        os.fchmod(descriptor, 0o755)
        return descriptor


def settle(descriptor: int, entry: StateEntry) -> None:
    """Give an open file or directory its owner and its mode; a change of owner takes special bits away."""
    if entry.user or entry.group:
        os.fchown(descriptor, *ids_of(entry))
    os.fchmod(descriptor, entry.mode)


def ids_of(entry: StateEntry) -> tuple[int, int]:
    """Return the numbers of an owner and a group; the group is the user's primary one unless another is named."""
    uid = gid = AS_IT_IS
    try:
        if entry.user:
            account = pwd.getpwnam(entry.user)
            uid, gid = account.pw_uid, account.pw_gid
        if entry.group:
            gid = grp.getgrnam(entry.group).gr_gid
    except KeyError as error:
        raise MachineError(f"{entry.path} cannot have its owner: {error.args[0]}", remedy=DESCRIBE) from error
    return uid, gid


def write(parent: int, name: str, file: StateFile) -> None:
    """Write a file in an open directory, in the place of what has its name."""
    made = f".{name}.nixproc"
    descriptor = os.open(made, NEW, 0o600, dir_fd=parent)
    try:
        with os.fdopen(descriptor, "wb", 0) as stream:
            left = memoryview(os.fsencode(file.text))
            while left:
                left = left[stream.write(left) :]
            settle(descriptor, file)
        os.rename(made, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.unlink(made, dir_fd=parent)
        raise
