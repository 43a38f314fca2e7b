"""The generator: a component per instance, the settings of the module that activates them, and the models of Disnix.

What a component holds is said by the module ``process`` of Dysnomia: bash sources the file in ``etc/dysnomia/process``,
``process`` is what it runs, and ``pidFile`` names the process that it ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote as percent_encoded

from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import File, Generator, Link, Target, Unit, apply_override, ask_known
from pytest_nixproc.managers.daemons import launch
from pytest_nixproc.managers.disnix.models import distribution_model, infrastructure_model, services_model
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.process import Command, ManagedProcess, Mode
from pytest_nixproc.model.system import ProcessesModel

MODULE: Final = "process"
COMPONENTS: Final = "components"
MODELS: Final = "etc/disnix"
MODULE_SETTINGS: Final = f"etc/dysnomia/containers/{MODULE}"

PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@%+,=~-]+")
"""Paths that Dysnomia can be told: its scripts have the shell, and xargs, split them and look for patterns in them."""

WAIT_SECONDS: Final = 0
"""How long the module waits for a PID file, though to no end: that is waited for by who wants to know."""

VARIABLES: Final = "DYSNOMIA_STATEDIR prefix timeout"
"""What Dysnomia tells its module."""


class DisnixGenerator(Generator):
    """One component per instance."""

    def generate(self, key: str, model: ProcessesModel, target: Target) -> Unit:
        """Return the component: what its process is, and the script that is its process."""
        process = model[key].pkg
        mode, command = process.command_for("daemon")
        defaults = {"process": f"{target.directory}/{script_of(process.name)}", "pid_file": target.pid_file(process)}
        parameters = apply_override("disnix", process, defaults, spelling=snake_case)
        ask_known(parameters, defaults, "disnix", process)
        pid_file = str(parameters["pid_file"])
        link = () if PLAIN.fullmatch(pid_file) else (Link(f"{directory_of(process.name)}/pid", pid_file),)
        told = parameters | {"pid_file": f"{target.directory}/{link[0].path}" if link else pid_file}
        text = "\n".join(script(key, process, command, mode, target, pid_file)) + "\n"
        return Unit(
            name=process.name,
            mode=mode,
            log_file=target.log_file(process),
            pid_file=pid_file,
            files=(File(settings_of(process.name), settings(told)), File(script_of(process.name), text, 0o755)),
            links=link,
            key=key,
        )

    def generate_shared(self, model: ProcessesModel, target: Target) -> tuple[File, ...]:
        """Return the settings of the module, and the models."""
        packages = {key: package_of(model[key].pkg.name) for key in model}
        properties = {"runtimeDir": target.state.runtime_dir, "timeout": WAIT_SECONDS}
        return (
            File(MODULE_SETTINGS, f"type={MODULE}\ntimeout={WAIT_SECONDS}\n"),
            File(f"{MODELS}/services.nix", services_model(model, MODULE, packages)),
            File(f"{MODELS}/infrastructure.nix", infrastructure_model(MODULE, properties)),
            File(f"{MODELS}/distribution.nix", distribution_model(model)),
        )


def component_name(name: str) -> str:
    """Return a name that paths of Dysnomia and of the Nix store can hold, unlike that of any other process."""
    return percent_encoded(name, safe="", errors="surrogateescape").replace("~", "%7E").replace("%", "=")


def directory_of(name: str) -> str:
    """Return the component of a process."""
    return f"{COMPONENTS}/{component_name(name)}"


def settings_of(name: str) -> str:
    """Return the file that describes a component."""
    return f"{directory_of(name)}/etc/dysnomia/process/{component_name(name)}"


def script_of(name: str) -> str:
    """Return the script that is a component's process; it has to be alone in its directory."""
    return f"{directory_of(name)}/bin/{component_name(name)}"


def package_of(name: str) -> tuple[str, str]:
    """Return the name of a component in the Nix store, and its directory as seen from the models."""
    return component_name(name), f"/../../{directory_of(name)}"


def settings(parameters: Mapping[str, Any]) -> str:
    """Return what a component's process is, and where it leaves its PID."""
    lines = (f"process={shell.quote(str(parameters['process']))}", f"pidFile={shell.quote(parameters['pid_file'])}")
    return "\n".join(lines) + "\n"


def script(
    key: str, process: ManagedProcess, command: Command, mode: Mode, target: Target, pid_file: str
) -> Iterator[str]:
    """Yield the lines of the script that starts a process and ends when it is in the background."""
    yield f"#!{target.facts.shell}"
    # Values stand in single quotes: what looks like an expansion or an escape in them is none.
    yield "# shellcheck disable=SC2016,SC1003"
    yield f"name={shell.quote(process.name)}"
    yield f"program={shell.quote(command.program)}"
    yield f"pid_file={shell.quote(pid_file)}"
    yield f"log_file={shell.quote(target.log_file(process))}"
    yield ""
    yield from launch(key, process, command, mode, target, VARIABLES)
    yield ""
    yield '[ -x "$program" ] || { echo "$name: $program is not installed" >> "$log_file"; exit 5; }'
    yield 'launch >> "$log_file" 2>&1'
