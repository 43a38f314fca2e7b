"""Questions to a running system: which of its instances run, and which processes and ports they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pytest_nixproc._inspection.answers import Answer, Answers, ProcessAttribution, listeners, strangers
from pytest_nixproc.machines.process_table import ancestors, descendants
from pytest_nixproc.managers.api import Driver
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.values.tags import DEPLOYMENT
from pytest_nixproc.values.units import Status, Unit


class Observer:
    """An observer of units by manager and machine; ``is_guest`` says that another process has started them."""

    def __init__(self, driver: Driver, units: Mapping[str, Unit], *, is_guest: bool) -> None:
        self.driver = driver
        self.machine = driver.machine
        self.units = units
        self.is_guest = is_guest
        self.tag = f"{DEPLOYMENT}={driver.target.tags[DEPLOYMENT]}"

    def statuses(self) -> dict[str, Status]:
        """Ask the manager about all instances at once."""
        by_unit = self.driver.status(list(self.units.values()))
        return {name: by_unit[unit.name] for name, unit in self.units.items()}

    def status(self, name: str) -> Status:
        """Ask the manager about one instance."""
        return self.driver.status([self.units[name]])[self.units[name].name]

    def pids(self, name: str, status: Status) -> list[int]:
        """Return all processes of an instance, its main process first; none when it does not run."""
        if not status.running or status.pid is None:
            return []
        attribution = ProcessAttribution(self.machine, self.driver.target, {status.pid: name})
        table = self.machine.processes.parents()
        below = descendants([status.pid], table)
        # What stands above the main process is its manager's, like a foreground proxy.
        above = set(ancestors(status.pid, table))
        orphans = [pid for pid in self.strays() if pid not in above and attribution.owner(pid) == name]
        members = self.driver.members(self.units[name])
        return list(dict.fromkeys([status.pid, *below, *orphans, *members]))

    def ports(self, name: str, status: Status) -> set[int]:
        """Return the TCP ports that an instance's processes listen on, or that are forwarded to them."""
        pids = set(self.pids(name, status))
        found = listeners(self.driver, {self.units[name].name: status}, pids)
        return {listener.port for listener in found if listener.pid in pids and listener.protocol == "tcp"}

    def address(self, name: str, endpoint: Endpoint) -> tuple[str, int]:
        """Return the host and port at which the tests reach an endpoint of an instance.

        Where several of the machine's addresses lead to its port, it is the first at which the instance itself listens.
        """
        hosts = Answers(self.machine.network).hosts(endpoint) if self.machine.lifecycle.is_up else endpoint.hosts(())
        if len(hosts) > 1:
            answers = [Answer(name, host, endpoint.port) for host in hosts]
            others = strangers(self.driver, self.units, {name: self.status(name)}, answers)
            hosts = tuple(answer.host for answer in answers if answer not in others) or hosts
        return self.machine.address(endpoint.port, hosts[0])

    def unanswered(
        self, endpoints: Iterable[tuple[str, Endpoint]], statuses: Mapping[str, Status]
    ) -> dict[tuple[str, Endpoint], str]:
        """Return those of some instances' TCP endpoints at which they do not answer, each with the reason."""
        answers = Answers(self.machine.network)
        problems = {(name, endpoint): answers.problem(name, endpoint) for name, endpoint in endpoints}
        others = strangers(self.driver, self.units, statuses, answers.given)
        foreign = {(answer.instance, answer.port): reason for answer, reason in others.items()}
        found = {key: problem or foreign.get((key[0], key[1].port), "") for key, problem in problems.items()}
        return {key: problem for key, problem in found.items() if problem}

    def strays(self) -> list[int]:
        """Return the deployment's processes; those that another process has started are found by their tag."""
        return self.machine.processes.tagged(self.tag) if self.is_guest else self.driver.strays(self.tag)
