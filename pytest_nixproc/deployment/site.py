"""The place of one deployment: a directory of its own, and what lies where in it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Self

from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.model.state import StateDirs

TAG: Final = "NIXPROC_DEPLOYMENT"
"""Environment variable that every process of a deployment carries."""

PASSABLE: Final = 0o711
PASS_OTHERS: Final = 0o001
TRIES: Final = 5
NOEXEC: Final = getattr(os, "ST_NOEXEC", 0)


MEMORY_DIRECTORY: Final = "/dev/shm"  # noqa: S108 - a directory of the user's own is made in it
MEMORY_BYTES: Final = 1 << 30


def default_state_root() -> str:
    """Return a directory of the calling user's own; short, because socket paths are (unix(7)).

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


@dataclass(frozen=True)
class Site:
    """One deployment's directory: ``journal``, ``profile`` (generated files) and ``var`` (state)."""

    root: str

    @classmethod
    def choose(cls, state_root: str | None) -> Self:
        """Choose a directory below a state root, without making it."""
        parent = os.path.abspath(state_root) if state_root else default_state_root()
        return cls(os.path.join(parent, secrets.token_hex(4)))

    def renamed(self, name: str) -> Self:
        """Return a site of another name beside this one."""
        return replace(self, root=os.path.join(os.path.dirname(self.root), name))

    @property
    def identity(self) -> str:
        """The deployment's name, unique on its machine."""
        return os.path.basename(self.root)

    @property
    def tag(self) -> str:
        """``NAME=VALUE`` that marks the deployment's processes."""
        return f"{TAG}={self.root}"

    @property
    def journal(self) -> str:
        """The journal's path."""
        return f"{self.root}/journal"

    @property
    def profile(self) -> str:
        """The directory of the generated files."""
        return f"{self.root}/profile"

    @cached_property
    def state(self) -> StateDirs:
        """The state directories."""
        return StateDirs.under(f"{self.root}/var")

    def make(self, *, for_others: bool = False, within: str = "/") -> None:
        """Make the directory, for its owner alone; raises :class:`~pytest_nixproc.errors.DeploymentError`.

        ``for_others`` lets other users pass through it, to files whose names they know; they come from ``within``.
        """
        parent = os.path.dirname(self.root)
        mode = PASSABLE if for_others else 0o700
        try:
            for attempt in range(TRIES):
                os.makedirs(parent, mode, exist_ok=True)
                try:
                    os.mkdir(self.root, mode)
                except FileNotFoundError:
                    # Another session has just removed the state root after its last deployment.
                    if attempt == TRIES - 1:
                        raise
                else:
                    break
            if parent == default_state_root() and os.stat(parent).st_uid != os.getuid():
                os.rmdir(self.root)
                raise DeploymentError(f"state root {parent} belongs to another user", remedy="set --nixproc-state-root")
            if for_others:
                self._let_others_pass(parent, within)
        except OSError as error:
            brief = f"cannot make a state directory in {parent}: {error.strerror}"
            raise DeploymentError(brief, remedy="choose a writable --nixproc-state-root") from error

    def remove(self) -> None:
        """Remove the directory with all that is in it; one that does not exist is no error."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.root)

    def _let_others_pass(self, parent: str, within: str) -> None:
        """Open our own directories whatever the umask; raise for one above that is closed: it is not ours to open."""
        os.chmod(self.root, PASSABLE)
        if parent == default_state_root() != within:
            os.chmod(parent, PASSABLE)
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
