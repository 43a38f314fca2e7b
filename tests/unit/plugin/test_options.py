"""Values of options: what is read, and which nonsense is a usage error that names the option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_nixproc._plugin import options
from pytest_nixproc._plugin.matrix import Matrix
from pytest_nixproc._plugin.models import of_list
from pytest_nixproc._registry import Registry


@pytest.mark.parametrize(
    ("name", "text", "read", "message"),
    [
        ("scope", "galaxy", options.read, "--nixproc-scope=galaxy: choose one of session"),
        ("network", "none", options.read, "--nixproc-network=none: choose one of host, private"),
        ("start-timeout", "soon", options.read_seconds, "--nixproc-start-timeout=soon: give a positive number"),
        ("stop-timeout", "-1", options.read_seconds, "--nixproc-stop-timeout=-1: give a positive number"),
        ("stop-timeout", "inf", options.read_seconds, "--nixproc-stop-timeout=inf: give a positive number"),
        ("param", "port", options.read_params, "--nixproc-param=port: write NAME=VALUE"),
        ("vary", "colour", options.read_params, "--nixproc-vary=colour: write NAME=VALUE"),
    ],
)
def test_nonsense_names_the_option(
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    text: str,
    read: Callable[[pytest.Config, str], Any],
    message: str,
) -> None:
    """A value that makes no sense is a usage error that names option and value, and says what is allowed."""
    monkeypatch.setenv(options.BY_NAME[name].variable, text)
    with pytest.raises(pytest.UsageError) as caught:
        read(pytestconfig, name)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("manager", "unknown process manager 'moon'"),
        ("require", "unknown process manager 'moon'"),
        ("machine", "unknown machine 'moon'"),
    ],
)
def test_unknown_names(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    """What nobody has registered is a usage error that names it."""
    monkeypatch.setenv(options.BY_NAME[name].variable, "moon")
    with pytest.raises(pytest.UsageError, match=message):
        Matrix(pytestconfig, Registry()).refuse_missing()


@pytest.mark.parametrize("kind", ["xml", ""])
def test_format_of_findings_that_is_unknown(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A format that findings cannot be written in is a usage error."""
    monkeypatch.setenv("NIXPROC_FINDINGS", kind)
    with pytest.raises(pytest.UsageError, match=f"--nixproc-findings={kind}: choose one of text, json, sarif"):
        options.read_findings(pytestconfig)


def test_directory_of_a_report_that_is_missing() -> None:
    """A report cannot be written where there is no directory."""
    with pytest.raises(pytest.UsageError, match="--nixproc-findings: there is no directory /nowhere"):
        options.refuse_missing_directory("/nowhere/found.json")


@pytest.mark.parametrize("text", ["servers.py", "servers.py:", ":server", "servers.py:a b", "servers.py:web..server"])
def test_constructor_that_is_not_named(text: str) -> None:
    """A constructor is named by its file and a path of names in it."""
    with pytest.raises(pytest.UsageError, match=f"--nixproc-constructor={text}: write FILE:NAME"):
        options.file_and_name(text)


@pytest.mark.parametrize(
    ("text", "parts"), [("a:b.py:web.my-server", ("a:b.py", "web.my-server")), (" x.py:f ", ("x.py", "f"))]
)
def test_constructor_that_is_named(text: str, parts: tuple[str, str]) -> None:
    """A file's name may hold colons, that of a constructor hyphens, as in Nix."""
    assert options.file_and_name(text) == parts


@pytest.mark.parametrize(("value", "values"), [([1, 2], [1, 2]), (5, [5]), ("12", ["12"])])
def test_value_that_is_no_list(value: object, values: list[object]) -> None:
    """What varies over a single value is given as one, which a trial refuses, and never taken apart."""
    assert of_list(value) == values
