"""The labels by which containers and images say whose they are: engines are shared, and outlive everybody.

What an engine has is told by labels alone, never by names: by the deployment and its directory, and by its owner.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from pytest_nixproc.errors import NixprocError
from pytest_nixproc.managers.api import Belonging
from pytest_nixproc.managers.docker.engine import FIRST_ANSWER_SECONDS, address, answering, connect
from pytest_nixproc.managers.docker.generator import LABEL
from pytest_nixproc.values.target import Target

if TYPE_CHECKING:
    from docker import DockerClient

OWNER: Final = f"{LABEL}.owner"
ROOT: Final = f"{LABEL}.root"
WHOSE: Final = ("user", "host")
"""What has to be the same in two owners for one to be the other's heir."""


def owner_labels(target: Target) -> dict[str, str]:
    """Return the labels that only a deployment on this machine has, which no file of it holds."""
    return {OWNER: target.owner} if target.owner else {}


def labels_of(target: Target) -> dict[str, str]:
    """Return the labels of an image."""
    return {LABEL: target.identity, ROOT: os.path.dirname(target.directory), **owner_labels(target)}


def is_of(labels: Mapping[str, str] | None, target: Target) -> bool:
    """Tell whether an object is of a deployment: not of one that only has its name, of other users or machines."""
    found = labels or {}
    if found.get(LABEL) != target.identity:
        return False
    theirs, ours = whose(found.get(OWNER, "")), whose(target.owner)
    return not theirs or not ours or theirs == ours


def whose(owner: str) -> tuple[object, ...]:
    """Return what tells heirs from strangers; nothing for what earlier versions have made."""
    with suppress(ValueError, TypeError):
        facts = json.loads(owner)
        return tuple(facts[name] for name in WHOSE if name in facts)
    return ()


def belongings() -> list[Belonging]:
    """Return the containers and images that any deployment has in the engine of the environment, if that answers."""
    if not find_spec("docker"):
        return []
    environment = os.environ
    with suppress(NixprocError, ValueError), closing(connect(environment, FIRST_ANSWER_SECONDS)) as client:
        return reached(client, address(environment))
    return []


def reached(client: DockerClient, where: str) -> list[Belonging]:
    """Return what an engine has; raises :class:`~pytest_nixproc.errors.Unreachable`."""
    with answering(where):
        return [*containers(client), *images(client)]


def containers(client: DockerClient) -> Iterator[Belonging]:
    """Yield the containers that carry our label."""
    for facts in client.api.containers(all=True, filters={"label": LABEL}):
        name = (facts["Names"] or [facts["Id"]])[0].removeprefix("/")
        remove = partial(with_client, "remove_container", facts["Id"], force=True, v=True)
        yield belonging(f"container {name}", facts, f"docker rm --force --volumes {name}", remove)


def images(client: DockerClient) -> Iterator[Belonging]:
    """Yield the images that carry our label."""
    for facts in client.api.images(filters={"label": LABEL}):
        name = next(iter(facts["RepoTags"] or ()), facts["Id"])
        remove = partial(with_client, "remove_image", facts["Id"], force=True)
        yield belonging(f"image {name}", facts, f"docker rmi --force {name}", remove)


def belonging(name: str, facts: Mapping[str, Any], remedy: str, remove: Callable[[], None]) -> Belonging:
    """Return an object of the engine, by its labels."""
    labels = facts["Labels"] or {}
    return Belonging(name, str(labels.get(ROOT, "")), str(labels.get(OWNER, "")), remedy, remove)


def with_client(verb: str, *arguments: object, **keywords: object) -> None:
    """Ask the engine of the environment for one thing; what is gone already is no error."""
    from docker.errors import APIError, NotFound

    with closing(connect(os.environ)) as client, answering(address(os.environ)), suppress(NotFound):
        try:
            getattr(client.api, verb)(*arguments, **keywords)
        except NotFound:
            raise
        except APIError as error:
            raise NixprocError(str(error.explanation or error)) from error
