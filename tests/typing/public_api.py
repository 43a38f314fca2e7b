"""The types of the public names, as mypy and pyright see them in tests of users; nothing here is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import assert_type

from pytest_nixproc import (
    Deploy,
    Finding,
    Instance,
    Machine,
    ManagedProcess,
    Manager,
    ModelLike,
    NixprocError,
    ProcessesModel,
    RunningInstance,
    StateDirs,
    System,
    ValidateConstructor,
    __version__,
    create_managed_process,
    generated_files,
    hookimpl,
    ready,
)
from pytest_nixproc.checks.api import Rule, RuleInput
from pytest_nixproc.errors import ConflictError, StartError
from pytest_nixproc.values.units import File, Link


def processes(state: StateDirs, port: int) -> Mapping[str, Instance]:
    """Return a model, as a function."""
    process = create_managed_process(name="web", foreground_process="/bin/web", args=["--port", port])
    assert_type(process, ManagedProcess)
    assert_type(state.runtime_dir, str)
    return {"web": Instance(process, port=port, ready=ready.http("/health"))}


def use_a_system(nixproc_system: System) -> None:
    """Look at a running system."""
    assert_type(nixproc_system["web"], RunningInstance)
    assert_type(nixproc_system["web"].pid, int | None)
    assert_type(nixproc_system["web"].log, str)
    assert_type(nixproc_system["web"].listening, set[int])
    assert_type(nixproc_system.machine, Machine)
    assert_type(nixproc_system.state, StateDirs)
    assert_type(nixproc_system.inspect(), list[Finding])
    assert_type(nixproc_system.machine.succeed("true"), str)
    nixproc_system["web"].restart()


def deploy(nixproc_deploy: Deploy, nixproc_constructor: ValidateConstructor, tmp_path: Path) -> None:
    """Deploy for the time of a block, whatever form a model has."""
    models: list[ModelLike] = [processes, "processes.py", tmp_path, ProcessesModel({}), processes(StateDirs.under(), 1)]
    for model in models:
        assert_type(nixproc_deploy(model), AbstractContextManager[System])
    with nixproc_deploy(params={"port": 80}) as system:
        assert_type(system, System)
    with nixproc_constructor("servers.py:web", vary={"port": [80, 81]}, shared={"name": "x"}) as system:
        assert_type(system, System)


def handle_errors(nixproc_deploy: Deploy) -> list[str]:
    """Read the parts of an error."""
    try:
        with nixproc_deploy():
            return []
    except ConflictError as error:
        return [assert_type(finding.code, str) for finding in error.findings]
    except StartError as error:
        return [error.brief]
    except NixprocError as error:
        return [error.remedy]


def generate(manager: Manager) -> str:
    """Generate files without a deployment."""
    assert_type(manager.name, str)
    files = generated_files("processes.py")
    assert_type(files, dict[str, tuple[File | Link, ...]])
    return __version__


def no_reserved_port(given: RuleInput) -> Sequence[Finding]:
    """Find nothing."""
    return [Finding("HR101", "error", name, (name,)) for name in given.model if name == "bad"]


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Register a rule."""
    return [Rule("HR101", "no instance is bad", static=no_reserved_port)]
