"""What the tests of models in Nix share: real Nix, with a store of the session's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from pytest_nixproc.machines.host import Host
from pytest_nixproc.model.context import BuildTools, ModelContext
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.nix.expressions import read_nix
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.state import StateDirs

HEAD = "let inherit (import <pytest-nixproc> { }) createManagedProcess createCredentials; in\n"
SECONDS = 60.0

FRAMEWORK = """
    # The way in which the original framework writes an agnostic configuration.
    { processManager }: properties:
    if processManager != null then throw "an unknown manager" else derivation {
      name = properties.name or properties.instanceName;
      system = builtins.currentSystem;
      configJSON = builtins.toJSON properties;
      builder = "/bin/sh";
      args = [ "-c" "read -r text <<END\\n$configJSON\\nEND\\necho \\"$text\\" > $out" ];
    }
"""


@dataclass
class Bench:
    """Reads models, and counts what is run for it."""

    directory: Path
    machine: Host
    context: ModelContext
    commands: list[str] = field(default_factory=list)

    def run(self, command: Spawn, seconds: float) -> tuple[int | None, str]:
        """Run a command, and remember the name of its program."""
        names = [Path(word).name for word in command.argv]
        self.commands.append(next(name for name in names if name.startswith("nix-")))
        return self.machine.processes.capture(command, self.machine.deadline(seconds))

    def write(self, text: str, name: str = "processes.nix") -> str:
        """Write a file below the bench's directory; return its path."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
        return str(path)

    def read(self, text: str, **changes: Any) -> ProcessesModel:
        """Write a file that can call our library, and read the model."""
        return self.read_file(self.write(HEAD + dedent(text)), **changes)

    def read_file(self, path: str, **changes: Any) -> ProcessesModel:
        """Read a model with changed arguments."""
        return read_nix(path, replace(self.context, **changes))

    def at(self, directory: str) -> StateDirs:
        """Return the state directories of another deployment."""
        return StateDirs.under(directory)


@pytest.fixture(scope="session")
def machine() -> Iterator[Host]:
    """Return the machine that Nix runs on."""
    host = Host()
    yield host
    host.lifecycle.close()


@pytest.fixture
def bench(tmp_path: Path, machine: Host, nix: str) -> Bench:  # noqa: ARG001 - sets the environment
    """Return a bench with a cache of its own."""
    context = ModelContext(state=StateDirs.under("/run/np/11111111/var"))
    bench = Bench(tmp_path / "model", machine, context)
    bench.directory.mkdir()
    tools = BuildTools(run=bench.run, seconds=SECONDS, cache=str(tmp_path / "cache"))
    bench.context = replace(context, tools=tools)
    return bench


@pytest.fixture
def framework(bench: Bench) -> None:
    """Have ``./framework`` beside the bench's files."""
    bench.write(FRAMEWORK, "framework/default.nix")
