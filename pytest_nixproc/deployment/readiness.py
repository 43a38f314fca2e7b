"""Looking whether an instance is ready: conditions are data, here they are held against the machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import singledispatchmethod
from typing import Any, Final, Protocol

from pytest_nixproc.machines.api import Machine, Spawn, describe_failure
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance

HTTP_SECONDS: Final = 2.0
COMMAND_SECONDS: Final = 10.0


class Subject(Protocol):
    """What conditions look at: a running instance."""

    @property
    def url(self) -> str:
        """Where its own port answers HTTP."""

    @property
    def log(self) -> str:
        """What it has logged."""


def condition_of(instance: Instance) -> ready.Condition | None:
    """Return what has to hold for an instance: what it says, else that its ports accept connections, else nothing."""
    declared: ready.Condition | None = instance.attributes.get("ready")
    ports = tuple(ready.tcp(port) for port in instance.declared_ports.values())
    return declared or (ready.AllOf(ports) if ports else None)


class Looker:
    """Looks at conditions on one machine; each look returns what is missing, or an empty text."""

    def __init__(self, machine: Machine, environment: Mapping[str, str]) -> None:
        self.machine = machine
        self.environment = environment

    @singledispatchmethod
    def missing(self, condition: Any, subject: Subject) -> str:  # noqa: ARG002 - each condition has its own look
        """Return what is missing for a condition to hold."""
        raise TypeError(f"{condition!r} is no condition")

    @missing.register
    def _all_of(self, condition: ready.AllOf, subject: Subject) -> str:
        for part in condition.conditions:
            if missing := self.missing(part, subject):
                return missing
        return ""

    @missing.register
    def _any_of(self, condition: ready.AnyOf, subject: Subject) -> str:
        texts = []
        for part in condition.conditions:
            if not (missing := self.missing(part, subject)):
                return ""
            texts.append(missing)
        return " and ".join(texts)

    @missing.register
    def _tcp_port(self, condition: ready.TcpPort, subject: Subject) -> str:  # noqa: ARG002
        problem = self.machine.connection_problem((condition.host, condition.port))
        return problem and f"{condition}: {problem}"

    @missing.register
    def _unix_socket(self, condition: ready.UnixSocket, subject: Subject) -> str:  # noqa: ARG002
        problem = self.machine.connection_problem(condition.path)
        return problem and f"{condition}: {problem}"

    @missing.register
    def _file(self, condition: ready.FileExists, subject: Subject) -> str:  # noqa: ARG002
        return "" if self.machine.exists(condition.path) else f"{condition} does not exist"

    @missing.register
    def _http(self, condition: ready.HttpAnswer, subject: Subject) -> str:
        import requests

        url = subject.url + condition.url if condition.url.startswith("/") else condition.url
        try:
            with requests.Session() as session:
                # Instances are ours: neither the environment's proxies nor its credentials are for them.
                session.trust_env = False
                status = session.get(url, timeout=HTTP_SECONDS, allow_redirects=False).status_code
        except requests.RequestException as error:
            return f"{condition}: {error}"
        wanted = status < 400 if condition.status is None else status == condition.status
        return "" if wanted else f"{condition}: status {status}"

    @missing.register
    def _log_line(self, condition: ready.LogLine, subject: Subject) -> str:
        return "" if re.search(condition.pattern, subject.log, re.MULTILINE) else f"{condition} not seen"

    @missing.register
    def _command(self, condition: ready.CommandSucceeds, subject: Subject) -> str:  # noqa: ARG002
        # The shell finds the program in the environment's PATH.
        spawn = Spawn((self.machine.facts.shell, "-c", 'exec "$@"', "sh", *condition.argv), self.environment)
        status, _ = self.machine.capture(spawn, self.machine.deadline(COMMAND_SECONDS))
        return "" if status == 0 else f"command {describe_failure(condition.argv, status)}"

    @missing.register
    def _holds(self, condition: ready.Holds, subject: Subject) -> str:
        function: Callable[[Any], object] = condition.function
        return "" if function(subject) else f"{condition} does not hold"
