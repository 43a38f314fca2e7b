"""Rules about a running system, as a snapshot shows it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from pytest_nixproc.checks.api import NOT_RUNNING, PidFileState, Rule, Snapshot, origin_of
from pytest_nixproc.checks.claims import ResourceClaim
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.values.addresses import ANY_ADDRESS
from pytest_nixproc.values.findings import Finding, Origin
from pytest_nixproc.values.machine import Listener


def not_running(snapshot: Snapshot) -> Iterator[Finding]:
    """Find instances that do not run."""
    for name, status in snapshot.statuses.items():
        if not status.running and name not in snapshot.may_be_down:
            yield Finding(NOT_RUNNING, "error", f"{name} does not run: {status.text}", (name,))


def ports_not_owned(snapshot: Snapshot) -> Iterator[Finding]:
    """Find declared ports on which none of the instance's own processes listens: nobody does, or another process."""
    holders = defaultdict(list)
    for listener in snapshot.owners:
        holders[listener.protocol, listener.port].append(listener)
    for name, instance in snapshot.model.items():
        for endpoint in instance.endpoints if name not in snapshot.may_be_down else ():
            at_port = holders[endpoint.protocol, endpoint.port]
            found = [listener for listener in at_port if endpoint.is_served_at(listener.host)]
            if name not in (snapshot.owners[listener] for listener in found):
                who, others, remedy = holder(snapshot, found)
                place = f"{endpoint.port}{f' of {endpoint.address}' if endpoint.address else ''}"
                problem = f"{name} declares {endpoint.protocol.upper()} port {place}, {who}"
                origin = origin_of(snapshot.model, name, endpoint.value_path, endpoint.port)
                yield Finding("NP202", "error", problem, (name, *others), (origin,), remedy)


def holder(snapshot: Snapshot, listeners: Sequence[Listener]) -> tuple[str, tuple[str, ...], str]:
    """Return who listens instead of an instance: a description, the other instances involved, and a remedy."""
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
    declared = {(name, end.protocol, end.port) for name, item in snapshot.model.items() for end in item.endpoints}
    for listener, owner in snapshot.owners.items():
        if owner is None or (owner, listener.protocol, listener.port) in declared:
            continue
        if listener.protocol == "tcp" or listener.port not in snapshot.client_ports:
            problem = f"{owner} listens on {listener.protocol.upper()} port {listener.port}, which it does not declare"
            attribute = "ports" if listener.protocol == "tcp" else "udp_ports"
            remedy = f"declare it: Instance(..., {attribute}={{'NAME': {listener.port}}})"
            yield Finding("NP203", "warning", problem, (owner,), (), remedy)


def pid_files_wrong(snapshot: Snapshot) -> Iterator[Finding]:
    """Find PID files that have to exist and do not, or that do not name a living process of their instance."""
    for name, unit in snapshot.units.items():
        if unit.pid_file is None or name in snapshot.may_be_down:
            continue
        content = snapshot.pid_files.get(name)
        if content is None:
            problem = f"{name} has no PID file {unit.pid_file}"
            yield Finding("NP204", "error", problem, (name,), (), "tell the program where, or set pid_file")
        elif snapshot.members.get(snapshot.named.get(name, 0)) != name:
            problem = f"PID file {unit.pid_file} holds {content.strip()!r}, which is no living process of {name}"
            yield Finding("NP204", "error", problem, (name,))
    for file in snapshot.referenced_pid_files:
        name = file.claims[0].instance
        if not file.is_right and not is_shared(file) and name not in snapshot.may_be_down:
            origin = origin_of_claim(snapshot, file.claims[0])
            # Many programs write more below it.
            first_line = (file.content or "").partition("\n")[0]
            wrong = f"holds {first_line!r}, which is no living process of {name}"
            problem = (
                f"PID file {file.path}, which {name} is told, {'does not exist' if file.content is None else wrong}"
            )
            remedy = "have the program write it when it starts, and remove it when it ends"
            yield Finding("NP204", "error", problem, (name,), (origin,), remedy, file.path)


def is_shared(file: PidFileState) -> bool:
    """Tell whether a PID file exists and its path is passed to more than one instance."""
    return file.content is not None and len(file.instances) > 1


