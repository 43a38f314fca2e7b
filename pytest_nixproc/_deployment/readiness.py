"""The test whether an instance is ready: conditions are data, and are applied to the machine here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import singledispatchmethod
from typing import Any, Final

from pytest_nixproc._deployment.context import Subject
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.values.commands import Spawn, describe_failure

HTTP_SECONDS: Final = 2.0
COMMAND_SECONDS: Final = 10.0


def condition_of(instance: Instance) -> ready.Condition | None:
    """Return the condition of an instance: the declared one, else that its ports accept connections, else None."""
    declared: ready.Condition | None = instance.attributes.get("ready")
    ports = tuple(ready.tcp(port) for port in instance.declared_ports.values())
    return declared or (ready.AllOf(ports) if ports else None)


class ReadinessChecker:
    """The checker of conditions on one machine."""

    def __init__(self, machine: Machine, environment: Mapping[str, str]) -> None:
        self.machine = machine
        self.environment = environment

    @singledispatchmethod
    def unmet(self, condition: Any, subject: Subject) -> str:  # noqa: ARG002 - each condition has its own look
        """Return why a condition does not hold yet, or an empty text."""
        raise TypeError(f"{condition!r} is no condition")

    @unmet.register
    def _all_of(self, condition: ready.AllOf, subject: Subject) -> str:
        for part in condition.conditions:
            if unmet := self.unmet(part, subject):
                return unmet
        return ""

    @unmet.register
    def _any_of(self, condition: ready.AnyOf, subject: Subject) -> str:
        texts = []
        for part in condition.conditions:
            if not (unmet := self.unmet(part, subject)):
                return ""
            texts.append(unmet)
        return " and ".join(texts)

    @unmet.register
    def _tcp_port(self, condition: ready.TcpPort, subject: Subject) -> str:  # noqa: ARG002
        problem = self.machine.network.connection_problem((condition.host, condition.port))
        return problem and f"{condition}: {problem}"

    @unmet.register
    def _unix_socket(self, condition: ready.UnixSocket, subject: Subject) -> str:  # noqa: ARG002
        problem = self.machine.network.connection_problem(condition.path)
        return problem and f"{condition}: {problem}"

    @unmet.register
    def _file(self, condition: ready.FileExists, subject: Subject) -> str:  # noqa: ARG002
        return "" if self.machine.files.exists(condition.path) else f"{condition} does not exist"

    @unmet.register
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

    @unmet.register
    def _log_line(self, condition: ready.LogLine, subject: Subject) -> str:
        return "" if re.search(condition.pattern, subject.log, re.MULTILINE) else f"{condition} not seen"

    @unmet.register
    def _command(self, condition: ready.CommandSucceeds, subject: Subject) -> str:  # noqa: ARG002
        # The shell finds the program in the environment's PATH.
        spawn = Spawn((self.machine.facts.shell, "-c", 'exec "$@"', "sh", *condition.argv), self.environment)
        status, _ = self.machine.processes.capture(spawn, self.machine.deadline(COMMAND_SECONDS))
        return "" if status == 0 else f"command {describe_failure(condition.argv, status)}"

    @unmet.register
    def _holds(self, condition: ready.Holds, subject: Subject) -> str:
        function: Callable[[Any], object] = condition.function
        return "" if function(subject) else f"{condition} does not hold"
