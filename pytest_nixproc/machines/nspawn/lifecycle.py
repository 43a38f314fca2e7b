"""The life of a throwaway machine, and of the deployments on it."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.nspawn.container import MachineContainer
from pytest_nixproc.machines.parts import Lifecycle


class NspawnLifecycle(Lifecycle):
    """The life of one machine, from boot to end; this host's guardian, its ancestor, ends it if nobody else does."""

    def __init__(self, container: MachineContainer) -> None:
        self._container = container
        self._host = container.host.lifecycle
        self._is_released = False

    @property
    def is_up(self) -> bool:
        """Tell whether the machine runs."""
        return self._container.is_up

    @property
    def boot_count(self) -> int:
        """The number of times that the machine has been booted."""
        return self._container.boot_count

    @property
    def is_released(self) -> bool:
        """Tell whether the machine lives on after :meth:`close`."""
        return self._is_released

    @property
    def failure(self) -> MachineError | None:
        """The error that says how the machine died; None while it runs, and when a test has ended it."""
        return self._container.failure

    def destroy(self) -> None:
        """Kill the machine, because it is not needed any more."""
        self._container.end_as("has been put down")

    def prepare(self) -> None:
        """Start the guardian on the machine, which starts processes there."""
        self._container.ask("lifecycle.prepare")

    def close(self) -> None:
        """End the machine, unless it was released."""
        if self._is_released:
            self._container.hang_up()
        else:
            self._container.kill()
        self._host.close()

    def release(self) -> None:
        """Let the machine live on with all that runs on it."""
        self._container.ask("lifecycle.release")
        self._host.release()
        self._is_released = True

    def guard(self, root: str, recovery: Sequence[str], seconds: float = 0) -> int | None:
        """Leave a deployment to this host's guardian: it outlives the machine."""
        return self._host.guard(root, recovery, seconds)

    def unguard(self, root: str) -> None:
        """Take a deployment back from this host's guardian."""
        self._host.unguard(root)
