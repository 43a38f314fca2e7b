"""The guardian of this process, and the clock and lifecycle of this machine, which rely on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import RLock

from pytest_nixproc.machines.guardian.connection import GuardianConnection
from pytest_nixproc.machines.parts import Lifecycle


class OwnGuardian:
    """One guardian per machine of this kind, started when it is needed first; any thread may ask for it."""

    def __init__(self) -> None:
        self.running: GuardianConnection | None = None
        self._starting = RLock()

    @property
    def connection(self) -> GuardianConnection:
        """The connection to the guardian, which is started if it does not run yet."""
        with self._starting:
            if self.running is None:
                self.running = GuardianConnection.start()
            return self.running

    @property
    def pids(self) -> list[int]:
        """The pid of the guardian, if it runs."""
        return [self.running.process.pid] if self.running else []

    def close(self) -> None:
        """End the guardian if it runs, and with it every process below it."""
        if self.running is not None:
            self.running.close()
            self.running = None


class HostClock:
    """The clock of this machine."""

    def __init__(self, guardian: OwnGuardian) -> None:
        self._guardian = guardian

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Sleep, unless the guardian has something to report."""
        if self._guardian.running is None:
            time.sleep(seconds)
        else:
            self._guardian.running.listen(seconds)


class HostLifecycle(Lifecycle):
    """The lifecycle of this machine, which is always up: only its guardian ends.

    ``forget`` closes the descriptors that are held of processes.
    """

    def __init__(self, guardian: OwnGuardian, forget: Callable[[], None]) -> None:
        self.guardian = guardian
        self._forget = forget

    def prepare(self) -> None:
        """Start the guardian; it gets ready while the deployment is being planned."""
        _ = self.guardian.connection

    def close(self) -> None:
        """End the guardian, and with it every process below it."""
        self._forget()
        self.guardian.close()

    def release(self) -> None:
        """Let the processes live on after :meth:`close`."""
        self.guardian.connection.release()

    def guard(self, root: str, recovery: Sequence[str], seconds: float = 0) -> int | None:
        """Register a deployment with the guardian; return the guardian's pid."""
        self.guardian.connection.guard(root, recovery, seconds)
        return self.guardian.connection.process.pid

    def unguard(self, root: str) -> None:
        """Take a deployment back from the guardian."""
        self.guardian.connection.unguard(root)
