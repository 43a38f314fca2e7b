"""One instance of a running system, as tests see it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Never

from pytest_nixproc._deployment.operation import Operation
from pytest_nixproc._inspection.answers import main_endpoint
from pytest_nixproc._inspection.observation import pid_file_of
from pytest_nixproc._planning.steps import Step
from pytest_nixproc.errors import NixprocError, TeardownError
from pytest_nixproc.machines.shielding import verb
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.model.ready import LogLine
from pytest_nixproc.values.addresses import url_of
from pytest_nixproc.values.units import Status

ASKED_FOR: Final = "asked for by a test"

REQUESTS: Final = frozenset(
    {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGSTOP, signal.SIGTSTP, signal.SIGCONT}
)
"""Signals by which nobody asks a server to end."""


class Handle:
    """A handle of what this process has deployed, which cannot be sent to another one."""

    def __reduce__(self) -> Never:
        remedy = "pass what the other one needs of it, such as a port, a URL or a path"
        raise TypeError(f"{self!r} belongs to the process that has deployed it: {remedy}")


class RunningInstance(Handle):
    """One instance of a running system; the attributes of the model's instance can be read from it."""

    def __init__(self, name: str, operation: Operation) -> None:
        self.name = name
        self._operation = operation

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return getattr(self._operation.context.model[self.name], attribute)

    def __repr__(self) -> str:
        return f"<RunningInstance {self.name!r}>"

    @property
    @verb
    def url(self) -> str:
        """``http://HOST:PORT`` of its ``port``, or of the only port it declares, as the tests reach it.

        The host is the address that it declares, a loopback address where that is all addresses, or else the one at
        which it listens. On a machine with a network of its own, it is an address that leads there.
        """
        endpoint = main_endpoint(self.name, self._operation.context.model[self.name])
        return url_of(*self._operation.observer.address(self.name, endpoint))

    @property
    @verb
    def status(self) -> Status:
        """Its status now, as the manager reports it."""
        return self._operation.status_of(self.name)

    @property
    def is_running(self) -> bool:
        """Tell whether its process runs now."""
        return self.status.running

    @property
    def pid(self) -> int | None:
        """Its main process; None when it does not run."""
        status = self.status
        return status.pid if status.running else None

    @property
    @verb
    def pids(self) -> list[int]:
        """All its processes, the main one first; empty when it does not run."""
        return self._operation.pids_of(self.name)

    @property
    def pid_file(self) -> str:
        """The path of its PID file, if it has one: the same under every manager, but for overrides."""
        plan = self._operation.plan
        return pid_file_of(self._operation.context.units[self.name], plan.model[self.name].pkg, plan.target)

    @property
    @verb
    def listening(self) -> set[int]:
        """The TCP ports that its processes listen on, or that are forwarded to them."""
        return self._operation.observer.ports(self.name, self.status)

    @property
    @verb
    def log(self) -> str:
        """Everything it has written to its standard output and error."""
        return self._operation.log(self.name)

    @verb
    def start(self) -> None:
        """Start it and wait until it is ready; raises :class:`~pytest_nixproc.errors.StartError`."""
        self._operation.context.refuse_forked()
        self._operation.note_ends(self.name)
        self._operation.start([Step("start", self.name, (), ASKED_FOR)], {self.name: self})
        self._operation.status_of(self.name)

    @verb
    def stop(self) -> None:
        """Stop it and wait for its end, and end the processes that it leaves behind.

        Raises :class:`~pytest_nixproc.errors.TeardownError` if force was needed, or anything was left behind.
        """
        self._operation.context.refuse_forked()
        self._operation.status_of(self.name)
        self._operation.note_ends(self.name)
        if problems := self._operation.stop_wholly([Step("stop", self.name, (), ASKED_FOR)]):
            raise TeardownError(problems, f"{self.name} on {self._operation.context.manager}")

    @verb
    def restart(self) -> None:
        """Stop it if it runs, and start it, even if it had to be killed; raises the errors of both."""
        with self._operation.context.ends.exclusively([self.name]):
            try:
                if self.is_running:
                    self.stop()
            finally:
                self.start()

    @verb
    def reload(self) -> None:
        """Ask it to read its configuration again, in its manager's way (usually SIGHUP)."""
        self._operation.context.refuse_forked()
        seconds = self._operation.context.settings.stop_seconds
        self._operation.driver.reload(
            self._operation.context.units[self.name], self._operation.machine.deadline(seconds)
        )

    @verb
    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to its main process, behind its manager's back; with SIGKILL, wait until it has ended."""
        self._operation.context.refuse_forked()
        with self._operation.context.ends.exclusively([self.name]):
            self._kill(number)

    def _kill(self, number: int) -> None:
        pid = self.pid
        if pid is None:
            raise NixprocError(f"{self.name} does not run")
        machine = self._operation.machine
        machine.processes.ended([pid])
        if number not in REQUESTS:
            self._operation.expect_end(self.name, pid)
        machine.processes.signal(pid, number)
        if number == signal.SIGKILL:
            machine.processes.wait_ended([pid], machine.deadline(self._operation.context.settings.stop_seconds))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it for the time of a ``with`` block, and start it again, even if it had to be killed."""
        try:
            self.stop()
            yield
        finally:
            self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Freeze all its processes (SIGSTOP) for the time of a ``with`` block."""
        pids = self.pids
        machine = self._operation.machine
        for pid in pids:
            machine.processes.signal(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                machine.processes.signal(pid, signal.SIGCONT)

    @verb
    def wait_for_log(self, pattern: str, *, timeout: float = 60) -> None:
        """Wait until a regular expression is found in a line of its log; managers may write one a moment later."""
        what = f"wait for a line of {self.name}'s log with {pattern!r}"
        deadline = self._operation.machine.deadline(timeout)
        line = LogLine(pattern)
        wait_until(lambda: "" if line.is_in(self.log) else "it is not there", deadline, what)

    @verb
    def wait_ready(self) -> None:
        """Wait until it is ready, after something that it has to recover from."""
        self._operation.await_ready(self.name, self)
