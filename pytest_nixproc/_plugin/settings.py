"""The settings of deployments, as the options of pytest choose them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress

import pytest

from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._plugin import options
from pytest_nixproc._registry import Registry
from pytest_nixproc.checks.api import Rule, chosen
from pytest_nixproc.errors import NixprocError


def settings_of(
    config: pytest.Config,
    progress: Callable[[str], None],
    confide: Callable[[Iterable[str]], None],
    uninterrupted: Callable[[], AbstractContextManager[None]],
) -> Settings:
    """Return the settings that the options ask for."""
    return Settings(
        state_root=options.read(config, "state-root") or None,
        start_seconds=options.read_seconds(config, "start-timeout"),
        stop_seconds=options.read_seconds(config, "stop-timeout"),
        selected_rules=frozenset(options.read_names(config, "select")),
        ignored_rules=frozenset(options.read_names(config, "ignore")),
        params=options.read_params(config),
        keep_failed=options.read(config, "keep") != "never",
        progress=progress,
        confide=confide,
        uninterrupted=uninterrupted,
        build_seconds=options.read_seconds(config, "build-timeout"),
        may_download=options.read_flag(config, "download"),
        cache=cache_of(config),
        id_resources=options.read_path(config, "id-resources"),
        ids_file=options.read_path(config, "ids"),
    )


def cache_of(config: pytest.Config) -> str | None:
    """Return our directory in pytest's cache, which all workers share; None where there is none that we can write."""
    cache: pytest.Cache | None = getattr(config, "cache", None)
    with suppress(OSError):
        directory = str(cache.mkdir("nixproc")) if cache is not None else None
        return directory if directory and os.access(directory, os.W_OK | os.X_OK) else None
    return None


def rules_of(registry: Registry, settings: Settings) -> list[Rule]:
    """Return the rules that the options choose; raises a usage error for codes that no rule has."""
    try:
        return chosen(registry.rules, settings.selected_rules, settings.ignored_rules)
    except NixprocError as error:
        raise pytest.UsageError(str(error)) from error
