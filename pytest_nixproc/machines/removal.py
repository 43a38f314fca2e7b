"""The removal of directories: by descriptors, through no link, and into no mount.

Each step is taken at an open directory, never along a path: whoever exchanges a directory for a link meanwhile gains
nothing. One directory is open at a time, and the way up is its ``..``, which has to be the one that we came from. So
trees may be of any depth.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from pytest_nixproc.errors import Unremovable
from pytest_nixproc.machines.inode_flags import flag_of
from pytest_nixproc.machines.process_table import HAS_PROC, read_facts
from pytest_nixproc.values.state import JOURNAL
from pytest_nixproc.values.value import Value

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
PLACE: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
"""How to open what is only a place: it need not be readable."""

USABLE: Final = stat.S_IRWXU
PASSES: Final = 3
"""How often a directory is looked at again that has got new entries meanwhile."""

NO_DIRECTORY: Final = (errno.ENOTDIR, errno.ELOOP, errno.EMLINK)
"""How systems refuse to open a file, or a link, as a directory."""

REFUSED: Final = (errno.EPERM, errno.EACCES)
MOUNTED: Final = "something is mounted on it"
FILLED: Final = "something is still made in it"
AT_MOST: Final = 20
"""How many paths an error names."""


@dataclass
class Level:
    """One directory on the way down to the open one."""

    name: str
    inode: tuple[int, int]
    names: list[str]
    """Its entries that are still to be removed, the last first."""

    passes: int = 1
    stays: bool = False


class Cause(Value):
    """What keeps a path from being removed, and the command that helps."""

    reason: str
    remedy: str = ""


@dataclass
class Removal:
    """The removal of one path, as far as that is possible; ``open`` is the directory that is being emptied."""

    place: str
    above: int
    """A descriptor of the directory that the path is in, which stays as it is."""

    open: int = -1
    levels: list[Level] = field(default_factory=list)
    stays: dict[str, Cause] = field(default_factory=dict)
    """What stays, by full path."""

    def carry_out(self, name: str) -> Mapping[str, Cause]:
        """Remove a file, or a directory with all that can be removed; return what stays."""
        self.open = os.dup(self.above)
        self.mount = mount_at(self.open)
        try:
            self._remove(name)
            while self.levels:
                level = self.levels[-1]
                if not level.names:
                    self._leave()
                elif (entry := level.names.pop()) != JOURNAL or len(self.levels) > 1 or not level.stays:
                    # The journal says whose a directory is: as long as anything stays there, so does it.
                    self._remove(entry)
        finally:
            os.close(self.open)
        return self.stays

    def _path(self, *names: str) -> str:
        return "/".join([self.place, *(level.name for level in self.levels), *names])

    def _remove(self, name: str) -> None:
        """Remove one entry of the open directory; one that is a directory is entered."""
        try:
            os.unlink(name, dir_fd=self.open)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM) or not self._enter(name):
                self._note(name, error)

    def _enter(self, name: str, passes: int = 1) -> bool:
        """Open a directory in the open one, and leave that; return False for what is no directory."""
        try:
            descriptor = self._opened(name)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in NO_DIRECTORY:
                return False
            self._note(name, error)
            return True
        try:
            self._refuse_mounted(descriptor)
            level = Level(name, inode_of(os.fstat(descriptor)), entries_of(descriptor), passes)
        except OSError as error:
            os.close(descriptor)
            self._note(name, error)
            return True
        self._move_to(descriptor)
        self.levels.append(level)
        return True

    def _opened(self, name: str) -> int:
        """Open a directory in the open one; our own is opened to us first."""
        try:
            return os.open(name, DIRECTORY, dir_fd=self.open)
        except PermissionError:
            self._let_in(name)
            return os.open(name, DIRECTORY, dir_fd=self.open)

    def _let_in(self, name: str) -> None:
        """Let ourselves into a directory, unless it is one that is mounted there."""
        if not hasattr(os, "O_PATH"):
            os.chmod(name, USABLE, dir_fd=self.open, follow_symlinks=False)
            return
        descriptor = os.open(name, PLACE | os.O_NOFOLLOW, dir_fd=self.open)
        try:
            self._refuse_mounted(descriptor)
            # What is only a place has no mode to change, but its name among our descriptors has.
            os.chmod(f"/proc/self/fd/{descriptor}", USABLE)
        finally:
            os.close(descriptor)

    def _refuse_mounted(self, descriptor: int) -> None:
        """Raise for an open directory that is of another mount than the one we work in."""
        if mount_at(descriptor) != self.mount:
            raise OSError(errno.EBUSY, MOUNTED)

    def _move_to(self, descriptor: int) -> None:
        os.close(self.open)
        self.open = descriptor

    def _leave(self) -> None:
        """Go up, and remove the directory that was open, if it is empty."""
        level = self.levels.pop()
        if not self._go_up():
            return
        if level.stays:
            self._mark()
            return
        try:
            os.rmdir(level.name, dir_fd=self.open)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                self._note(level.name, error)
            elif level.passes == PASSES:
                self._stay(self._path(level.name), Cause(FILLED))
            else:
                self._enter(level.name, level.passes + 1)

    def _go_up(self) -> bool:
        """Open the directory above; tell whether that was where we came from. If not, find that by its name again."""
        if not self.levels:
            self._move_to(os.dup(self.above))
            return True
        with suppress(OSError):
            descriptor = os.open("..", DIRECTORY, dir_fd=self.open)
            if inode_of(os.fstat(descriptor)) == self.levels[-1].inode:
                self._move_to(descriptor)
                return True
            os.close(descriptor)
        self._find_again()
        return False

    def _find_again(self) -> None:
        """Open the last level that is still where it was; those below it are not in our directory any more."""
        levels, self.levels = self.levels, []
        self._move_to(os.dup(self.above))
        for level in levels:
            try:
                descriptor = os.open(level.name, DIRECTORY, dir_fd=self.open)
            except OSError:
                return
            if inode_of(os.fstat(descriptor)) != level.inode:
                os.close(descriptor)
                return
            self._move_to(descriptor)
            self.levels.append(level)

    def _note(self, name: str, error: OSError) -> None:
        """Note that an entry of the open directory stays; where that is the directory's doing, all of it does."""
        if error.errno in REFUSED and self.levels and (cause := cause_in(self.open)):
            self.levels[-1].names.clear()
            self._stay(self._path(), cause)
        else:
            self._stay(self._path(name), cause_of(name, self.open, error))

    def _stay(self, path: str, cause: Cause) -> None:
        self.stays[path] = cause
        self._mark()

    def _mark(self) -> None:
        if self.levels:
            self.levels[-1].stays = True


