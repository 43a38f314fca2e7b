"""Rules about the stop of one instance: its leftovers, and its effects on other instances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pytest_nixproc.checks.api import Rule, StopReport
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.values.findings import Finding


def processes_left(report: StopReport) -> Iterator[Finding]:
    """Find processes of the stopped instance that still run."""
    name = report.instance
    for pid, command in report.processes.items():
        problem = f"process {pid} of {name} still runs {report.when}: {command}"
        remedy = "have the program end what it has started, and wait for it"
        yield Finding("NP301", "error", problem, (name,), (), remedy, f"process {pid}")


def ports_held(report: StopReport) -> Iterator[Finding]:
    """Find ports of the stopped instance that other processes hold."""
    name = report.instance
    for port, holder in report.held.items():
        problem = f"{port} of {name} is held {report.when}: {holder}"
        remedy = "let nobody else use it, and close it in what the program leaves behind"
        yield Finding("NP302", "error", problem, (name,), (), remedy, port)


def pid_files_left(report: StopReport) -> Iterator[Finding]:
    """Find PID files of the stopped instance that are still there."""
    for path in report.pid_files:
        problem = f"PID file {path} of {report.instance} is still there {report.when}"
        remedy = "have the program remove it when it ends: its number will be another process's"
        yield Finding("NP303", "warning", problem, (report.instance,), (), remedy, path)


def sockets_left(report: StopReport) -> Iterator[Finding]:
    """Find Unix sockets of the stopped instance that are still there."""
    for path in report.sockets:
        problem = f"socket {path} of {report.instance} is still there {report.when}"
        remedy = "have the program remove it when it ends (unlink(2)): nobody can bind it while it is there"
        yield Finding("NP304", "warning", problem, (report.instance,), (), remedy, path)


def others_ended(report: StopReport) -> Iterator[Finding]:
    """Find other instances whose main process is not the one that it was before."""
    for name, pid in report.ended.items():
        problem = f"{name} (pid {pid}) has ended {report.when}"
        remedy = f"if it cannot do without {report.instance}, let it depend on that"
        yield Finding("NP305", "error", problem, (report.instance, name), (), remedy, f"process {pid}")


def others_unready(report: StopReport) -> Iterator[Finding]:
    """Find other instances that run, and cannot be used."""
    for name, reason in report.unready.items():
        problem = f"{name} is not ready {report.when}: {reason}"
        remedy = f"if it cannot do without {report.instance}, let it depend on that"
        yield Finding("NP306", "error", problem, (report.instance, name), (), remedy)


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Return the leak rules, for the registry."""
    return RULES


RULES: Final = [
    Rule(
        "NP301",
        "no process of a stopped instance is left",
        leak=processes_left,
        explanation="It checks the processes that the instance had, and those that name it by `NIXPROC_INSTANCE` in"
        " their environment and descend from the guardian. Helpers that end within a second are not left: a shell's"
        " last `sleep`, the child of a connection. A process that cleans its environment, and was started by the stop,"
        " is not known.",
    ),
    Rule(
        "NP302",
        "nobody listens on the ports of a stopped instance",
        leak=ports_held,
        explanation="It checks the ports that the instance declares, and those that it listened on, at its addresses:"
        " another instance may have the same port at another one. Processes of its own that still hold one are reported"
        " by NP301; this rule is about others, which took the port over or got it from the program, so that the"
        " instance cannot be started again.",
    ),
    Rule(
        "NP303",
        "a stopped instance leaves no PID file",
        leak=pid_files_left,
        severity="warning",
        explanation="It checks the PID files of managers, and those that arguments and environment name. Their numbers"
        " will be given to other processes, which are then taken for the program: it refuses to start, or the other"
        " one is stopped. It is a warning, because many programs can tell them apart.",
    ),
    Rule(
        "NP304",
        "a stopped instance leaves no socket",
        leak=sockets_left,
        severity="warning",
        explanation="It checks the Unix sockets that the model names, and those that the instance's processes had"
        " bound, on Linux. It is a warning, because many programs remove an old socket when they start.",
    ),
    Rule(
        "NP305",
        "a stop ends no other instance",
        leak=others_ended,
        explanation="It compares main processes by number and start time: before the stop, while the instance is"
        " stopped, and when it is started again. Instances that depend on it, directly or through others, only have to"
        " be ready in the end.",
    ),
    Rule(
        "NP306",
        "other instances stay ready while one is stopped",
        leak=others_unready,
        explanation="The others' conditions have to hold, and they have to answer on the TCP ports on which they did so"
        " before. Those that depend on the stopped one are checked when it is started again.",
    ),
]
