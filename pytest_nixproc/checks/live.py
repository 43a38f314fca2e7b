"""Rules about a running system, as a snapshot shows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from pytest_nixproc.checks.api import Finding, Rule, Snapshot
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import Listener


def not_running(snapshot: Snapshot) -> Iterator[Finding]:
    """Find instances that have ended."""
    for name, status in snapshot.statuses.items():
        if not status.running:
            yield Finding("NP201", "error", f"{name} does not run: {status.text}", (name,))


def ports_not_owned(snapshot: Snapshot) -> Iterator[Finding]:
    """Find declared ports on which nobody listens, or somebody else than the instance's own processes."""
    holders = defaultdict(list)
    for listener in snapshot.listeners:
        holders[listener.port].append(listener)
    for name, instance in snapshot.model.items():
        for place, port in instance.declared_ports.items():
            owners = [snapshot.owners[listener] for listener in holders[port]]
            if name not in owners:
                who, others, remedy = holder(snapshot, holders[port])
                problem = f"{name} declares TCP port {port}, {who}"
                origin = f"processes.{name}.{place} = {port}"
                yield Finding("NP202", "error", problem, (name, *others), (origin,), remedy)


def holder(snapshot: Snapshot, listeners: Sequence[Listener]) -> tuple[str, tuple[str, ...], str]:
    """Say who listens instead of an instance: in words, as instances, and what to do about it."""
    if not listeners:
        return "and nobody listens on it", (), "pass the port on to the program"
    for owner in (snapshot.owners[listener] for listener in listeners):
        if owner is not None:
            return f"but {owner} listens on it", (owner,), "give each instance its own port"
    pid = listeners[0].pid
    who = f"process {pid} ({snapshot.commands.get(pid, '?')})" if pid else "a process of another user"
    return f"but {who}, which is not part of it, listens on it", (), "end that process, or choose another port"


def undeclared_listeners(snapshot: Snapshot) -> Iterator[Finding]:
    """Find ports on which an instance listens without declaring them."""
    for listener in snapshot.listeners:
        owner = snapshot.owners[listener]
        if owner is not None and listener.port not in snapshot.model[owner].declared_ports.values():
            problem = f"{owner} listens on TCP port {listener.port}, which it does not declare"
            remedy = f"declare it: Instance(..., ports={{'NAME': {listener.port}}})"
            yield Finding("NP203", "warning", problem, (owner,), (), remedy)


def pid_files_wrong(snapshot: Snapshot) -> Iterator[Finding]:
    """Find PID files that have to exist and do not, or that do not name a living process of their instance."""
    for name, unit in snapshot.units.items():
        if unit.pid_file is None:
            continue
        content = snapshot.pid_files.get(name)
        if content is None:
            problem = f"{name} has no PID file {unit.pid_file}"
            yield Finding("NP204", "error", problem, (name,), (), "tell the program where, or set pid_file")
        elif snapshot.members.get(snapshot.named.get(name, 0)) != name:
            problem = f"PID file {unit.pid_file} holds {content.strip()!r}, which is no living process of {name}"
            yield Finding("NP204", "error", problem, (name,))


def pid_files_shared(snapshot: Snapshot) -> Iterator[Finding]:
    """Find PID files of different instances that name one process."""
    by_pid = defaultdict(list)
    for name, pid in snapshot.named.items():
        by_pid[pid].append(name)
    for pid, names in by_pid.items():
        if len(names) > 1:
            problem = f"the PID files of {' and '.join(names)} name the same process {pid}"
            yield Finding("NP205", "error", problem, tuple(names))


def wrong_users(snapshot: Snapshot) -> Iterator[Finding]:
    """Find main processes that do not run as the user and primary group to which their manager was to switch."""
    for name, account in snapshot.accounts.items():
        found = snapshot.run_as.get(name)
        if found is not None and found != (account.uid, account.gid):
            wanted = f"user {account.uid} ({account.user}) and group {account.gid} ({account.group})"
            problem = f"{name} runs as user {found[0]} and group {found[1]}, and not as {wanted}"
            remedy = "if the program changes its user by itself, leave user out of the model"
            yield Finding("NP206", "error", problem, (name,), (f"processes.{name}.pkg.user",), remedy)


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Offer the live rules."""
    return RULES


RULES: Final = [
    Rule(
        "NP201",
        "every instance runs",
        live=not_running,
        explanation="The manager is asked. An instance that a test has stopped counts as wrong: start it again before"
        " the next look.",
    ),
    Rule(
        "NP202",
        "each declared port is listened on by the instance's own processes",
        live=ports_not_owned,
        explanation="A port that answers proves little: another instance, or a stranger, may hold it. Looked at is"
        " which process holds the listening socket, and whether that belongs to the instance.",
    ),
    Rule(
        "NP203",
        "no instance listens on a port that it does not declare",
        live=undeclared_listeners,
        severity="warning",
        explanation="A hidden second listener, for metrics or debugging, is the conflict of the second instance. It is"
        " a warning, because some programs open ports that nobody has chosen.",
    ),
    Rule(
        "NP204",
        "each PID file exists and names a living process of its instance",
        live=pid_files_wrong,
        explanation="What a manager finds in the PID file, it stops. Looked at are the PID files by which managers find"
        " daemons: one that is missing, stale, or names a process of another instance is an error.",
    ),
    Rule(
        "NP205",
        "no two PID files name the same process",
        live=pid_files_shared,
        explanation="Two instances of which one has taken the other's place, or written over its PID file.",
    ),
    Rule(
        "NP206",
        "in the profile privileged, each process runs as its user",
        live=wrong_users,
        explanation="Compared are the effective user and group of the main process with those of the account that the"
        " manager was to switch to.",
    ),
]
