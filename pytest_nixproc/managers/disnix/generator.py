"""The generator of disnix: a component per instance, the settings of Dysnomia's module, and the models of Disnix.

What a component holds is said by the module ``process`` of Dysnomia: bash sources the file in ``etc/dysnomia/process``,
``process`` is what it runs, and ``pidFile`` names the process that it ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote as percent_encoded

from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import Generator
from pytest_nixproc.managers.daemons import functions
from pytest_nixproc.managers.disnix.models import models_of
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.model import value_types
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import SCRIPT, File, Link, Unit

MODULE: Final = "process"
COMPONENTS: Final = "components"
MODELS: Final = "etc/disnix"
MODULE_SETTINGS: Final = f"etc/dysnomia/containers/{MODULE}"

PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@%+,=~-]+")
"""Paths that Dysnomia's scripts can handle: the shell, and xargs, split paths and expand patterns in them."""

WAIT_SECONDS: Final = 0
"""How long the module waits for a PID file, though to no end: that is waited for by who wants to know."""

KINDS: Final = {"process": value_types.SCALAR, "pid_file": value_types.PATH}
"""The kinds of the parameters; a process can have arguments."""

VARIABLES: Final = "DYSNOMIA_STATEDIR prefix timeout"
"""The variables that Dysnomia sets for its module."""


class DisnixGenerator(Generator):
    """The generator of a component per instance."""

    def generate(self, launch: Launch) -> Unit:
        """Return the component: its settings, and the script that is its process."""
        name, directory = launch.name, launch.target.directory
        defaults = {"process": f"{directory}/{script_of(name)}", "pid_file": launch.pid_file}
        parameters = defaults | launch.overridden(defaults, spelling=snake_case, known=defaults, kinds=KINDS)
        pid_file = parameters["pid_file"]
        link = () if PLAIN.fullmatch(pid_file) else (Link(f"{directory_of(name)}/pid", pid_file),)
        told = parameters | {"pid_file": f"{directory}/{link[0].path}" if link else pid_file}
        text = "\n".join(script(launch, pid_file)) + "\n"
        files = File(settings_of(name), settings(told)), File(script_of(name), text, SCRIPT)
        program = launch.program if parameters["process"] == defaults["process"] else ""
        return launch.unit(*files, links=link, pid_file=pid_file, program=program)

    def generate_shared(self, model: ProcessesModel, target: Target) -> tuple[File, ...]:
        """Return the settings of Dysnomia's module, and the models of Disnix."""
        names = {key: instance.pkg.name for key, instance in model.items()}
        # Directories are as the models see them.
        packages = {key: (component_name(name), f"/../../{directory_of(name)}") for key, name in names.items()}
        properties = {"runtimeDir": target.state.runtime_dir, "timeout": WAIT_SECONDS}
        return (
            File(MODULE_SETTINGS, f"type={MODULE}\ntimeout={WAIT_SECONDS}\n"),
            *(File(f"{MODELS}/{name}", text) for name, text in models_of(model, MODULE, packages, properties).items()),
        )


def component_name(name: str) -> str:
    """Return a name that paths of Dysnomia and of the Nix store can hold, unlike that of any other process."""
    return percent_encoded(name, safe="", errors="surrogateescape").replace("~", "%7E").replace("%", "=")


def directory_of(name: str) -> str:
    """Return the directory of a process's component."""
    return f"{COMPONENTS}/{component_name(name)}"


def settings_of(name: str) -> str:
    """Return the path of the file that describes a component."""
    return f"{directory_of(name)}/etc/dysnomia/process/{component_name(name)}"


def script_of(name: str) -> str:
    """Return the path of the script that is a component's process; it has to be alone in its directory."""
    return f"{directory_of(name)}/bin/{component_name(name)}"


def settings(parameters: Mapping[str, Any]) -> str:
    """Return the settings of a component: the paths of its process and of its PID file."""
    lines = (f"process={shell.quote(parameters['process'])}", f"pidFile={shell.quote(parameters['pid_file'])}")
    return "\n".join(lines) + "\n"


def script(launch: Launch, pid_file: str) -> Iterator[str]:
    """Yield the lines of the script that starts a process and ends when it is in the background."""
    yield f"#!{launch.target.facts.shell}"
    # Values stand in single quotes: what looks like an expansion or an escape in them is none.
    yield "# shellcheck disable=SC2016,SC1003"
    yield f"name={shell.quote(launch.name)}"
    yield f"program={shell.quote(launch.command.program)}"
    yield f"pid_file={shell.quote(pid_file)}"
    yield f"log_file={shell.quote(launch.log_file)}"
    yield ""
    yield from functions(launch, VARIABLES)
    yield ""
    yield 'launch >> "$log_file" 2>&1'
