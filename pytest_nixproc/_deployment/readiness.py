"""The test whether an instance is ready: conditions are data, and are applied to the machine here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import singledispatchmethod
from typing import Any, Final
from urllib.parse import urlsplit

from pytest_nixproc._deployment.context import Subject
from pytest_nixproc._inspection.answers import Answers, main_endpoint
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.shielding import in_calling_thread
from pytest_nixproc.model import ready
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.values.addresses import canonical, is_known, reached_at, url_of
from pytest_nixproc.values.commands import Spawn, describe_failure
from pytest_nixproc.values.value import Value

HTTP_SECONDS: Final = 2.0
COMMAND_SECONDS: Final = 10.0
SCHEMES: Final = {"http": 80, "https": 443}
"""The ports of URLs that name none."""


def reads_log(condition: ready.Condition | None) -> bool:
    """Tell whether a condition, or a part of it, is about the log."""
    if isinstance(condition, ready.AllOf | ready.AnyOf):
        return any(map(reads_log, condition.conditions))
    return isinstance(condition, ready.LogLine)


def condition_of(instance: Instance) -> ready.Condition | None:
    """Return the condition of an instance: the declared one, else that its ports accept connections, else None."""
    declared: ready.Condition | None = instance.attributes.get("ready")
    ports = tuple(ready.tcp(port) for port in dict.fromkeys(instance.declared_ports.values()))
    return declared or (ready.AllOf(ports) if ports else None)


class Candidate(Value):
    """An instance whose condition is looked at, in one round of looks at several."""

    name: str
    instance: Instance
    subject: Subject
    answers: Answers
    """The answers of the round."""

    log: Callable[[], str]
    """Returns what it has logged since its start; its ``subject`` has what it logged before, too."""


class ReadinessChecker:
    """The checker of conditions on one machine.

    Where an instance's own port has answered, the candidate's answers have that: whose it was is still to be seen.
    """

    def __init__(self, machine: Machine, environment: Mapping[str, str]) -> None:
        self.machine = machine
        self.environment = environment

    @singledispatchmethod
    def unmet(self, condition: Any, candidate: Candidate) -> str:  # noqa: ARG002 - each condition has its own look
        """Return why a condition does not hold yet, or an empty text."""
        raise TypeError(f"{condition!r} is no condition")

    @unmet.register
    def _all_of(self, condition: ready.AllOf, candidate: Candidate) -> str:
        for part in condition.conditions:
            if unmet := self.unmet(part, candidate):
                return unmet
        return ""

    @unmet.register
    def _any_of(self, condition: ready.AnyOf, candidate: Candidate) -> str:
        texts = []
        for part in condition.conditions:
            if not (unmet := self.unmet(part, candidate)):
                return ""
            texts.append(unmet)
        return " and ".join(texts)

    @unmet.register
    def _tcp_port(self, condition: ready.TcpPort, candidate: Candidate) -> str:
        problem = self._connection_problem(condition, candidate)
        return problem and f"{condition}: {problem}"

    def _connection_problem(self, condition: ready.TcpPort, candidate: Candidate) -> str:
        port, host, own = condition.port, condition.host, candidate.instance.endpoints_of(condition.port)
        if host:
            if own and is_known(host):
                return candidate.answers.first_problem(candidate.name, port, map(canonical, reached_at(host)))
            return self.machine.network.connection_problem((host, port))
        if not own:
            # Somebody else's, maybe: nobody says that it is the instance's.
            return Answers(self.machine.network).problem(candidate.name, Endpoint("", port))
        problems = (candidate.answers.problem(candidate.name, endpoint) for endpoint in own)
        return next(filter(None, problems), "")

    @unmet.register
    def _udp_port(self, condition: ready.UdpPort, candidate: Candidate) -> str:
        problem = candidate.answers.udp_problem(candidate.name, condition.port)
        return problem and f"{condition}: {problem}"

    @unmet.register
    def _unix_socket(self, condition: ready.UnixSocket, candidate: Candidate) -> str:  # noqa: ARG002
        problem = self.machine.network.connection_problem(condition.path)
        return problem and f"{condition}: {problem}"

    @unmet.register
    def _file(self, condition: ready.FileExists, candidate: Candidate) -> str:  # noqa: ARG002
        return "" if self.machine.files.exists(condition.path) else f"{condition} does not exist"

    @unmet.register
    def _http(self, condition: ready.HttpAnswer, candidate: Candidate) -> str:
        problem = self._answer_problem(condition, candidate)
        return problem and f"{condition}: {problem}"

    def _answer_problem(self, condition: ready.HttpAnswer, candidate: Candidate) -> str:
        if condition.url.startswith("/"):
            endpoint = main_endpoint(candidate.name, candidate.instance)

            def ask(host: str) -> str:
                return http_problem(
                    url_of(*self.machine.address(endpoint.port, host)) + condition.url, condition.status
                )

            return candidate.answers.problem(candidate.name, endpoint, ask)

        # What the tests reach at an address is not on a machine with a network of its own.
        own = None if self.machine.spec.private_network else own_place(condition.url, candidate.instance)
        if own is None:
            return http_problem(condition.url, condition.status)
        return candidate.answers.first_problem(
            candidate.name, own[1], own[:1], lambda _: http_problem(condition.url, condition.status)
        )

    @unmet.register
    def _log_line(self, condition: ready.LogLine, candidate: Candidate) -> str:
        return "" if condition.is_in(candidate.log()) else f"{condition} not seen"

    @unmet.register
    def _command(self, condition: ready.CommandSucceeds, candidate: Candidate) -> str:  # noqa: ARG002
        # The shell finds the program in the environment's PATH.
        spawn = Spawn((self.machine.facts.shell, "-c", 'exec "$@"', "sh", *condition.argv), self.environment)
        status, _ = self.machine.processes.capture(spawn, self.machine.deadline(COMMAND_SECONDS))
        return "" if status == 0 else f"command {describe_failure(condition.argv, status)}"

    @unmet.register
    def _holds(self, condition: ready.Holds, candidate: Candidate) -> str:
        function: Callable[[Any], object] = condition.function
        return "" if in_calling_thread(lambda: function(candidate.subject)) else f"{condition} does not hold"


def own_place(url: str, instance: Instance) -> tuple[str, int] | None:
    """Return the address and the port of a URL, if it leads to a port of this host that an instance declares."""
    parts = urlsplit(url)
    with suppress(ValueError):
        port = parts.port or SCHEMES.get(parts.scheme, 0)
        if parts.hostname and is_known(parts.hostname) and instance.endpoints_of(port):
            return canonical(parts.hostname), port
    return None


def http_problem(url: str, status: int | None) -> str:
    """Ask an HTTP server; return why its answer is not the expected one, or an empty text."""
    import requests

    try:
        with requests.Session() as session:
            # Instances are ours: neither the environment's proxies nor its credentials are for them.
            session.trust_env = False
            found = session.get(url, timeout=HTTP_SECONDS, allow_redirects=False).status_code
    except requests.RequestException as error:
        return str(error)
    wanted = found < 400 if status is None else found == status
    return "" if wanted else f"status {found}"
