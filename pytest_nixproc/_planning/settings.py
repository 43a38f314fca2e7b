"""The settings of deployments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field
from typing import Any

from pytest_nixproc.sources.loader import ModelLoader
from pytest_nixproc.values.value import Value


def silent(_: str) -> None:
    """Report nothing."""


def forget(_: Iterable[str]) -> None:
    """Keep nothing in mind."""


class Settings(Value, kw_only=True):
    """The settings of deployments."""

    state_root: str | None = None
    """Directory in which deployments are made; None for the default one."""

    start_seconds: float = 30.0
    """Time for the start of each instance."""

    stop_seconds: float = 10.0
    """Time for the stop of each instance."""

    selected_rules: frozenset[str] = frozenset()
    """Codes of the checks to apply, or beginnings of codes; if empty, all are applied."""

    ignored_rules: frozenset[str] = frozenset()
    """Codes of the checks to leave out, or beginnings of codes."""

    params: Mapping[str, Any] = field(default_factory=dict)
    """The user's own arguments for models."""

    privileged: bool = False
    """Whether accounts are created and users switched; the machine has to be one that may be polluted."""

    keep_failed: bool = False
    """Whether the state of a deployment is kept that could not be brought up."""

    tolerant: bool = False
    """Whether a deployment comes up in spite of findings about the running system."""

    progress: Callable[[str], None] = silent
    """Called with a line of text now and then, while a deployment takes long."""

    confide: Callable[[Iterable[str]], None] = forget
    """Called with the secrets of each model, before anything is said about it, by who prints texts for people."""

    uninterrupted: Callable[[], AbstractContextManager[None]] = nullcontext
    """Makes the context in which a teardown runs to its end."""

    build_seconds: float = 600.0
    """Time for a program that reads or builds a model."""

    may_download: bool = False
    """Whether such a program may fetch files that this machine does not have."""

    cache: str | None = None
    """Directory for results of such programs that are worth keeping; None where nothing is kept."""

    id_resources: str = ""
    """File of pools that replaces the one beside a model."""

    ids_file: str = ""
    """File of ids that replaces the one beside a model."""

    model_loader: ModelLoader = field(default_factory=ModelLoader)
    """Loads the model that a running system is upgraded to."""
