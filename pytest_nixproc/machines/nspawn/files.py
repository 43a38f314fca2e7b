"""Files of a throwaway machine, some of which it shares with this host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.nspawn.container import MachineContainer
from pytest_nixproc.machines.nspawn.remote import RemoteFiles
from pytest_nixproc.machines.nspawn.showing import show_argv
from pytest_nixproc.machines.parts import Processes
from pytest_nixproc.machines.waiting import Clock, Deadline
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.machine import Facts

SHOW_SECONDS: Final = 30.0


class NspawnFiles(RemoteFiles):
    """The files on the machine; shared ones, logs most of all, can be read when the machine is down."""

    def __init__(
        self, container: MachineContainer, processes: Processes, clock: Clock, facts: Callable[[], Facts]
    ) -> None:
        super().__init__(container.ask, facts)
        self._container = container
        self._processes = processes
        self._clock = clock

    def read(self, path: str, start: int = 0) -> bytes | None:
        """Return a file's content from the machine, or from this host when the machine is down."""
        if self._is_only_here(path):
            return self._container.host.files.read(path, start)
        return super().read(path, start)

    def size(self, path: str) -> int:
        """Return the size of a file on the machine, or on this host when the machine is down."""
        return self._container.host.files.size(path) if self._is_only_here(path) else super().size(path)

    def _is_only_here(self, path: str) -> bool:
        """Tell whether a file is shared with a machine that is down."""
        return not self._container.has_agent and path.startswith(f"{self._container.spec.directory}/")

    def show(self, paths: Iterable[str]) -> None:
        """Mount those paths of this host that the machine does not see yet."""
        words = self._container.showing.words(paths)
        if words:
            facts = self._facts()
            command = Spawn(show_argv(facts.shell, words), {"PATH": facts.path_variable})
            status, output = self._processes.capture(command, Deadline(self._clock, SHOW_SECONDS))
            if status != 0:
                brief = f"machine {self._container.machine} cannot be shown {', '.join(words[2::2])}"
                raise MachineError(brief, details=output)
