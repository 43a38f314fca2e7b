"""The guardian of this process, and the clock and lifecycle of this machine, which rely on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from threading import RLock

from pytest_nixproc.machines.forks import renew_after_fork
from pytest_nixproc.machines.guardian.connection import GuardianConnection
from pytest_nixproc.machines.guardian.succession import successor_of
from pytest_nixproc.machines.parts import Lifecycle
from pytest_nixproc.machines.shielding import shielded


class OwnGuardian:
    """One guardian per machine of this kind, started when it is needed first; any thread may ask for it.

    When it is gone, the request that finds it out raises, and the next one is for its successor. A forked child has
    none of its parent's: it starts its own when it needs one.
    """

    def __init__(self) -> None:
        self._started: GuardianConnection | None = None
        self._starting = RLock()
        renew_after_fork(self)

    def renew(self) -> None:
        """Make locks anew in a forked child: threads that it does not have may hold them."""
        self._starting = RLock()

    @property
    def running(self) -> GuardianConnection | None:
        """The connection to the guardian, if one of this process runs."""
        started = self._started
        return started if started is not None and started.owner == os.getpid() else None

    @property
    def connection(self) -> GuardianConnection:
        """The connection to the guardian, which is started if it does not run yet."""
        running = self.running
        return running if running is not None and not running.is_gone else shielded(self._start)

    def _start(self) -> GuardianConnection:
        with self._starting:
            if self.running is None:
                if self._started is not None:
                    self._started.close()
                self._started = GuardianConnection.start()
            elif self.running.is_gone:
                self._started = successor_of(self.running)
            assert self._started is not None
            return self._started

    @property
    def pids(self) -> list[int]:
        """The pid of the guardian, if it runs."""
        return [self.running.process.pid] if self.running else []

    def close(self) -> None:
        """End the guardian if it runs, and with it every process below it."""
        started, self._started = self._started, None
        if started is not None:
            started.close()
            if started.guarded and started.process.returncode:
                # It was killed, and nobody has noticed until now.
                successor_of(started).close()


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
            self._guardian.connection.listen(seconds)


class HostLifecycle(Lifecycle):
    """The lifecycle of this machine, which is always up: only its guardian ends.

    ``forget`` closes the descriptors that are held of processes.
    """

    def __init__(self, guardian: OwnGuardian, forget: Callable[[], None]) -> None:
        self.guardian = guardian
        self._forget = forget

    def prepare(self) -> None:
        """Start the guardian; it gets ready while something else is waited for."""
        _ = self.guardian.connection

    def warm_up(self, interpreter: Sequence[str], module: str) -> None:
        """Have a template of the guardian's import it."""
        self.guardian.connection.warm_up(interpreter, module)

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
