"""What people, other programs and torn writes put into everything that is read: it is understood, or one clear error.

Journals, leases, options, models and configurations in JSON and YAML, PID files, and the messages of guardian and agent
are drawn by Hypothesis: near to what is right, and noise. A reader that raises anything but our own error has lost.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.results import Bar, Results, add_options
from pytest_nixproc._persistence.journal import first_event, machine_of, place_of, recall
from pytest_nixproc._persistence.leases import Leases, PortLeases
from pytest_nixproc._planning.other_deployments import claims_in
from pytest_nixproc._plugin import options
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.guardian.process import Guardian
from pytest_nixproc.machines.nspawn.agent import Agent
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.sources.config import read_config
from pytest_nixproc.values.pid_files import described, pid_in
from pytest_nixproc.values.state import StateDirs

Take = Callable[[bytes], object]

SCALARS: Final = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
NAMES: Final = (
    *("event", "begin", "machine", "manager", "directory", "state", "identity", "tags", "stop_seconds", "start"),
    *("running", "pids", "stopped", "open", "assigned", "facts", "claims", "ports", "paths", "ids", "name", "host"),
    *("force_disable_user_change", "units", "root", "users", "guardian", "kept", "run", "phase", "pid", "started"),
    *("boot", "last", "processes", "process", "args", "port", "daemon", "foregroundProcess", "idResources", "min"),
    *("max", "dependencies", "spawn", "guard", "unguard", "strays", "spare", "tag", "synchronize", "release", "argv"),
    *("commands", "seconds", "web", "/bin/true", "${ids.a.b}", "${port}", "1", "tcp/80", "pkg", "mode", "log_file"),
)
WORDS: Final = st.sampled_from(NAMES)
VALUES: Final = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=6), inner, max_size=6),
    max_leaves=14,
)
OBJECTS: Final = st.dictionaries(WORDS, VALUES, max_size=8)
NOISE: Final = st.binary(max_size=60)


def lines_of(objects: Sequence[object]) -> bytes:
    """Return objects as lines of JSON."""
    return b"".join(json.dumps(item).encode() + b"\n" for item in objects)


@st.composite
def damaged(draw: st.DrawFn, good: Sequence[bytes]) -> bytes:
    """Draw something that was right, and has been cut off or overwritten since."""
    text = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text)))
        text[place : place + draw(st.integers(0, 6))] = draw(st.binary(max_size=4) | VALUES.map(dumped))
    return bytes(text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text)


def dumped(value: object) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value).encode()


JOURNAL: Final = lines_of(
    [
        {"event": "begin", "manager": "sysvinit", "machine": "host", "directory": "/r/profile", "identity": "x"}
        | {"state": {"state_dir": "/r/var"}, "tags": {}, "stop_seconds": 5, "force_disable_user_change": True},
        {"event": "claims", "name": "m", "ports": {"tcp 80": "web"}, "paths": {"/x": "web"}, "ids": {}},
        {"event": "open"},
        {"event": "start", "units": [{"name": "web", "mode": "daemon", "log_file": "/l", "pid_file": "/p"}]},
        {"event": "running", "pids": {"web": [1, "2"]}},
        {"event": "stopped", "units": ["web"]},
    ]
)
OWNER: Final = {"pid": 1, "started": "2", "boot": "b"}
LEASE: Final = dumped({"root": "/r", "users": [OWNER], "guardian": OWNER, "kept": False, "run": "", "phase": "ready"})
PORTS: Final = dumped({"ports": {"80": ["/r", OWNER]}, "last": 80})
MODEL: Final = dumped(
    {"processes": {"web": {"process": {"name": "web", "foregroundProcess": "/bin/true", "args": ["1"]}}}}
)
YAML: Final = (
    b"idResources:\n  p: {min: 1, max: 2}\nprocesses:\n  web: &w\n    port: ${freePort.web}\n    process: {name: web}\n"
)
MESSAGES: Final = lines_of([{"unguard": 1, "root": "/r"}, {"strays": 1, "tag": "a=b", "spare": []}, {"synchronize": 3}])


def texts(*good: bytes) -> st.SearchStrategy[bytes]:
    """Draw what is nearly right, what has the right words, and noise."""
    return damaged(good) | OBJECTS.map(dumped) | st.lists(OBJECTS, max_size=4).map(lines_of) | NOISE


class Readers:
    """Everything that reads what others may have written, each with the inputs for it."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.leases = Leases(f"{place}/top/leases")
        os.makedirs(self.leases.directory, mode=0o700)
        os.chmod(f"{place}/top", 0o700)
        self.context = ModelContext(state=StateDirs.under("/srv/state"))

    def all(self) -> dict[str, tuple[st.SearchStrategy[bytes], Take]]:
        """Return the readers by what they read."""
        return {
            "journals": (texts(JOURNAL), self.journal),
            "leases": (texts(LEASE), self.lease),
            "leases of ports": (texts(PORTS), self.ports),
            "options and ini values": (
                texts(b"10", b"a=1\nb=[2]", b"text:x", b"a.py:f", b"supervisord,sysvinit"),
                self.option,
            ),
            "models in JSON": (texts(MODEL), lambda text: self.model(text, "json")),
            "models in YAML": (texts(YAML, MODEL), lambda text: self.model(text, "yaml")),
            "PID files": (texts(b"123\n", b"123\0\0", b" 7 x"), pid_file),
            "requests to the guardian": (texts(MESSAGES), guardian),
            "requests to the agent": (VALUES.map(dumped), agent),
        }

    def written(self, name: str, text: bytes) -> str:
        """Write a file, and return its path."""
        Path(self.place, name).write_bytes(text)
        return f"{self.place}/{name}"

    def journal(self, text: bytes) -> None:
        """Read a journal in all ways."""
        path = self.written("journal", text)
        place_of(first_event(path))
        machine_of(path)
        list(claims_in(path, "host"))
        recall(path)

    def lease(self, text: bytes) -> None:
        """Read the lease of a deployment, and who has it."""
        self.written("top/leases/one.json", text)
        self.leases.corrupt()
        for lease in self.leases.all():
            _ = lease.is_abandoned, lease.facts()

    def ports(self, text: bytes) -> None:
        """Read the leases of ports."""
        PortLeases.read(self.written("ports.json", text)).is_leased(80, "/other")

    def model(self, text: bytes, suffix: str) -> None:
        """Read a model."""
        read_config(self.written(f"model.{suffix}", text), self.context)

    def option(self, text: bytes) -> None:
        """Read an option of each form."""
        said = text.decode(errors="surrogateescape")
        config = cast("pytest.Config", Config(said))
        for name in ("start-timeout", "stop-timeout"):
            with suppress(pytest.UsageError):
                options.read_seconds(config, name)
        for reader in (options.read_params, options.read_findings, options.read_scope):
            with suppress(pytest.UsageError):
                reader(config)
        options.read_names(config, "manager")
        options.read_flag(config, "keep")
        with suppress(pytest.UsageError):
            options.file_and_name(said)