def remove_tree(path: str) -> None:
    """Remove a file, or a directory with all that is in it; one that does not exist is no error.

    What others have mounted there is theirs, and what is immutable was made so on purpose: these stay, and with them
    the directories that they are in. Raises :class:`~pytest_nixproc.errors.Unremovable`, which names them.
    """
    place, name = os.path.split(path.rstrip("/"))
    try:
        above = os.open(place or "/", PLACE)
        try:
            stays = Removal(place, above).carry_out(name)
        finally:
            os.close(above)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise Unremovable(f"cannot remove {path}: {error.strerror}") from error
    if stays:
        raise unremovable(path, stays)


def unremovable(path: str, stays: Mapping[str, Cause]) -> Unremovable:
    """Return the error that names what stays of a path."""
    lines = [f"{place}: {cause.reason}" for place, cause in stays.items()]
    remedy = "; ".join(remedies(stays))
    if len(lines) == 1:
        return Unremovable(f"cannot remove {lines[0]}", remedy=remedy)
    more = [f"  and {len(lines) - AT_MOST} more"] if len(lines) > AT_MOST else []
    details = "\n".join([*(f"  {line}" for line in lines[:AT_MOST]), *more])
    return Unremovable(f"cannot remove {len(lines)} paths in {path}", details=details, remedy=remedy)


def remedies(stays: Mapping[str, Cause]) -> list[str]:
    """Return the commands that help, each with all its paths, and what to type then."""
    by_command: dict[str, list[str]] = {}
    for place, cause in list(stays.items())[:AT_MOST]:
        by_command.setdefault(cause.remedy, []).append(place)
    if mounts := by_command.get("umount"):
        # The innermost first: in this order they can be unmounted.
        nested = (point for point in mount_points() if any(f"{point}/".startswith(f"{place}/") for place in mounts))
        by_command["umount"] = sorted({*mounts, *nested}, reverse=True)
    commands = [f"{command} {' '.join(places)}" for command, places in by_command.items() if command]
    return [*commands, "then nixproc reap (or nixproc end, for a kept system)"]


def cause_in(directory: int) -> Cause | None:
    """Return what keeps the entries of an open directory from being removed, if the directory itself does."""
    if flag := flag_of(directory):
        return Cause(f"it is {flag.meaning}", f"chattr -{flag.letter}")
    owner = os.fstat(directory).st_uid
    is_ours = owner == os.geteuid() or os.geteuid() == 0
    return None if is_ours else Cause(f"it belongs to user {owner}", "have that user, or root, remove")


def cause_of(name: str, directory: int, error: OSError) -> Cause:
    """Return what keeps one entry of an open directory from being removed."""
    if error.errno == errno.EBUSY:
        return Cause(MOUNTED, "umount")
    if error.errno in REFUSED:
        with suppress(OSError):
            # Opening anything else could do something.
            mode = os.lstat(name, dir_fd=directory).st_mode if sys.platform == "linux" else 0
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
                try:
                    if flag := flag_of(descriptor):
                        return Cause(f"it is {flag.meaning}", f"chattr -{flag.letter}")
                finally:
                    os.close(descriptor)
    return Cause(error.strerror or str(error))


def entries_of(directory: int) -> list[str]:
    """Return the entries of an open directory, after having them opened to us; the journal is popped last."""
    if os.fstat(directory).st_mode & USABLE != USABLE:
        with suppress(OSError):
            os.fchmod(directory, USABLE)
    return sorted(os.listdir(directory), key=lambda entry: entry != JOURNAL)


def inode_of(found: os.stat_result) -> tuple[int, int]:
    """Return what tells a directory from all others."""
    return found.st_dev, found.st_ino


def mount_at(descriptor: int) -> str:
    """Return what tells the mount of an open directory from others.

    The kernel's number of it (proc(5), fdinfo): a directory that is bound over another may be of the same device. Where
    there is no such number, it is the device.
    """
    number = re.search(rb"^mnt_id:\s*(\d+)", read_facts(f"/proc/self/fdinfo/{descriptor}"), re.MULTILINE)
    return number[1].decode() if number else f"device {os.fstat(descriptor).st_dev}"


def mount_of(path: str) -> str:
    """Return the mount point that a path lies below."""
    real = os.path.realpath(path)
    return max(
        (point for point in mount_points() if f"{real}/".startswith(f"{point.rstrip('/')}/")), key=len, default="/"
    )


def mount_points() -> set[str]:
    """Return the paths at which anything is mounted, as this process sees them."""
    if HAS_PROC:
        points = [line.split(b" ")[4] for line in read_facts("/proc/self/mountinfo").splitlines()]
        # Blanks, line breaks and backslashes are written as octal numbers (proc(5)).
        return {
            os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), point)) for point in points
        }
    import psutil

    return {partition.mountpoint for partition in psutil.disk_partitions(all=True)}