def origin_of_claim(snapshot: Snapshot, claim: ResourceClaim) -> Origin:
    """Return the origin of a claim: the value that makes it."""
    return origin_of(snapshot.model, claim.instance, claim.value_path, claim.value)


def pid_files_shared(snapshot: Snapshot) -> Iterator[Finding]:
    """Find PID files of different instances that name one process."""
    by_pid = defaultdict(list)
    for name, pid in snapshot.named.items():
        by_pid[pid].append(name)
    for pid, names in by_pid.items():
        if len(names) > 1:
            problem = f"the PID files of {' and '.join(names)} name the same process {pid}"
            yield Finding("NP205", "error", problem, tuple(names))
    for file in filter(is_shared, snapshot.referenced_pid_files):
        problem = f"{' and '.join(file.instances)} are told the same PID file {file.path}, and it is written"
        origins = tuple(origin_of_claim(snapshot, claim) for claim in file.claims)
        yield Finding("NP205", "error", problem, file.instances, origins, "derive its path from a parameter", file.path)


def wrong_users(snapshot: Snapshot) -> Iterator[Finding]:
    """Find main processes that do not run as the user and primary group to which their manager was to switch."""
    for name, account in snapshot.accounts.items():
        found = snapshot.run_as.get(name)
        if found is not None and found != (account.uid, account.gid):
            wanted = f"user {account.uid} ({account.user}) and group {account.gid} ({account.group})"
            problem = f"{name} runs as user {found[0]} and group {found[1]}, and not as {wanted}"
            origin = origin_of(snapshot.model, name, "pkg.user", account.user)
            remedy = "if the program changes its user by itself, leave user out of the model"
            yield Finding("NP206", "error", problem, (name,), (origin,), remedy)


def wide_listeners(snapshot: Snapshot) -> Iterator[Finding]:
    """Find ports that are declared on a local address, and listened on at all addresses."""
    declared = {
        (name, endpoint.protocol, endpoint.port): endpoint
        for name, instance in snapshot.model.items()
        for endpoint in instance.endpoints
        if endpoint.address
    }
    for listener, owner in snapshot.owners.items() if declared else ():
        endpoint = declared.get((owner or "", listener.protocol, listener.port))
        if owner is not None and endpoint is not None and listener.host in ANY_ADDRESS:
            problem = f"{owner} listens on port {listener.port} of all addresses, and not of {endpoint.address} alone"
            origin = origin_of(snapshot.model, owner, endpoint.value_path, endpoint.port)
            remedy = "pass the address on to the program"
            yield Finding("NP207", "warning", problem, (owner,), (origin,), remedy, endpoint.text)


def shared_files(snapshot: Snapshot) -> Iterator[Finding]:
    """Find files that processes of two instances have open for writing."""
    writers: dict[str, dict[str, int]] = defaultdict(dict)
    own = as_prefixes(snapshot.own_places)
    for name, process in snapshot.processes:
        # A container has files of its own, but for the directories that it shares with its machine.
        for path in process.written:
            if process.shares_files or path.startswith(own):
                writers[path].setdefault(name, process.pid)
    for path, by_name in writers.items():
        if len(by_name) > 1:
            problem = f"{' and '.join(by_name)} have the same file open for writing: {path}"
            origins = tuple(f"process {pid} of {name}" for name, pid in by_name.items())
            yield Finding("NP208", "error", problem, tuple(by_name), origins, "derive its path from a parameter", path)


def as_prefixes(places: Iterable[str]) -> tuple[str, ...]:
    """Return directories with a trailing slash each, which are the prefixes of all paths inside them."""
    return tuple(f"{place}/" for place in places)


def files_elsewhere(snapshot: Snapshot) -> Iterator[Finding]:
    """Find files that instances write outside the directories that the deployment has for that."""
    own = as_prefixes(snapshot.own_places)
    found: dict[tuple[str, str], str] = {}
    for name, process in snapshot.processes if own else ():
        for path in process.written if process.shares_files else ():
            if not path.startswith(own):
                found.setdefault((name, path), f"open for writing by process {process.pid}")
    for name, paths in snapshot.changed.items():
        for path in paths:
            found.setdefault((name, path), "named by the model, and changed since the system began to start")
    for (name, path), how in found.items():
        problem, remedy = f"{name} writes {path}, outside the state", "build the path from the state directories"
        yield Finding("NP209", "warning", problem, (name,), (how,), remedy, path)


