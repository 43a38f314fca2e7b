"""The state directories that processes share."""

from __future__ import annotations

from typing import Final, Self

from pytest_nixproc.values.value import Value

JOURNAL: Final = "journal"
"""The name of the file that says whose a directory is, and what has to be undone; it goes last."""

SYSTEM_STATE_DIR: Final = "/var"
SYSTEM_TMP_DIR: Final = "/tmp"  # noqa: S108 - the name of the system's own, not a file of ours


class StateDirs(Value, kw_only=True):
    """Absolute paths of the directories in which a system keeps its state.

    ``StateDirs.under(path)`` gives the usual layout; single directories can be moved by name.
    """

    state_dir: str
    runtime_dir: str
    log_dir: str
    cache_dir: str
    spool_dir: str
    lock_dir: str
    lib_dir: str
    tmp_dir: str

    @classmethod
    def under(cls, state_dir: str = SYSTEM_STATE_DIR, **moved: str) -> Self:
        """Return the layout below ``state_dir``; only ``/var`` has its ``tmp_dir`` in ``/tmp``."""
        names = ("log", "cache", "spool", "lock", "lib")
        layout = {f"{name}_dir": f"{state_dir}/{name}" for name in names}
        layout["runtime_dir"] = f"{state_dir}/run"
        layout["tmp_dir"] = SYSTEM_TMP_DIR if state_dir == SYSTEM_STATE_DIR else f"{state_dir}/tmp"  # noqa: S108 - ours
        return cls(state_dir=state_dir, **(layout | moved))

    def all(self) -> tuple[str, ...]:
        """Return every directory, the state directory first, in the order in which to create them."""
        return (
            *(self.state_dir, self.runtime_dir, self.log_dir, self.cache_dir),
            *(self.spool_dir, self.lock_dir, self.lib_dir, self.tmp_dir),
        )

    def contains(self, path: str) -> bool:
        """Tell whether ``path`` is one of these directories or lies below one."""
        return any(path == directory or path.startswith(f"{directory}/") for directory in self.all())
