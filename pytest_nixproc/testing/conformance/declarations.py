"""What a manager says of itself, and what it makes of a model; nothing is started, so it is tried on every machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import pytest

from pytest_nixproc.deployment.planner import Draft
from pytest_nixproc.deployment.site import Site
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess, create_managed_process
from pytest_nixproc.testing.conformance.bench import Bench, load
from pytest_nixproc.testing.conformance.fixtures import Fixtures
from pytest_nixproc.testing.conformance.recorder import REFUSES

SAMPLES: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "name": "sample",
        "instance_name": "sample1",
        "description": "A sample",
        "process": "/bin/sample",
        "args": ["-a"],
        "foreground_process": "/bin/sample-foreground",
        "foreground_process_extra_args": ["-f"],
        "foreground_process_args": ["-F"],
        "daemon": "/bin/sample-daemon",
        "daemon_extra_args": ["-d"],
        "daemon_args": ["-D"],
        "pid_file": "/run/sample.pid",
        "initialize": "true",
        "path": ["/opt/sample"],
        "environment": {"SAMPLE": "1"},
        "directory": "/",
        "umask": "0027",
        "nice": 5,
        "user": "sample",
        "dependencies": ["other"],
        "credentials": {"users": {"sample": {}}},
        "overrides": {"no-manager-of-this-name": {"sample": 1}},
        "post_install": "true",
    }
)
"""A value for each parameter of a managed process."""


SITE: Final = Site("/srv/nixproc/site")


class Declarations(Fixtures):
    """Capabilities and generated files."""

    @pytest.mark.parametrize("parameter", ManagedProcess.PARAMETERS)
    def test_parameter(
        self, drafting_bench: Bench, parameter: str, record_property: Callable[[str, str], None]
    ) -> None:
        """Each parameter of a process is accepted, or refused with the reason that the manager declares for it."""
        reason = drafting_bench.manager.capabilities.unsupported.get(parameter)
        found = draft(drafting_bench, parameter)
        if reason is None:
            assert not found.refusals
            return
        assert "it" in found.refusals, f"{parameter} is declared missing, and is not refused"
        for said in (drafting_bench.manager.name, parameter, reason):
            assert said in str(found.refusals["it"])
        record_property(REFUSES, f"{parameter}: {reason}")

    def test_declarations_are_about_parameters(self, drafting_bench: Bench) -> None:
        """What a manager declares missing are parameters, each with a reason; it names a mode and platforms."""
        can = drafting_bench.manager.capabilities
        assert can.unsupported.keys() <= set(ManagedProcess.PARAMETERS)
        assert all(can.unsupported.values())
        assert can.prefers in ("foreground", "daemon")
        assert can.platforms

    def test_same_files_each_time(self, drafting_bench: Bench) -> None:
        """The same model at the same place gives the same files, byte for byte."""
        can = drafting_bench.manager.capabilities
        honoured = [name for name in SAMPLES if name not in can.unsupported]
        first, second = (draft(drafting_bench, *honoured) for _ in range(2))
        assert (first.profile, first.shared) == (second.profile, second.shared)


def draft(bench: Bench, *parameters: str) -> Draft:
    """Draft a model of a process with sample values for parameters, and of another one, at the same place each time."""
    given = {"name": "sample", "foreground_process": "/bin/sample"} | {name: SAMPLES[name] for name in parameters}
    instances = {
        "it": Instance(create_managed_process(**given)),
        "other": Instance(create_managed_process(name="other", foreground_process="/bin/other")),
    }
    return bench.planner().draft(load(lambda _: instances), SITE)
