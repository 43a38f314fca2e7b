"""The programs as instances of a model, in either mode."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess, create_managed_process
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.units import Mode

HERE: Final = os.path.dirname(os.path.abspath(__file__))
INTERPRETER: Final = sys.executable
OPTIONS: Final = ("-I", "-S")


def program(name: str, mode: Mode, words: tuple[str, ...], **parameters: Any) -> ManagedProcess:
    """Return the process that runs a Python program in the given mode only."""
    words = (*OPTIONS, *words)
    if mode == "daemon":
        return create_managed_process(name=name, daemon=INTERPRETER, daemon_args=(*words, "-D"), **parameters)
    return create_managed_process(
        name=name, foreground_process=INTERPRETER, foreground_process_args=words, **parameters
    )


def dump_of(state: StateDirs, name: str) -> str:
    """Return the path of the file into which a probe writes its execution environment."""
    return f"{state.lib_dir}/{name}.json"


def probe(
    name: str,
    state: StateDirs,
    mode: Mode = "foreground",
    *args: str,
    port: int | None = None,
    delay: float = 0,
    environment: Mapping[str, str] | None = None,
    **parameters: Any,
) -> Instance:
    """Return an instance of the probe; ``args`` are arguments that it writes down and does not use."""
    told = {"PROBE_DUMP": dump_of(state, name), **(environment or {})}
    if port is not None:
        told["PROBE_PORT"] = str(port)
    if delay:
        told["PROBE_DELAY"] = str(delay)
    if mode == "daemon":
        directory = state.tmp_dir if "user" in parameters else state.runtime_dir
        told["PROBE_PID_FILE"] = parameters.get("pid_file") or f"{directory}/{name}.pid"
    pkg = program(name, mode, (f"{HERE}/probe.py", *args), environment=told, **parameters)
    return Instance(pkg, ready=ready.file(dump_of(state, name))) if port is None else Instance(pkg, port=port)


def misbehaving(
    name: str,
    state: StateDirs,
    mode: Mode,
    behaviour: str,
    *,
    port: int | None = None,
    options: Mapping[str, object] | None = None,
    **parameters: Any,
) -> Instance:
    """Return an instance of the program that misbehaves; ``options`` are passed to its behaviour."""
    told = dict(options or {})
    if port is not None:
        told["port"] = port
    if mode == "daemon":
        told["pid_file"] = parameters.get("pid_file") or f"{state.runtime_dir}/{name}.pid"
    words = (f"{HERE}/misbehaving.py", behaviour, *(f"{key}={value}" for key, value in told.items()))
    return Instance(program(name, mode, words, **parameters), **({} if port is None else {"port": port}))
