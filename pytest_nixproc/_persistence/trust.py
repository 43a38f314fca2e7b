"""Trust in paths: a user who can change the way to a deployment can have its owner run anything."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ACL: Final = "system.posix_acl_access"
ACL_ENTRY: Final = struct.Struct("<HHI")
ACL_NAMED: Final = {0x02: "user", 0x08: "group"}
ACL_MASK: Final = 0x10
"""The access control list of a file as Linux keeps it: a version, then the kind, rights and id of each entry."""

ACL_WRITE: Final = 0o2


def stranger_on_the_way(path: str) -> str:
    """Return who could put something else in the place of a directory; empty if that is nobody but root and us.

    It takes a directory or link of theirs on the way, or one in which they can write and rename what is not theirs.
    What does not exist yet is nobody's.
    """
    platform: str = sys.platform
    if platform == "cygwin":
        # It has no user 0: system directories belong to accounts of Windows with any numbers.
        return ""
    return next((f"{place} {problem}" for place in way(path) if (problem := stranger_at(place))), "")


def way(path: str) -> Iterator[str]:
    """Yield every directory and link through which an absolute path leads, its end included (path_resolution(7)).

    It ends before the first that does not exist.
    """
    place = "/"
    yield place
    names = path.split("/")[::-1]
    while names:
        name = names.pop()
        if name == "..":
            place = os.path.dirname(place)
        elif name not in ("", "."):
            found = os.path.join(place, name)
            if not os.path.lexists(found):
                return
            yield found
            if os.path.islink(found):
                target = os.readlink(found)
                place = "/" if target.startswith("/") else place
                names += target.split("/")[::-1]
            else:
                place = found


def stranger_at(place: str) -> str:
    """Return why a directory or link is not root's and ours alone; empty if it is."""
    found = os.lstat(place)
    if found.st_uid != os.geteuid() and not is_root(found.st_uid, "uid"):
        return f"belongs to user {found.st_uid}"
    if stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX:
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if found.st_mode & stat.S_IWGRP and not is_private(found.st_gid):
        return f"can be written by group {found.st_gid}"
    # With such a list, the group's rights in the mode are the most that anybody named in it has.
    return named_writer(place) if found.st_mode & stat.S_IWGRP else ""


def named_writer(place: str) -> str:
    """Return whom an access control list lets write beside owner and group; empty if that is nobody but root and us."""
    try:
        content = os.getxattr(place, ACL)
    except (AttributeError, OSError):
        # The system, or the file system, has no such lists, or the file has none.
        return ""
    entries = list(ACL_ENTRY.iter_unpack(content[4:]))
    most = next((rights for kind, rights, _ in entries if kind == ACL_MASK), ACL_WRITE)
    for kind, rights, number in entries:
        if kind in ACL_NAMED and rights & most & ACL_WRITE and not is_ours(ACL_NAMED[kind], number):
            return f"can be written by {ACL_NAMED[kind]} {number}"
    return ""


def is_ours(kind: str, number: int) -> bool:
    """Tell whether a user or group is root's or ours alone."""
    return is_private(number) if kind == "group" else number == os.geteuid() or is_root(number, "uid")


def is_root(number: int, kind: str) -> bool:
    """Tell whether a user or group is root: also in a user namespace that has nobody but us in it.

    It shows everybody else's files as the overflow user's (user_namespaces(7)), and root's have to be among them. One
    that has a user of that number is a whole system, with a root of its own.
    """
    if number == 0:
        return True
    try:
        lines = Path(f"/proc/self/{kind}_map").read_text().splitlines()
        overflow = int(Path(f"/proc/sys/kernel/overflow{kind}").read_text())
    except OSError:
        return False
    ranges = [(int(first), int(count)) for first, _, count in map(str.split, lines)]
    return number == overflow and not any(first <= number < first + count for first, count in ranges)


def is_private(group: int) -> bool:
    """Tell whether a group is root's, or only us: many systems give each user a group of the same name.

    A directory that such a user makes can be written by that group, as the usual umask there is 002.
    """
    if is_root(group, "gid"):
        return True
    try:
        user, entry = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return (group, entry.gr_name) == (user.pw_gid, user.pw_name) and {*entry.gr_mem} <= {user.pw_name}


def open_own(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file that our own user has made, and no link to one; raises ``OSError`` for any other.

    What is looked at is what was opened, so that nobody can exchange it in between; and nobody has us wait for a pipe.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    problem = ""
    if not stat.S_ISREG(found.st_mode):
        problem = "not believed, because it is no regular file"
    elif found.st_uid != os.geteuid():
        problem = f"not believed, because it belongs to user {found.st_uid}"
    if problem:
        os.close(descriptor)
        raise PermissionError(errno.EPERM, problem, path)
    return descriptor