def changes_elsewhere(snapshot: Snapshot) -> Iterator[Finding]:
    """Find files that instances seem to have written and closed in directories that all programs share, like /tmp."""
    known = {path for _, process in snapshot.processes for path in process.written}
    known.update(path for paths in snapshot.changed.values() for path in paths)
    for change in snapshot.file_changes:
        if change.path not in known:
            problem = f"{change.path} has changed since the system began to start, and seems to be {change.instance}'s"
            clues = (f"the clue: {change.clue}", "who has written it cannot be seen any more")
            remedy = "build the path from the state directories"
            yield Finding("NP214", "warning", problem, (change.instance,), clues, remedy, change.path)


def wrong_umasks(snapshot: Snapshot) -> Iterator[Finding]:
    """Find main processes whose umask is not the one that the model gives them."""
    for name, process in snapshot.processes:
        wanted = snapshot.model[name].pkg.umask
        if wanted and process.umask and process.pid == process.main and int(wanted, 8) != int(process.umask, 8):
            problem = f"{name} has the umask {process.umask}, and not {wanted}"
            origin = origin_of(snapshot.model, name, "pkg.umask", wanted)
            remedy = "if the program sets its umask by itself, leave umask out of the model"
            yield Finding("NP210", "warning", problem, (name,), (origin,), remedy, f"process {process.pid}")


def wrong_directories(snapshot: Snapshot) -> Iterator[Finding]:
    """Find main processes in another working directory than the model's, except daemons, which often change it."""
    for name, process in snapshot.processes:
        wanted, is_daemon = snapshot.model[name].pkg.directory, snapshot.units[name].mode == "daemon"
        is_meant = wanted and process.directory and process.pid == process.main and not is_daemon
        # In a container, what is a link on the machine may be the directory itself.
        if wanted and is_meant and process.directory not in (os.path.normpath(wanted), snapshot.directories.get(name)):
            problem = f"{name} works in {process.directory}, and not in {wanted}"
            origin = origin_of(snapshot.model, name, "pkg.directory", wanted)
            remedy = "if the program changes it by itself, leave directory out of the model"
            yield Finding("NP211", "warning", problem, (name,), (origin,), remedy, f"process {process.pid}")


def escaped_processes(snapshot: Snapshot) -> Iterator[Finding]:
    """Find processes of an instance that no longer descend from its main process."""
    for name, process in snapshot.processes:
        if process.main is None and not process.is_zombie:
            problem = f"process {process.pid} of {name} has left the tree of its main process"
            remedy = "have the program wait for what it starts: its manager cannot stop this process"
            yield Finding("NP212", "warning", problem, (name,), (), remedy, f"process {process.pid}")


