"""Files and directories as one piece of bytes, to carry them from one machine to another."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Final

from pytest_nixproc.errors import MachineError

if TYPE_CHECKING:
    import tarfile

ROOT: Final = "it"
"""Name of a packed file or directory in its archive, in place of its own name."""


def pack(path: str) -> bytes:
    """Return a file or directory as an archive; raises :class:`~pytest_nixproc.errors.MachineError` if it cannot."""
    import tarfile

    packed = io.BytesIO()
    try:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(path, ROOT)
    except OSError as error:
        raise MachineError(f"cannot read {error.filename or path}: {error.strerror}") from error
    return packed.getvalue()


def unpack(packed: bytes, path: str) -> None:
    """Unpack an archive of :func:`pack` at a path, with the directories it needs; the files belong to the caller.

    Raises :class:`~pytest_nixproc.errors.MachineError` if it cannot be written.
    """
    import tarfile

    directory, name = os.path.split(os.path.abspath(path))
    try:
        os.makedirs(directory, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            # All of it, as pack has packed it: from Python 3.14 on, less would be the default.
            archive.extraction_filter = lambda member, _: member
            for member in archive:
                archive.extract(renamed(member, name), directory)
    except OSError as error:
        raise MachineError(f"cannot write {error.filename or path}: {error.strerror}") from error


def renamed(member: tarfile.TarInfo, name: str) -> tarfile.TarInfo:
    """Return a member of an archive under a new name, owned by the caller; the target of a hard link is renamed too."""
    member.name = name + member.name.removeprefix(ROOT)
    if member.islnk():
        member.linkname = name + member.linkname.removeprefix(ROOT)
    member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
    return member
