"""Whose answer it is: the processes of instances, the addresses at which they answer, and who holds their ports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Final, NamedTuple

from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.parts import Network
from pytest_nixproc.machines.process_table import ancestors
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.values.addresses import leads_to, reached_at
from pytest_nixproc.values.machine import Listener, Protocol
from pytest_nixproc.values.tags import INSTANCE
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit

UNBOUND: Final = "nobody is bound to it"


class ProcessAttribution:
    """The attribution of processes to instances; the process table is read once, and only when it is needed."""

    def __init__(self, machine: Machine, target: Target, main: Mapping[int, str]) -> None:
        self.machine = machine
        self.target = target
        self.main = main
        self._parents: dict[int, int] | None = None

    def owner(self, pid: int | None) -> str | None:
        """Return the instance of a process: by main process, by ancestry, or by the tag in its environment."""
        if pid is None or pid in self.main:
            return self.main.get(pid or 0)
        if self._parents is None:
            self._parents = self.machine.processes.parents()
        for above in ancestors(pid, self._parents):
            if above in self.main:
                return self.main[above]
        has_tag = partial(self.machine.processes.has_tag, pid)
        if not all(has_tag(f"{name}={value}") for name, value in self.target.tags.items()):
            return None
        main, name = next((entry for entry in self.main.items() if has_tag(f"{INSTANCE}={entry[1]}")), (0, None))
        return None if self._is_older(pid, main, self._parents) else name

    def _is_older(self, pid: int, main: int, parents: Mapping[int, int]) -> bool:
        """Tell whether a process was there before a main process, or that is gone: an earlier run has left it.

        What stands above a main process, as a foreground proxy does, is of the same run.
        """
        begun = [self.machine.processes.start_time(process) for process in (pid, main)]
        if not all(begun):
            return any(begun)
        return float(begun[0]) < float(begun[1]) and pid not in ancestors(main, parents)

    def living_members(self, pids: set[int]) -> dict[int, str]:
        """Return those of some processes that still run and belong to an instance, each with the instance."""
        living = pids - self.machine.processes.ended(pids)
        return {pid: name for pid in living if (name := self.owner(pid)) is not None}


class Answer(NamedTuple):
    """An answer that an instance is taken to have given: somebody accepts connections at its port, or has it (UDP)."""

    instance: str
    host: str
    """The address at which it came; empty for any."""

    port: int
    protocol: Protocol = "tcp"


class Answers:
    """The answers to one round of questions; those in ``strangers`` are known to be somebody else's, and say whose.

    Whose an answer is can be told from the processes that listen there. That is looked at for all of them together,
    once they have come: see :func:`strangers`.
    """

    def __init__(self, network: Network, strangers: Mapping[Answer, str] | None = None) -> None:
        self.network = network
        self.strangers = strangers or {}
        self.given: list[Answer] = []
        """The answers that have come, and have to be the instances' own."""

    @cached_property
    def _open_ports(self) -> Mapping[int, Collection[str]] | None:
        return self.network.open_ports()

    def hosts(self, endpoint: Endpoint) -> tuple[str, ...]:
        """Return the addresses at which to expect an endpoint's answer, the likeliest first; there is always one."""
        likely = endpoint.hosts(None)
        if len(likely) == 1:
            return likely
        reachable = self._open_ports
        return likely if reachable is None else endpoint.hosts(reachable.get(endpoint.port, ()))

    def problem(self, instance: str, endpoint: Endpoint, ask: Callable[[str], str] | None = None) -> str:
        """Return why nobody answers for an instance at an endpoint, or an empty text.

        ``ask`` returns why an address does not answer; without it, connections have to be accepted.
        """
        return self.first_problem(instance, endpoint.port, self.hosts(endpoint), ask)

    def first_problem(
        self, instance: str, port: int, hosts: Iterable[str], ask: Callable[[str], str] | None = None
    ) -> str:
        """Return why nobody answers for an instance at some addresses, the first reason, or an empty text."""
        reason = ""
        for host in hosts:
            answer = Answer(instance, host, port)
            problem = self.strangers.get(answer) or (ask or partial(self._connect, port))(host)
            if not problem:
                self.given.append(answer)
                return ""
            reason = reason or problem
        return reason

    def udp_problem(self, instance: str, port: int) -> str:
        """Return why an instance does not have a UDP port, or an empty text: nobody answers there who is not asked."""
        answer = Answer(instance, "", port, "udp")
        if stranger := self.strangers.get(answer):
            return stranger
        if ("udp", port) not in {(item.protocol, item.port) for item in self.network.listeners((), {port})}:
            return UNBOUND
        self.given.append(answer)
        return ""

    def _connect(self, port: int, host: str) -> str:
        return self.network.connection_problem((host, port))


