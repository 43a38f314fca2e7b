"""What models in Nix cost: evaluations beside a bare ``nix-instantiate`` of the same expression, and what is kept.

A model of many instances, all through our library, is evaluated anew each time, interleaved with the bare program that
evaluates as much of it. The advanced example is evaluated and built once, and then again, as every later deployment
does. The store is a throwaway one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.results import Results, add_options, at_most
from pytest_nixproc._planning.planner import Planner
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.host import Host
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.sources.api import read_model
from pytest_nixproc.sources.nix.command import LIBRARY, program

EXAMPLE: Final = Path(__file__).parents[1] / "examples" / "webapps-nix" / "processes-advanced.nix"
MOST_RATIO: Final = 2.0
MOST_MILLISECONDS: Final = 50.0

MODEL: Final = """
{ system, stateDir, runtimeDir, tmpDir, forceDisableUserChange, processManager, count }:
let
  inherit (import <pytest-nixproc> { inherit system stateDir runtimeDir tmpDir forceDisableUserChange processManager; })
    createManagedProcess;
  instance = n: rec {
    port = 5000 + n;
    dnsName = "web${toString n}.local";
    pkg = createManagedProcess rec {
      instanceName = "web${toString n}";
      process = "/opt/web/bin/web";
      daemonArgs = [ "-D" ];
      environment = { PORT = port; PID_FILE = "${tmpDir}/${instanceName}.pid"; };
      user = instanceName;
      credentials.groups.${instanceName} = { };
      credentials.users.${instanceName} = { group = instanceName; description = "Web"; };
      overrides.sysvinit.runlevels = [ 3 4 5 ];
    };
  };
in builtins.listToAttrs (builtins.genList (n: { name = "web${toString n}"; value = instance n; }) count)
"""
BARE: Final = """
{ count }:
let processes = import ./processes.nix {
  inherit count;
  system = builtins.currentSystem; stateDir = "/s"; runtimeDir = "/s/run"; tmpDir = "/s/tmp";
  forceDisableUserChange = true; processManager = "supervisord";
}; in builtins.mapAttrs (_: instance: instance // { pkg = instance.pkg.given; }) processes
"""


def milliseconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    begin = time.perf_counter()
    action()
    return (time.perf_counter() - begin) * 1000


class Bench:
    """Reads models on one machine, with a place for what is kept."""

    def __init__(self, directory: Path, machine: Host) -> None:
        self.directory = directory
        self.machine = machine
        self.registry = Registry()
        self.settings = Settings(state_root=str(directory), cache=str(directory / "cache"))

    def context(self, **params: object) -> ModelContext:
        """Return what a model is told for a deployment of its own."""
        settings = replace(self.settings, params=params)
        planner = Planner(self.registry.manager("supervisord"), self.machine, self.registry.rules, settings)
        return planner.inputs.context(planner.allocate())

    def ours(self, count: int) -> None:
        """Evaluate the model of many instances anew."""
        (self.directory / "processes.nix").write_text(f"{MODEL}# {time.perf_counter()}\n")
        model = read_model(str(self.directory / "processes.nix"), self.context(count=count), self.registry.sources)
        assert len(model) == count

    def bare(self, count: int) -> None:
        """Have Nix alone evaluate it."""
        argv = [program("nix-instantiate"), "--eval", "--strict", "--json", "-I", f"pytest-nixproc={LIBRARY}"]
        argv += ["--arg", "count", str(count), str(self.directory / "bare.nix")]
        subprocess.run(argv, check=True, capture_output=True)

    def deploy_example(self) -> None:
        """Do all that a deployment of the example does with Nix."""
        context = self.context()
        root = Path(context.state.state_dir).parent
        root.mkdir()
        read_model(str(EXAMPLE), context, self.registry.sources).provide(str(root))


def use_throwaway_store(directory: Path) -> None:
    """Have Nix use a store below a directory, without users of its own for builds and without a sandbox."""
    os.environ["NIX_CONFIG"] = "build-users-group =\nsubstitute = false\nsandbox = false"
    for name in ("STORE", "STATE", "LOG", "CONF", "LOCALSTATE"):
        os.environ[f"NIX_{name}_DIR"] = f"{directory}/{name.lower()}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and tell whether everything holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="instances of the model that is evaluated anew")
    parser.add_argument("--repetitions", type=int, default=15)
    add_options(parser)
    options = parser.parse_args(argv)
    results = Results("nix")
    results.figure("repetitions", str(options.repetitions))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(os.path.realpath(name))
        use_throwaway_store(directory)
        machine = Host()
        try:
            measure(Bench(directory, machine), options, results)
        finally:
            machine.lifecycle.close()
            # Nix takes the right to write from what it has in its store.
            for parent, _, _ in os.walk(directory):
                os.chmod(parent, 0o700)
    return results.finish(options.results, check=options.check)


def measure(bench: Bench, options: argparse.Namespace, results: Results) -> None:
    """Do everything in turn, as often as was asked for."""
    (bench.directory / "processes.nix").write_text(MODEL)
    (bench.directory / "bare.nix").write_text(BARE)
    bench.bare(options.count)
    bench.ours(options.count)
    pairs = [
        (milliseconds(lambda: bench.bare(options.count)), milliseconds(lambda: bench.ours(options.count)))
        for _ in range(options.repetitions)
    ]
    first = milliseconds(bench.deploy_example)
    again = [milliseconds(bench.deploy_example) for _ in range(options.repetitions)]
    ratio = statistics.median(ours / bare for bare, ours in pairs)
    bare, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    table = results.table(f"A model of {options.count} instances", "nix-instantiate", "our evaluation", "ratio")
    table.row(f"{bare:.1f} ms", f"{ours:.1f} ms", f"x {ratio:.2f}")
    table = results.table("What deployments of the advanced example do with Nix", "the first", "again", "range")
    table.row(f"{first:.0f} ms", f"{statistics.median(again):.1f} ms", f"{min(again):.1f}..{max(again):.1f} ms")
    results.bars.append(at_most("evaluation, to nix-instantiate", ratio, MOST_RATIO))
    results.bars.append(at_most("the example again", statistics.median(again), MOST_MILLISECONDS, " ms"))


if __name__ == "__main__":
    sys.exit(main())
