"""Where each millisecond of a session goes: a plugin of pytest, which ``sessions.py --trace`` loads.

Phases do not overlap: what happens within another one is taken off it. While the main thread waits for a verb, which
another thread carries out, the verb's phases count.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any, Final

import pytest

BEGIN: Final = "TRACE_BEGIN"
FILE: Final = "TRACE_FILE"

START: Final = "interpreter and pytest, until plugins are loaded"
CONFIGURE: Final = "pytest's configuration"
OURS: Final = "imports: this package"
OTHERS: Final = "imports: others"
COLLECT: Final = "collection"
TEST: Final = "the test, and pytest around it"
END: Final = "pytest's end"
EXIT: Final = "the interpreter's end"

PHASES: Final = {
    "_deployment.lease:LeaseHolder.acquire": "guardian: wait until it guards",
    "_deployment.lease:LeaseHolder.take": "lease: save",
    "_persistence.assigner:Assigner.free_port": "lease: ports",
    "_deployment.lease:LeaseHolder.plan": "plan",
    "_deployment.deployment:Deployment._install": "files: write",
    "_deployment.deployment:Deployment.start": "deployment, all else of it",
    "_deployment.operation:Operation.start": "instances: start, and wait until ready",
    "_deployment.judging:Judge.refuse_live_conflicts": "rules: look",
    "_deployment.deployment:Deployment._stop_all": "instances: stop",
    "_deployment.deployment:Deployment._close": "manager: close",
    "_deployment.deployment:Deployment._undo": "teardown, all else of it",
    "_deployment.lease:LeaseHolder.give_back": "lease: give back",
    "machines.guardian.connection:GuardianConnection.close": "guardian: wait for its end",
}
"""What is measured of a deployment, by the function that does it."""


class Trace:
    """The phases of this process, with the seconds that each has taken."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = float(os.environ.get(BEGIN) or time.monotonic())
        self._current = [START]

    def turn(self) -> None:
        """Give the time since the last turn to the current phase."""
        now = time.monotonic()
        self.seconds[self._current[-1]] += now - self._last
        self._last = now

    def go_on(self, phase: str) -> None:
        """Let the outermost phase end, and another one begin."""
        self.turn()
        self._current[0] = phase

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Let a phase last as long as a ``with`` block."""
        self.turn()
        self._current.append(name)
        try:
            yield
        finally:
            self.turn()
            self._current.pop()

    def wrapped(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return a function that is a phase."""

        @wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return measured

    def write(self) -> None:
        """Write the phases, the last of which goes on."""
        self.turn()
        with open(os.environ[FILE], "w", encoding="utf-8") as file:
            json.dump({"seconds": self.seconds, "end": self._last}, file)


class MeasuredImports:
    """Finds modules as the other finders do, and measures how long they take to be executed."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how a module is imported."""
        phase = OURS if fullname.startswith("pytest_nixproc") else OTHERS
        with self.trace.phase(phase):
            others = (finder for finder in sys.meta_path if finder is not self)
            specs = (finder.find_spec(fullname, path, target) for finder in others)
            spec = next(filter(None, specs), None)
        loader: Any = spec and spec.loader
        if isinstance(loader, SourceFileLoader | ExtensionFileLoader):
            vars(loader)["exec_module"] = self.trace.wrapped(loader.exec_module, phase)
        return spec


trace = Trace()
finder = MeasuredImports(trace)


def measure(phases: Iterable[tuple[str, str]]) -> None:
    """Have functions measured, if this is no session without our plugin."""
    for place, name in phases if "pytest_nixproc._plugin" in sys.modules else ():
        module, _, path = place.partition(":")
        *owner, function = path.split(".")
        holder: Any = import_module(f"pytest_nixproc.{module}")
        for part in owner:
            holder = getattr(holder, part)
        setattr(holder, function, trace.wrapped(getattr(holder, function), name))


def pytest_addoption() -> None:
    """Begin: plugins are loaded from now on."""
    trace.go_on(CONFIGURE)
    atexit.register(trace.write)


def pytest_plugin_registered() -> None:
    """Stay in front of the finders of other plugins."""
    sys.meta_path[:] = [finder, *(other for other in sys.meta_path if other is not finder)]


def pytest_collection() -> None:
    """Go on with the phase in which tests are collected."""
    trace.go_on(COLLECT)
    measure([("_plugin.warming:warm_up", "guardian and templates: begin")])


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Go on with the phase in which tests are run; what deploys has been imported."""
    measure(PHASES.items())
    trace.go_on(TEST)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Go on with the phase in which everything ends."""
    trace.go_on(END)