class Config:
    """The part of pytest's configuration that options are read from."""

    invocation_params = SimpleNamespace(dir=Path("/"))

    def __init__(self, said: str) -> None:
        self.said = said

    def getoption(self, _: str) -> None:
        """Have nothing on the command line."""

    def getini(self, _: str) -> str:
        """Return what was drawn."""
        return self.said


def pid_file(text: bytes) -> None:
    """Read a PID file."""
    pid_in(text)
    described(text)


def guardian(text: bytes) -> None:
    """Have the guardian hear a message, without its loop, and without starting what it asks for."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = object.__new__(StillGuardian)
        one.connection, one.pending, one.messages, one.released = theirs, b"", b"", False
        one.guarded, one.handed_over, one.spawned, one.ended = {}, set(), set(), {}
        ours.sendall(text + b"\n")
        one.hear()


class StillGuardian(Guardian):
    """A guardian that starts and looks at nothing."""

    def spawn(self, argv: list[str], environment: dict[str, str], output: str, *, is_forked: bool) -> int:
        """Start nothing."""
        raise ValueError("not started", argv, environment, output, is_forked)

    def warm_up(self, interpreter: list[str], module: str) -> None:
        """Start nothing."""
        raise ValueError("not started", interpreter, module)

    def strays(self, tag: bytes, spare: set[int]) -> list[int]:
        """Look at nothing."""
        return sorted(spare) if tag else []

    def reap(self) -> bool:
        """Have no children."""
        return False


def agent(text: bytes) -> None:
    """Have the agent carry a request out that no machine has, which is an answer of its own."""
    one = Agent(cast("Any", SimpleNamespace(send=lambda _: None)))
    one.own_verbs, one.host = {}, cast("Any", SimpleNamespace())
    one.answer(0, *asked(json.loads(text)))


def asked(value: object) -> tuple[str, list[object]]:
    """Return a value as a request to the agent."""
    return (value, []) if isinstance(value, str) else ("files.read", value if isinstance(value, list) else [value])


def tried(name: str, strategy: st.SearchStrategy[bytes], take: Take, count: int, number: int) -> str:
    """Try a number of inputs on a reader; return the traceback that one of them has led to, or an empty text."""

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def read(text: bytes) -> None:
        with suppress(NixprocError):
            take(text)

    try:
        read()
    except Exception:  # noqa: BLE001 - that is what is looked for
        return f"{name}:\n{traceback.format_exc()}"
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Try all readers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=100_000, help="inputs, all readers together")
    parser.add_argument("--seed", type=int, default=1)
    add_options(parser)
    given_options = parser.parse_args(argv)
    results = Results("inputs")
    table = results.table("Inputs", "what", "how many", "tracebacks")
    with tempfile.TemporaryDirectory(prefix="inputs-") as place:
        readers = Readers(place).all()
        each = -(-given_options.count // len(readers))
        for name, (strategy, take) in readers.items():
            failure = tried(name, strategy, take, each, given_options.seed)
            print(failure, file=sys.stderr)
            table.row(name, str(each), "1" if failure else "0")
            results.bars.append(
                Bar(f"{name}: no traceback", failure.strip().rpartition("\n")[2] or "none", not failure)
            )
    return results.finish(given_options.results, check=given_options.check)


if __name__ == "__main__":
    sys.exit(main())
