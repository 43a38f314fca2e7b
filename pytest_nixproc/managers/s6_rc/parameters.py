"""Parameters of a service: their defaults, and their overrides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pytest_nixproc.managers import kinds
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.value_types import ValueType

GRACE_OF_MANAGER: Final = 5.0
"""Seconds after which s6-supervise kills what the deployment should have killed before."""

PARAMETERS: Final[Mapping[str, str]] = {
    "type": "`longrun`, or `oneshot` for a daemon that s6-rc itself starts, and stops by its PID file",
    "run": "text of `run`, with its `#!` line",
    "finish": "text of `finish`, with its `#!` line; nothing (`None`): the program is restarted when it ends",
    "up": "execline command line of a oneshot; makes it one",
    "down": "execline command line of a oneshot; makes it one",
    "dependencies": "names of the processes that have to be up",
    "notification_fd": "descriptor on which the program says that it is ready",
    "timeout_up": "milliseconds that a start may take",
    "timeout_down": "milliseconds that a stop may take",
    "timeout_kill": "milliseconds after which what does not stop is killed; default: its stop time-out and 5 s",
    "timeout_finish": "milliseconds that `finish` may take",
    "max_death_tally": "how many ends are remembered",
    "down_signal": "signal that stops the program; default: its stop signal",
    "flag_essential": "whether `s6-rc -d change` leaves it up; the deployment stops it all the same",
    "data": "texts of files in `data`, by their names",
    "env": "texts of files in `env`, by their names: variables, as s6-envdir reads them",
    "auto_generate_log_service": "whether a companion writes the log; else the program does it itself",
    "log_script": "directives for s6-log, which is the companion then; what it writes to its output is the log",
    "producer_for": "name of the process that reads the output, instead of a companion",
    "consumer_for": "names of the processes whose output it reads",
    "pipeline_name": "name of the bundle of process and companion",
}
"""The parameters that an override can change, with their meanings."""


def default_parameters(launch: Launch) -> dict[str, Any]:
    """Return the defaults of all parameters; None where no file is written, or its content is generated."""
    return dict.fromkeys(PARAMETERS) | {
        "type": "longrun",
        # With this status, s6-supervise does not start the program again ("Contents" of s6's page on servicedirs).
        "finish": f"#!{launch.target.facts.shell}\nexit 125\n",
        "dependencies": launch.dependencies,
        "timeout_kill": round((launch.stop_seconds + GRACE_OF_MANAGER) * 1000),
        **({} if launch.stop_signal == "TERM" else {"down_signal": f"SIG{launch.stop_signal}"}),
        "flag_essential": False,
        "data": {},
        "env": {},
        "auto_generate_log_service": True,
        "consumer_for": (),
        "pipeline_name": launch.name,
    }


def overridden(launch: Launch) -> dict[str, Any]:
    """Return the parameters with the process's overrides; raises for values that cannot be written."""
    defaults = default_parameters(launch)
    parameters = defaults | launch.overridden(defaults, spelling=snake_case, known=PARAMETERS, kinds=KINDS)
    if is_oneshot(parameters) and launch.mode == "foreground" and parameters["up"] is None:
        what = "its overrides make it a oneshot, and its program stays in the foreground"
        raise launch.refusal(what, "give the process a daemon, or the overrides an 'up'")
    return parameters


def is_oneshot(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a service is started and stopped by command lines."""
    return parameters["type"] == "oneshot" or parameters["up"] is not None or parameters["down"] is not None


def has_companion(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a logging companion belongs to a longrun."""
    return bool(parameters["auto_generate_log_service"]) and parameters["producer_for"] is None


NUMBER: Final = kinds.written_as("a whole number, 0 or more", "[0-9]{1,9}")
POSITIVE: Final = kinds.written_as("a whole number, 1 or more", "(?!0+$)[0-9]{1,9}")


def is_text(value: object) -> bool:
    """Tell whether a value is None, or text without NUL characters."""
    return value is None or (isinstance(value, str) and "\0" not in value)


def is_name(value: object) -> bool:
    """Tell whether a value is None, or text that can be the name of a process."""
    return value is None or (isinstance(value, str) and bool(re.fullmatch(r"[^/\0]+", value)))


def are_names(value: object) -> bool:
    """Tell whether a value is a list of names."""
    return isinstance(value, list | tuple) and all(isinstance(item, str) and is_name(item) for item in value)


def are_words(value: object) -> bool:
    """Tell whether a value is None, or a list of words."""
    return value is None or (isinstance(value, list | tuple) and all(map(is_text, value)))


def are_files(value: object) -> bool:
    """Tell whether a value maps names of files, without a leading dot, to texts."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and re.fullmatch(r"[^./\0][^/\0]*", name) and isinstance(text, str)
        for name, text in value.items()
    )


NAMES: Final = kinds.that("a list of names of processes", are_names)
FILES: Final = kinds.that("a mapping of names to texts", are_files)
KINDS: Final[Mapping[str, ValueType]] = {
    "type": kinds.one_of("longrun", "oneshot"),
    **dict.fromkeys(("timeout_up", "timeout_down", "timeout_kill", "timeout_finish"), kinds.optional(NUMBER)),
    **dict.fromkeys(("notification_fd", "max_death_tally"), kinds.optional(POSITIVE)),
    **dict.fromkeys(("run", "finish", "up", "down"), kinds.that("text without NUL", is_text)),
    **dict.fromkeys(("dependencies", "consumer_for"), NAMES),
    **dict.fromkeys(("data", "env"), FILES),
    **dict.fromkeys(("flag_essential", "auto_generate_log_service"), kinds.TRUTH),
    "down_signal": kinds.optional(kinds.SIGNAL),
    "log_script": kinds.that("a list of directives", are_words),
    "producer_for": kinds.that("the name of a process", is_name),
    "pipeline_name": kinds.that("a name without '/'", is_name),
}
"""The kinds of the parameters."""