def strangers(
    driver: Driver, units: Mapping[str, Unit], statuses: Mapping[str, Status], answers: Collection[Answer]
) -> dict[Answer, str]:
    """Return those answers that are not the instances' own, each with whose it is, by one look at the machine.

    ``statuses`` are those of the instances that are asked about. An answer is not held against an instance when it
    cannot be seen who gives it; as long as an instance has no process, none is its own.
    """
    if not answers:
        return {}
    main = {status.pid: name for name, status in statuses.items() if status.running and status.pid}
    attribution = ProcessAttribution(driver.machine, driver.target, main)
    by_unit = {units[name].name: status for name, status in statuses.items()}
    sockets: Mapping[tuple[Protocol, int], list[Listener]] = defaultdict(list)
    for item in listeners(driver, by_unit, main, {answer.port for answer in answers}):
        sockets[item.protocol, item.port].append(item)
    found = {answer: "its program has not been started" for answer in answers if answer.instance not in main.values()}
    for answer in answers:
        own = sockets[answer.protocol, answer.port]
        at = list(serving(own, answer.host)) if answer.host else own
        if not at:
            # Who is gone after it has answered was not the instance; who still answers just cannot be seen.
            asked = driver.machine.network.connection_problem
            if problem := asked((answer.host, answer.port)) if answer.host else UNBOUND:
                found[answer] = problem
        elif all(item.pid and attribution.owner(item.pid) != answer.instance for item in at):
            found[answer] = f"{who_holds(driver.machine, at[0].pid)}, which is none of {answer.instance}'s"
    return found


def serving(sockets: Collection[Listener], host: str) -> Iterator[Listener]:
    """Yield the sockets of one port that connections to an address reach: those that are bound to just that come first.

    Others are not reached then.
    """
    for address in reached_at(host):
        exact = [item for item in sockets if item.host == address]
        yield from exact or (item for item in sockets if leads_to(address, item.host))


def listeners(
    driver: Driver, statuses: Mapping[str, Status], likely: Iterable[int], wanted: Container[int] | None = None
) -> list[Listener]:
    """Return all listening sockets; a port that is forwarded to a unit is the unit's, not the forwarder's."""
    forwarded = driver.listeners(statuses)
    ports = {listener.port for listener in forwarded}
    return [*forwarded, *(item for item in driver.machine.network.listeners(likely, wanted) if item.port not in ports)]


def rivals(driver: Driver, unit: Unit, instance: Instance) -> Iterable[str]:
    """Return who else has the declared TCP ports of an instance that is not ready, in words."""
    endpoints = [endpoint for endpoint in instance.endpoints if endpoint.protocol == "tcp"]
    if not endpoints:
        return ()
    status = driver.status([unit])[unit.name]
    main = {status.pid: unit.key} if status.running and status.pid else {}
    attribution = ProcessAttribution(driver.machine, driver.target, main)
    everybody = listeners(driver, {unit.name: status}, main, {endpoint.port for endpoint in endpoints})
    found = [item for item in everybody if is_at(item, endpoints)]
    # While the instance runs, what cannot be seen may be its own.
    others = [item for item in found if (attribution.owner(item.pid) is None if item.pid else not main)]
    return dict.fromkeys(f"TCP port {item.port}: {who_holds(driver.machine, item.pid)}" for item in others)


def is_at(listener: Listener, endpoints: Iterable[Endpoint]) -> bool:
    """Tell whether a socket listens at one of some endpoints."""
    return any(
        (endpoint.protocol, endpoint.port) == (listener.protocol, listener.port)
        and endpoint.is_served_at(listener.host)
        for endpoint in endpoints
    )


def who_holds(machine: Machine, pid: int | None) -> str:
    """Return in words who holds a port; ``pid`` is None for a process that cannot be seen."""
    return (
        f"process {pid} holds it ({machine.processes.describe(pid)})" if pid else "a process of another user holds it"
    )


def main_endpoint(name: str, instance: Instance) -> Endpoint:
    """Return the endpoint that an instance's URL is made of; raises :class:`~pytest_nixproc.errors.NixprocError`."""
    if instance.main_endpoint is None:
        raise NixprocError(f"{name} has no single port to make a URL of", remedy="declare 'port'")
    return instance.main_endpoint
