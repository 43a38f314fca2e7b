"""Rules about a model, before anything is started."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pytest_nixproc.checks.api import Finding, Plan, Rule
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model.accounts import Said, named_groups, named_users, needed_accounts, said_about_accounts
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess

Claim = tuple[str, str, object]
"""Who claims a resource: an instance, the place in it that the value comes from, and what stands there."""

STATE_ROOTS: Final = ("/var/", "/run/", "/tmp/")  # noqa: S108 - looked for in models, to be reported
PATH_ATTRIBUTES: Final = ("socket", "_socket", "socket_file", "data_dir", "state_dir")


def shared(claims: Iterable[tuple[object, Claim]]) -> Iterator[tuple[object, list[Claim]]]:
    """Yield the values that more than one instance claims, with the claims."""
    by_value: dict[object, list[Claim]] = defaultdict(list)
    for value, claim in claims:
        by_value[value].append(claim)
    for value, claimants in by_value.items():
        if len({instance for instance, *_ in claimants}) > 1:
            yield value, claimants


def conflict(code: str, problem: str, claims: list[Claim], remedy: str) -> Finding:
    """Return the finding for a value that several instances claim."""
    instances = tuple(dict.fromkeys(instance for instance, *_ in claims))
    origins = tuple(f"processes.{instance}.{place} = {value!r}" for instance, place, value in claims)
    return Finding(code, "error", f"{' and '.join(instances)} {problem}", instances, origins, remedy)


def duplicate_ports(plan: Plan) -> Iterator[Finding]:
    """Find TCP ports that two instances declare."""
    claims = [
        (port, (name, place, port))
        for name, instance in plan.model.items()
        for place, port in instance.declared_ports.items()
    ]
    for port, claimants in shared(claims):
        remedy = "give each instance its own port"
        yield conflict("NP101", f"declare the same TCP port {port}", claimants, remedy)


def duplicate_pid_files(plan: Plan) -> Iterator[Finding]:
    """Find PID files that two instances would write."""
    claims = [
        (os.path.normpath(plan.target.pid_file(instance.pkg)), (name, *named_by(instance.pkg, "pid_file")))
        for name, instance in plan.model.items()
    ]
    for path, claimants in shared(claims):
        remedy = "give each instance its own instance_name or pid_file"
        yield conflict("NP102", f"have the same PID file {path}", claimants, remedy)


def duplicate_log_files(plan: Plan) -> Iterator[Finding]:
    """Find log files that two instances would write."""
    claims = [
        (os.path.normpath(plan.target.log_file(instance.pkg)), (name, *named_by(instance.pkg, "")))
        for name, instance in plan.model.items()
    ]
    for path, claimants in shared(claims):
        yield conflict("NP103", f"have the same log file {path}", claimants, "give each its own instance_name")


def named_by(process: ManagedProcess, parameter: str) -> tuple[str, object]:
    """Return what decides a path that ``parameter`` may set explicitly: its place in an instance, and its value."""
    names = [name for name in (parameter, "instance_name", "name") if name and getattr(process, name)]
    return f"pkg.{names[0]}", getattr(process, names[0])


def duplicate_state_paths(plan: Plan) -> Iterator[Finding]:
    """Find state that two instances claim for themselves: sockets, data directories, homes that are to be created."""
    claims = [
        (os.path.normpath(path), (name, place, path))
        for name, instance in plan.model.items()
        for place, path in own_paths(instance)
    ]
    for path, claimants in shared(claims):
        remedy = "derive the path from the instance's name"
        yield conflict("NP104", f"claim the same path {path}", claimants, remedy)


def own_paths(instance: Instance) -> Iterator[tuple[str, str]]:
    """Yield the paths that an instance claims, with the places that claim them."""
    for name, value in instance.attributes.items():
        if isinstance(value, str | os.PathLike) and name.endswith(PATH_ATTRIBUTES):
            yield name, os.fspath(value)
    for name, value in instance.pkg.environment.items():
        if name.upper().endswith(("PID_FILE", "PIDFILE")) and value.startswith("/"):
            yield f"pkg.environment.{name}", value
    for name, user in instance.pkg.credentials.users.items():
        if user.create_home_dir:
            yield f"pkg.credentials.users.{name}.home_dir", user.home_dir


def duplicate_names(plan: Plan) -> Iterator[Finding]:
    """Find processes whose configurations would have one name; case does not count (macOS, Windows)."""
    claims = [
        (instance.pkg.name.casefold(), (name, "pkg.name", instance.pkg.name)) for name, instance in plan.model.items()
    ]
    for _, claimants in shared(claims):
        value = plan.model[claimants[0][0]].pkg.name
        remedy = "pass a suffix on to the second one's name"
        yield conflict("NP105", f"have the same name {value!r}", claimants, remedy)


def differing_accounts(plan: Plan) -> Iterator[Finding]:
    """Find users and groups that two instances describe with different attributes."""
    described: dict[tuple[str, str, str], list[Said]] = defaultdict(list)
    for said in said_about_accounts(plan.model):
        described[said.kind, said.name, said.attribute].append(said)
    for (kind, name, attribute), speakers in described.items():
        if len({said.value for said in speakers}) > 1:
            instances = tuple(said.instance for said in speakers)
            problem = f"{' and '.join(instances)} give {kind} {name!r} a different {attribute}"
            origins = tuple(said.origin for said in speakers)
            yield Finding("NP106", "error", problem, instances, origins, "describe one account in one way")


def unknown_accounts(plan: Plan) -> Iterator[Finding]:
    """Find users and groups that are neither described nor known to the machine, and those that tools take for ids."""
    if plan.target.force_disable_user_change or not plan.target.accounts.are_known:
        return
    needed, known = needed_accounts(plan.model), plan.target.accounts
    for kind, named, there in (
        ("user", named_users(plan.model), {*needed.users, *known.users}),
        ("group", named_groups(plan.model), {*needed.groups, *known.groups}),
    ):
        for name, place in named.items():
            origin = (f"{place} = {name!r}",)
            if name.isdecimal():
                problem, remedy = f"{kind} {name!r} is a number, which tools take for an id", "choose another name"
                yield Finding("NP109", "error", problem, instances_in(place), origin, remedy)
            elif name not in there:
                problem = f"{kind} {name!r} is neither described in the model nor known to the machine"
                remedy = f"describe it: credentials={{'{kind}s': {{{name!r}: {{...}}}}}}"
                yield Finding("NP109", "error", problem, instances_in(place), origin, remedy)


def instances_in(place: str) -> tuple[str, ...]:
    """Return the instance that a place of a model is in."""
    return (place.removeprefix("processes.").partition(".pkg.")[0],)


def existing_accounts(plan: Plan) -> Iterator[Finding]:
    """Find accounts that exist already with other ids than the model gives them: they are used as they are."""
    known = plan.target.accounts
    numbers = {"user": {name: account.uid for name, account in known.users.items()}, "group": known.groups}
    for said in said_about_accounts(plan.model) if not plan.target.force_disable_user_change else ():
        number = numbers[said.kind].get(said.name)
        if said.attribute in ("uid", "gid") and number not in (None, said.value):
            problem = f"{said.kind} {said.name!r} exists already, and its {said.attribute} is {number}; it is used so"
            yield Finding("NP110", "warning", problem, (said.instance,), (said.origin,), "leave the id out")


def paths_outside_state(plan: Plan) -> Iterator[Finding]:
    """Find PID files outside the state directories, which a test must not write."""
    for name, instance in plan.model.items():
        path = plan.target.pid_file(instance.pkg)
        if not plan.target.state.contains(os.path.normpath(path)):
            origin = f"processes.{name}.pkg.pid_file = {path!r}"
            remedy = "build it from state.runtime_dir or state.tmp_dir"
            yield Finding("NP107", "error", f"{name} has its PID file outside the state", (name,), (origin,), remedy)


def mentions_outside_state(plan: Plan) -> Iterator[Finding]:
    """Find values that look like state kept outside the state directories."""
    for name, instance in plan.model.items():
        for place, value in mentioned_paths(instance.pkg):
            if looks_like_state(place, value) and not plan.target.state.contains(os.path.normpath(value)):
                origin = f"processes.{name}.{place} = {value!r}"
                remedy = "build it from the state directories"
                problem = f"{name} mentions a path outside the state"
                yield Finding("NP108", "warning", problem, (name,), (origin,), remedy)


def looks_like_state(place: str, value: str) -> bool:
    """Tell whether a value names a file that a program may write; programs themselves often lie below /tmp."""
    return value.startswith(STATE_ROOTS) and (place.startswith("pkg.environment") or not value.startswith("/tmp/"))  # noqa: S108


def mentioned_paths(process: ManagedProcess) -> Iterator[tuple[str, str]]:
    """Yield values of a process that may be paths, with their places."""
    commands: Mapping[str, tuple[str, ...]] = {
        "args": process.args,
        "foreground_process_args": process.foreground_process_args or (),
        "foreground_process_extra_args": process.foreground_process_extra_args,
        "daemon_args": process.daemon_args or (),
        "daemon_extra_args": process.daemon_extra_args,
    }
    for place, args in commands.items():
        for index, value in enumerate(args):
            yield f"pkg.{place}[{index}]", value
    for name, value in process.environment.items():
        yield f"pkg.environment.{name}", value


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Offer the static rules."""
    return [
        Rule("NP101", "no two instances declare the same TCP port", static=duplicate_ports),
        Rule("NP102", "no two instances have the same PID file", static=duplicate_pid_files),
        Rule("NP103", "no two instances have the same log file", static=duplicate_log_files),
        Rule("NP104", "no two instances claim the same socket, data directory or home", static=duplicate_state_paths),
        Rule("NP105", "no two processes have the same name", static=duplicate_names),
        Rule("NP106", "a user or group is described in one way", static=differing_accounts),
        Rule("NP107", "PID files lie in the state directories", static=paths_outside_state),
        Rule("NP108", "arguments and environment name no state elsewhere", static=mentions_outside_state),
        Rule("NP109", "accounts that are switched to are described, or exist", static=unknown_accounts),
        Rule("NP110", "accounts that exist already have the ids of the model", static=existing_accounts),
    ]
