"""The directory of one deployment, and the paths in it."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Final, Self

from pytest_nixproc._persistence.trust import stranger_on_the_way
from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.machines.removal import mount_of, remove_tree
from pytest_nixproc.values.state import JOURNAL, StateDirs
from pytest_nixproc.values.tags import DEPLOYMENT
from pytest_nixproc.values.value import Value

PASSABLE: Final = 0o711
PASS_OTHERS: Final = 0o001
TRIES: Final = 5
NOEXEC: Final = getattr(os, "ST_NOEXEC", 0)
O_PATH: Final = getattr(os, "O_PATH", os.O_RDONLY)
"""For directories that we may not list."""


MEMORY_DIRECTORY: Final = "/dev/shm"  # noqa: S108 - a directory of the user's own is made in it
MEMORY_BYTES: Final = 1 << 30


def default_state_root() -> str:
    """Return a directory of the calling user's own; its path is short, because socket paths have to be (unix(7)).

    Making files costs more than starting the processes that use them, unless they are in memory; so they are, where
    the system offers that, and nobody has asked for another place with TMPDIR.
    """
    parent = tempfile.gettempdir() if "TMPDIR" in os.environ or not is_roomy(MEMORY_DIRECTORY) else MEMORY_DIRECTORY
    return os.path.join(parent, f"nixproc-{os.getuid()}")


def is_roomy(directory: str) -> bool:
    """Tell whether we can write a directory and execute files in it, and it has space for more than small state."""
    try:
        facts = os.statvfs(directory)
    except OSError:
        return False
    has_space = facts.f_bavail * facts.f_frsize >= MEMORY_BYTES
    return has_space and not facts.f_flag & NOEXEC and os.access(directory, os.W_OK | os.X_OK)


def stranger_in_place_of(default: str) -> str:
    """Return what another has put in the place of the usual state root, whose name is known; empty if nothing."""
    try:
        found = os.lstat(default)
    except FileNotFoundError:
        return ""
    if not stat.S_ISDIR(found.st_mode):
        return f"{default} is no directory"
    return f"{default} belongs to another user" if found.st_uid != os.getuid() else ""


def make_missing(path: str, mode: int) -> None:
    """Make a directory of some mode, and those above it that do not exist: others can pass through these, if by umask.

    No umask lets others write into them.
    """
    for missing in reversed([place for place in ancestors_of(path) if not os.path.isdir(place)]):
        with suppress(FileExistsError):
            os.mkdir(missing, mode if missing == path else 0o755)
    if not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


def ancestors_of(path: str) -> Iterator[str]:
    """Yield an absolute path, and all directories above it."""
    yield path
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path


class DeploymentDirectory(Value):
    """One deployment's directory: ``journal``, ``profile`` (generated files) and ``var`` (state)."""

    root: str

    @classmethod
    def allocate(cls, state_root: str | None) -> Self:
        """Choose a directory below a state root, without making it."""
        parent = os.path.abspath(state_root) if state_root else default_state_root()
        return cls(os.path.join(parent, secrets.token_hex(4)))

    def renamed(self, name: str) -> Self:
        """Return a directory of another name beside this one."""
        return replace(self, root=os.path.join(os.path.dirname(self.root), name))

    @property
    def identity(self) -> str:
        """The deployment's name, unique on its machine."""
        return os.path.basename(self.root)

    @property
    def tag(self) -> str:
        """The variable, as ``NAME=VALUE``, that marks the deployment's processes."""
        return f"{DEPLOYMENT}={self.root}"

    @property
    def journal(self) -> str:
        """The path of the journal."""
        return f"{self.root}/{JOURNAL}"

    @property
    def profile(self) -> str:
        """The directory of the generated files."""
        return f"{self.root}/profile"

    @cached_property
    def state(self) -> StateDirs:
        """The state directories."""
        return StateDirs.under(f"{self.root}/var")

    def make(self, *, for_others: bool = False, within: str | None = None) -> None:
        """Make the directory, for its owner alone; raises :class:`~pytest_nixproc.errors.DeploymentError`.

        ``for_others`` lets other users pass through it, to files whose names they know. If they have to come from
        ``within``, a directory on the way that is closed to them is an error.
        """
        parent = os.path.dirname(self.root)
        mode = PASSABLE if for_others else 0o700
        try:
            self._refuse_strangers(parent)
            for attempt in range(TRIES):
                make_missing(parent, mode)
                try:
                    self._make_in(parent, mode)
                except FileNotFoundError:
                    # Another session has just removed the state root after its last deployment.
                    if attempt == TRIES - 1:
                        raise
                else:
                    break
            if for_others:
                self._let_others_pass(parent, within)
            if within is not None:
                self._refuse_closed(parent, within)
        except OSError as error:
            brief = f"cannot make a state directory in {parent}: {error.strerror}"
            raise DeploymentError(brief, remedy="choose a writable --nixproc-state-root") from error

    def _make_in(self, parent: str, mode: int) -> None:
        """Make the directory in what a path leads to, if nobody else has exchanged that, nor can from then on."""
        descriptor = os.open(parent, O_PATH | os.O_DIRECTORY)
        try:
            os.mkdir(self.identity, mode, dir_fd=descriptor)
            try:
                # Once more: somebody may have made a part of it in the meantime.
                self._refuse_strangers(parent)
                if not os.path.samestat(os.stat(parent), os.fstat(descriptor)):
                    raise self._untrusted(parent, "somebody has put another directory in its place")
            except (DeploymentError, OSError):
                os.rmdir(self.identity, dir_fd=descriptor)
                raise
        finally:
            os.close(descriptor)

    def refuse_noexec(self) -> None:
        """Raise where nothing can be executed, before anything is made there."""
        parent = os.path.dirname(self.root)
        place = next(filter(os.path.isdir, ancestors_of(parent)))
        if os.statvfs(place).f_flag & NOEXEC:
            mount = mount_of(place)
            brief = f"nothing can be executed in state root {parent}: {mount} is mounted noexec"
            remedy = f"let --nixproc-state-root, or TMPDIR, be elsewhere, or mount -o remount,exec {mount}"
            raise DeploymentError(brief, remedy=remedy)

    def _refuse_strangers(self, parent: str) -> None:
        """Raise if another user could exchange our directory, with its journal, before anything is written into it."""
        default = default_state_root()
        stranger = (parent == default and stranger_in_place_of(default)) or stranger_on_the_way(parent)
        if stranger:
            raise self._untrusted(parent, stranger)

    def _untrusted(self, parent: str, reason: str) -> DeploymentError:
        default, where = default_state_root(), "be where only you and root can write and rename"
        if parent == default:
            remedy = f"let --nixproc-state-root, or TMPDIR, {where}"
        else:
            remedy = f"leave --nixproc-state-root out, for the default {default}, or let it {where}"
        return DeploymentError(f"state root {parent} cannot be trusted: {reason}", remedy=remedy)

    def remove(self) -> None:
        """Remove the directory with all that is in it; one that does not exist is no error.

        Raises :class:`~pytest_nixproc.errors.Unremovable`, which names what stays.
        """
        remove_tree(self.root)

    def _let_others_pass(self, parent: str, within: str | None) -> None:
        """Let others pass through our own directories, under any umask, as far as they do not come from ``within``."""
        os.chmod(self.root, PASSABLE)
        if parent == default_state_root() != within:
            os.chmod(parent, PASSABLE)

    def _refuse_closed(self, parent: str, within: str) -> None:
        """Raise if a directory above is closed to others."""
        closed = parent
        while closed != within and os.stat(closed).st_mode & PASS_OTHERS:
            closed = os.path.dirname(closed)
        if closed != within:
            os.rmdir(self.root)
            brief = f"other users cannot pass through {closed}, and processes are to run as other users"
            raise DeploymentError(brief, remedy=f"choose another --nixproc-state-root, or chmod o+x {closed}")

    def leave(self) -> None:
        """Remove the state root too, if it is ours and no deployment is left in it."""
        if os.path.dirname(self.root) == default_state_root():
            with suppress(OSError):
                os.rmdir(default_state_root())
