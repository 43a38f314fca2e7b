"""What docker deployments cost: against the same containers, made with the Docker SDK alone by eight threads.

The SDK's containers are the same in everything, down to the files that ours are made of; their image and those files
are there before the clock runs. Ours include everything else: the files, the image, the checks, the wait for readiness.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.deploy import Laboratory
from benchmarks.results import Results, Table, add_options, at_most
from benchmarks.servers import Timing, Work, await_ports, compile_server, free_ports, model_of, refuse_left_ports
from pytest_nixproc._registry import Registry
from pytest_nixproc.managers.docker.container import ContainerSpec, read_container
from pytest_nixproc.managers.docker.engine import connect
from pytest_nixproc.managers.docker.images import packed

if TYPE_CHECKING:
    from docker import DockerClient

ALLOWED_RATIO: Final = 1.3
COUNT_OF_BAR: Final = 10
THREADS: Final = 8
IMAGE: Final = "nixproc-benchmark"
STOP_SECONDS: Final = 10
HEAD: Final = ("servers", "SDK, seconds deploy + teardown", "ours", "deploy", "teardown")


@dataclass(frozen=True)
class Pair:
    """One deployment of ours, and one of the SDK's right before it."""

    ours: Timing
    sdk: Timing

    @property
    def deploy(self) -> float:
        """Return the ratio of the times until all ports answer."""
        return float(self.ours.deploy / self.sdk.deploy)

    @property
    def teardown(self) -> float:
        """Return the ratio of the times until everything is gone."""
        return float(self.ours.teardown / self.sdk.teardown)


@contextmanager
def image(client: DockerClient) -> Iterator[str]:
    """Make the image that the SDK's containers share."""
    with tempfile.TemporaryDirectory() as empty:
        client.api.import_image_from_data(packed(empty), repository=IMAGE, tag="latest")
    try:
        yield f"{IMAGE}:latest"
    finally:
        client.api.remove_image(f"{IMAGE}:latest", force=True)


def planned_containers(laboratory: Laboratory, work: Work) -> tuple[str, list[ContainerSpec]]:
    """Write the files of a deployment of ours that is never started, and return what its containers would be."""
    machine = laboratory.machine
    plan = laboratory.planner(laboratory.registry.manager("docker")).plan(lambda _: model_of(work))
    machine.files.make_directory(plan.target.state.runtime_dir)
    units = plan.unit_set.units.values()
    for file in (file for unit in units for file in unit.files):
        machine.files.write(f"{plan.target.directory}/{file.path}", file.content, file.mode)
    return plan.directory.root, [read_container(machine, plan.target, unit) for unit in units]


def by_sdk(
    client: DockerClient, tag: str, software: Sequence[Any], planned: Sequence[ContainerSpec], work: Work
) -> Timing:
    """Create and start containers with the SDK alone, wait for their ports, stop and remove them."""

    def start(container: ContainerSpec) -> Any:
        mounts = list(software)
        made = client.containers.create(tag, list(container.command), mounts=mounts, **container.keywords)
        made.start()
        return made

    def end(container: Any) -> None:
        container.stop(timeout=STOP_SECONDS)
        container.remove(force=True)

    with ThreadPoolExecutor(THREADS) as pool:
        begin = time.perf_counter()
        containers = list(pool.map(start, planned))
        await_ports(work.ports)
        up = time.perf_counter()
        list(pool.map(end, containers))
    return Timing(up - begin, time.perf_counter() - up)


def measure(laboratory: Laboratory, client: DockerClient, work: Work, repetitions: int) -> list[Pair]:
    """Return pairs, made in turn."""
    from docker.types import Mount

    manager, machine = laboratory.registry.manager("docker"), laboratory.machine
    root, planned = planned_containers(laboratory, work)
    software = [Mount(place, place, type="bind", read_only=True) for place in machine.files.software(planned[0].paths)]
    pairs = []
    with image(client) as tag:
        for _ in range(repetitions):
            sdk = by_sdk(client, tag, software, planned, work)
            pairs.append(Pair(laboratory.deployed(manager, lambda _: model_of(work)), sdk))
            refuse_left_ports(work)
    machine.files.remove(root)
    return pairs


def show(table: Table, work: Work, pairs: Sequence[Pair]) -> float:
    """Add one row to the table; return the ratio of the deployments."""
    ratio = statistics.median(pair.deploy for pair in pairs)
    teardown = statistics.median(pair.teardown for pair in pairs)
    table.row(
        str(len(work.ports)),
        *(
            f"{statistics.median(t.deploy for t in timings):.3f} + {statistics.median(t.teardown for t in timings):.3f}"
            for timings in ([pair.sdk for pair in pairs], [pair.ours for pair in pairs])
        ),
        f"x {ratio:.2f} ({min(p.deploy for p in pairs):.2f}..{max(p.deploy for p in pairs):.2f})",
        f"x {teardown:.2f}",
    )
    return ratio


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and tell whether everything holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--counts", type=lambda text: [int(part) for part in text.split(",")], default=[1, 10, 50])
    parser.add_argument("--repetitions", type=int, default=5)
    add_options(parser)
    options = parser.parse_args(argv)
    results = Results("containers")
    results.figure("repetitions", str(options.repetitions))
    registry = Registry()
    machine = registry.machine("host")()
    client = connect(os.environ)
    table = results.table("Containers", *HEAD)
    with tempfile.TemporaryDirectory() as directory:
        laboratory = Laboratory(compile_server(directory), machine, registry, None)
        ports = free_ports(max(options.counts))
        for count in options.counts:
            work = Work(laboratory.server, ports[:count], 0)
            ratio = show(table, work, measure(laboratory, client, work, options.repetitions))
            if count == COUNT_OF_BAR:
                results.bars.append(at_most(f"{count} containers, deploy, to the SDK alone", ratio, ALLOWED_RATIO))
    machine.lifecycle.close()
    client.close()
    return results.finish(options.results, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
