"""Tests of a manager's declarations and generated files, which run on every machine, because they start nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import pytest

from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess, create_managed_process
from pytest_nixproc.testing.conformance.bench import Bench, load
from pytest_nixproc.testing.conformance.fixtures import Fixtures
from pytest_nixproc.testing.conformance.recorder import REFUSES

DIRECTORY: Final = DeploymentDirectory("/srv/nixproc/directory")

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
        "directories": [f"{DIRECTORY.state.lib_dir}/sample"],
        "files": {f"{DIRECTORY.state.runtime_dir}/sample.conf": "sample"},
        "directory": "/",
        "stop_signal": "QUIT",
        "reload_signal": "SIGUSR1",
        "limits": {"open_files": 100, "core_size": "unlimited"},
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


class Declarations(Fixtures):
    """Tests of a manager's declared capabilities and generated files."""

    @pytest.mark.parametrize("parameter", ManagedProcess.PARAMETERS)
    def test_parameter(self, planning_bench: Bench, parameter: str, request: pytest.FixtureRequest) -> None:
        """Each parameter of a process is accepted, or refused with the reason that the manager declares for it."""
        reason = planning_bench.manager.capabilities.unsupported.get(parameter)
        found = plan(planning_bench, parameter)
        if reason is None:
            assert not found.refusals, f"{parameter} is refused, and not declared missing"
            return
        assert "it" in found.refusals, f"{parameter} is declared missing, and is not refused"
        for said in (planning_bench.manager.name, parameter, reason):
            assert said in str(found.refusals["it"])
        request.node.user_properties.append((REFUSES, f"{parameter}: {reason}"))

    def test_declarations_are_about_parameters(self, planning_bench: Bench) -> None:
        """Parameters declared as unsupported exist and have a reason; a mode and platforms are declared."""
        can = planning_bench.manager.capabilities
        assert can.unsupported.keys() <= set(ManagedProcess.PARAMETERS)
        assert all(can.unsupported.values())
        assert can.prefers in ("foreground", "daemon")
        assert can.platforms

    def test_mistyped_override(self, planning_bench: Bench) -> None:
        """A mistyped override is refused as it is written, with the name that was meant, before anything is started."""
        manager = planning_bench.manager
        if not (example := manager.capabilities.example_override):
            pytest.skip(f"{manager.name} declares no example of an override")
        assert not planned(planning_bench, overrides={manager.name: example}).refusals
        changed, meant, written = mistyped(example)
        refusal = planned(planning_bench, overrides={manager.name: changed}).refusals["it"]
        assert manager.name in refusal.brief
        assert written in refusal.brief
        assert repr(meant) in refusal.remedy

    def test_overrides_for_a_mistyped_manager(self, planning_bench: Bench) -> None:
        """Overrides for a manager whose name is mistyped are an error that names the right one."""
        name = planning_bench.manager.name
        (finding,) = planned(planning_bench, overrides={f"{name}{name[-1]}": {}}).findings
        assert (finding.code, finding.severity) == ("NP121", "error")
        assert repr(name) in finding.remedy

    def test_same_files_each_time(self, planning_bench: Bench) -> None:
        """The same model at the same place gives the same files, byte for byte."""
        can = planning_bench.manager.capabilities
        honoured = [name for name in SAMPLES if name not in can.unsupported]
        first, second = (plan(planning_bench, *honoured) for _ in range(2))
        assert (first.unit_set, first.shared) == (second.unit_set, second.shared)


def plan(bench: Bench, *parameters: str) -> Plan:
    """Plan a model of two processes at a fixed place: one with sample values for parameters, and a plain one."""
    return planned(bench, **{name: SAMPLES[name] for name in parameters})


def planned(bench: Bench, **parameters: Any) -> Plan:
    """Plan a model of two processes at a fixed place: one with parameters, and a plain one."""
    given = {"name": "sample", "foreground_process": "/bin/sample"} | parameters
    instances = {
        "it": Instance(create_managed_process(**given)),
        "other": Instance(create_managed_process(name="other", foreground_process="/bin/other")),
    }
    return bench.planner().plan(load(lambda _: instances), DIRECTORY)


def mistyped(override: Mapping[str, Any]) -> tuple[dict[str, Any], str, str]:
    """Return an override with its innermost name mistyped, with the name that is meant, and as it is written."""
    ((name, value),) = override.items()
    if isinstance(value, Mapping):
        changed, meant, written = mistyped(value)
        return {name: changed}, meant, written
    written = f"{name[:-2]}{name[-1]}{name[-2]}"
    return {written: value}, name, written