def zombies(snapshot: Snapshot) -> Iterator[Finding]:
    """Find zombies: processes that have ended, and that their parent has not waited for."""
    for name, process in snapshot.processes:
        if process.is_zombie:
            problem = f"process {process.pid} of {name} has ended, and its parent does not take notice"
            yield Finding("NP213", "warning", problem, (name,), (), "have the program wait for its children (wait(2))")


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Return the live rules, for the registry."""
    return RULES


RULES: Final = [
    Rule(
        NOT_RUNNING,
        "every instance runs that is to run",
        live=not_running,
        explanation="It asks the manager, whenever the running system is looked at. An instance that a test has"
        " stopped is no error, and neither is one with `may_end=True`, or one of which NP215 has told. One that a test"
        " has killed is an error: start it again before the next look.",
    ),
    Rule(
        "NP202",
        "each declared port is listened on by the instance's own processes",
        live=ports_not_owned,
        explanation="A port that answers proves little: another instance, or a stranger, may hold it. The rule checks"
        " which process holds the listening socket, at the address that the instance declares, and whether that process"
        " belongs to the instance and to its present run. Where no address is declared, any will do.",
    ),
    Rule(
        "NP203",
        "no instance listens on a port that it does not declare",
        live=undeclared_listeners,
        severity="warning",
        explanation="A hidden second listener, for metrics or debugging, is the conflict of the second instance. It is"
        " a warning, because some programs open ports that nobody has chosen. UDP ports in the range that the kernel"
        " gives to clients (`net.ipv4.ip_local_port_range`) are left out: every client has one for a moment.",
    ),
    Rule(
        "NP204",
        "each PID file exists and names a living process of its instance",
        live=pid_files_wrong,
        explanation="A manager stops the process that the PID file names. The rule checks the PID files by which"
        " managers find daemons, and those that programs write for themselves: values under the name of a PID file in"
        " arguments or environment, and paths there that end in `.pid`. A stale one, or one that names a process of"
        " another instance, is an error; so is a missing one that a manager needs or an option asks for. One that a"
        " variable names may be missing, because many programs write it as daemons only. A wrong one is looked at"
        " again for half a second.",
    ),
    Rule(
        "NP205",
        "no two PID files name the same process",
        live=pid_files_shared,
        explanation="One of two instances has taken the other's place, or written over its PID file; or both have the"
        " same path somewhere in their arguments, and only running them shows that it is a PID file.",
    ),
    Rule(
        "NP206",
        "in the profile privileged, each process runs as its user",
        live=wrong_users,
        explanation="It compares the effective user and group of the main process with those of the account that the"
        " manager was to switch to.",
    ),
    Rule(
        "NP207",
        "a port that is declared on one address is not open on all",
        live=wide_listeners,
        severity="warning",
        explanation="It checks the ports of instances with `bind_address` or the like. A program that listens on all"
        " addresses is open to the network, and in the way of an instance with the same port on another address.",
    ),
    Rule(
        "NP208",
        "no file is open for writing in two instances",
        live=shared_files,
        explanation="It checks the files, FIFOs and sockets that processes have open, with the mode in which they were"
        " opened: exact on Linux, unknown elsewhere. A file that a program has closed again is not seen.",
    ),
    Rule(
        "NP209",
        "instances write to the state directories only",
        live=files_elsewhere,
        severity="warning",
        explanation="A file elsewhere is the same for every deployment, and stays. The rule sees files and sockets"
        " that are open for writing, and paths that the model names (PID files, logs, directories, sockets) when they"
        " have changed since the system began to start. Homes that the model has created count as state. Symbolic"
        " links on the way to it make no difference. Files that were written and closed again are the matter of NP214.",
    ),
    Rule(
        "NP210",
        "main processes have the umask of the model",
        live=wrong_umasks,
        severity="warning",
        explanation="It checks processes whose umask the model gives, on Linux (`/proc/PID/status`).",
    ),
    Rule(
        "NP211",
        "main processes work in the directory of the model",
        live=wrong_directories,
        severity="warning",
        explanation="It checks processes whose directory the model gives and that stay in the foreground, on Linux"
        " (`/proc/PID/cwd`), along symbolic links. Daemons go to `/` by custom.",
    ),
    Rule(
        "NP212",
        "processes stay below their main process",
        live=escaped_processes,
        severity="warning",
        explanation="A process that has detached itself is not stopped with its instance. The rule recognises it by"
        " the variable `NIXPROC_INSTANCE` in its environment, if it descends from the guardian.",
    ),
    Rule(
        "NP213",
        "nothing that has ended is left unnoticed",
        live=zombies,
        severity="warning",
        explanation="A zombie keeps its number until its parent waits for it; a program that never does runs out of"
        " processes. A process that has just ended is looked at again for half a second.",
    ),
    Rule(
        "NP214",
        "instances leave no files where all programs write",
        live=changes_elsewhere,
        severity="warning",
        explanation="It looks for files that have changed since the system began to start in `/tmp`, `/var/tmp`,"
        " `/var/log`, the caller's home and the directories that main processes work in, even if they were closed"
        " again. Nothing shows afterwards which process has written a file, so a file is reported only with a clue."
        " Either its path stands in the instance's arguments, environment or `initialize`, in its program, or in a"
        " file that it is passed (of up to 2 MiB), and the file has the right owner; or it belongs to the user that"
        " this instance alone runs as; or its name has the number of one of its processes. All others are left out,"
        " because they may be pytest's own, or those of another deployment. Rarely, so may one with a clue.",
    ),
]
