"""The engine: where it is, whether it can be used, and errors in words.

It is found as Docker's own clients find it: by ``DOCKER_HOST``, else by the current context, else by its usual
sockets, that of the system first and that of a rootless engine next.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pytest_nixproc.errors import NixprocError, Unreachable

if TYPE_CHECKING:
    from docker import DockerClient

SYSTEM_SOCKET: Final = "/var/run/docker.sock"
VARIABLES: Final = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "HOME")
"""The variables that lead to the engine; a deployment keeps them, so that others find the same one."""

ANSWER_SECONDS: Final = 10
FIRST_ANSWER_SECONDS: Final = 3
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1", "")
REMEDY: Final = "start the engine, let DOCKER_HOST name it, or join the group of its socket"


def address(environment: Mapping[str, str]) -> str:
    """Return the URL of the engine: the configured one, else the system's, else that of the user's rootless engine."""
    if given := environment.get("DOCKER_HOST") or address_of_context(environment):
        return given
    own = os.path.join(environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", "docker.sock")
    is_own = os.path.exists(own) and not os.path.exists(SYSTEM_SOCKET)
    return f"unix://{own if is_own else SYSTEM_SOCKET}"


def address_of_context(environment: Mapping[str, str]) -> str:
    """Return the address in the current context; empty for the default one, which has none of its own."""
    from docker.context import ContextAPI

    name = environment.get("DOCKER_CONTEXT")
    try:
        context = ContextAPI.get_context(name) if name else ContextAPI.get_current_context()
    except Exception as error:
        # The SDK raises just this for a broken context.
        raise NixprocError(f"the Docker context cannot be read: {error}", remedy="see docker context ls") from error
    if name and context is None:
        raise NixprocError(f"there is no Docker context {name!r}, which DOCKER_CONTEXT names", remedy="unset it")
    return "" if context is None or context.Name == "default" else str(context.Host or "")


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that lead to the same engine from any other process."""
    where = address(environment)
    found = {name: environment[name] for name in VARIABLES if name in environment}
    return found | ({"DOCKER_HOST": where} if where.startswith("unix:") else {})


def connect(environment: Mapping[str, str], seconds: int = ANSWER_SECONDS, version: str = "") -> DockerClient:
    """Return a client of the engine that uses a given version of the API, or else the newest that the engine has.

    Raises :class:`~pytest_nixproc.errors.Unreachable`.
    """
    from docker import DockerClient
    from docker.constants import DEFAULT_DOCKER_API_VERSION

    where, found = address(environment), settings(environment)
    # The SDK can do this alone, and leaves sockets open when it fails, which are warnings in somebody's test.
    with answering(where):
        if where.startswith("unix:///"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(seconds)
                probe.connect(urlsplit(where).path)
        if not version:
            asking = DockerClient.from_env(environment=found, timeout=seconds, version=DEFAULT_DOCKER_API_VERSION)
            with closing(asking):
                version = newest_version(asking, where)
        client: DockerClient = DockerClient.from_env(environment=found, timeout=seconds, version=version)
    return client


def newest_version(client: DockerClient, where: str) -> str:
    """Return the newest version of the API that an engine speaks."""
    from docker.errors import APIError, DockerException

    try:
        version = str(client.version(api_version=False)["ApiVersion"])
    except APIError as error:
        brief = f"the Docker engine at {where} refuses to answer"
        raise Unreachable(brief, details=str(error.explanation), remedy=REMEDY) from error
    except (KeyError, TypeError):
        version = ""
    if not re.fullmatch(r"\d+\.\d+", version):
        raise DockerException("what answers is no Docker engine")
    return version


@contextmanager
def answering(where: str) -> Iterator[None]:
    """Raise one kind of error for every way in which an engine does not answer."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except APIError:
        raise
    except (DockerException, RequestException, HTTPError, OSError) as error:
        brief = f"the Docker engine at {where} does not answer"
        raise Unreachable(brief, details=cause_of(error), remedy=REMEDY) from error


def cause_of(error: BaseException) -> str:
    """Return the innermost reason of an error: libraries wrap it in the names of their classes."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def unavailable_reason() -> str:
    """Return why no engine can be used here, with the remedy; an empty text if one can."""
    if not find_spec("docker"):
        return "the Docker SDK is not installed: pip install docker"
    from docker.errors import APIError

    try:
        where = address(os.environ)
        if (urlsplit(where).hostname or "") not in LOCAL_HOSTS:
            return (
                f"the engine at {where} is on another machine, and cannot mount our state: let DOCKER_HOST name another"
            )
        client = connect(os.environ, FIRST_ANSWER_SECONDS)
        with closing(client), answering(where):
            system = client.version().get("Os")
            return "" if system == "linux" else f"the engine runs {system} containers, and Linux ones are needed"
    except (APIError, NixprocError) as error:
        return "; ".join(str(error).splitlines())
    except ValueError as error:
        return f"{where} is no address of an engine: {error}; let DOCKER_HOST name another"
