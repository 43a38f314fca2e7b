"""Conditions of readiness as values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_nixproc.model import ready

A, B, C = ready.tcp(1), ready.tcp(2), ready.tcp(3)


def test_operators_combine() -> None:
    """``&`` asks for both conditions, ``|`` for one of them, and they nest as Python reads them."""
    assert ready.AllOf((A, B)) == A & B
    assert ready.AnyOf((A, B)) == A | B
    assert ready.AnyOf((A, ready.AllOf((B, C)))) == A | B & C


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (ready.tcp(80), "port 80"),
        (ready.udp(53), "UDP port 53"),
        (ready.unix_socket(Path("/s")), "socket /s"),
        (ready.file("/f"), "file /f"),
        (ready.http("/health"), "HTTP answer of /health"),
        (ready.log("up"), "log line 'up'"),
        (ready.command("ls", "-l"), "success of ls -l"),
        (ready.when(print), "print()"),
        ((A | B) & C, "(port 1 or port 2) and port 3"),
    ],
)
def test_conditions_say_what_they_are(condition: ready.Condition, text: str) -> None:
    """The text of a condition completes "waited for"."""
    assert str(condition) == text


@pytest.mark.parametrize(
    ("value", "condition"),
    [
        ({"tcp": 80}, ready.AllOf((ready.tcp(80),))),
        ({"udp": 53}, ready.AllOf((ready.udp(53),))),
        ({"unixSocket": "/s"}, ready.AllOf((ready.unix_socket("/s"),))),
        ({"http": "/x", "log": "up"}, ready.AllOf((ready.http("/x"), ready.log("up")))),
        ({"command": ["ls", "/"]}, ready.AllOf((ready.command("ls", "/"),))),
        ([{"file": "/f"}], ready.AllOf((ready.AllOf((ready.file("/f"),)),))),
        (
            {"any": [{"tcp": 1}, {"tcp": 2}]},
            ready.AllOf((ready.AnyOf((ready.AllOf((ready.tcp(1),)), ready.AllOf((ready.tcp(2),)))),)),
        ),
    ],
)
def test_conditions_of_configuration_files(value: object, condition: ready.Condition) -> None:
    """A mapping or a list asks for all of its entries, ``any`` for one of them."""
    assert ready.from_config(value) == condition


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (5, "is 5; conditions are tcp, "),
        ("tcp", "is 'tcp'; conditions are tcp, "),
        ({}, "is {}; conditions are tcp, "),
        ([], "is []; conditions are tcp, "),
        ({"tpc": 80}, "is {'tpc': 80}; conditions are tcp, "),
        ({"any": [5]}, "is 5; conditions are tcp, "),
        ({"any": []}, "holds [], which is not a list"),
        ({"tcp": "80"}, "holds '80', which is not a number"),
        ({"tcp": True}, "holds True, which is not a number"),
        ({"file": 5}, "holds 5, which is not text"),
        ({"http": 5}, "holds 5, which is not text"),
        ({"log": "("}, "is {'log': '('}; its pattern is no regular expression: missing )"),
        ({"command": "ls"}, "holds 'ls', which is not a list"),
        ({"command": []}, "holds [], which is not a list"),
    ],
)
def test_what_is_no_condition_is_refused(value: object, reason: str) -> None:
    """A value that is no condition, or would hold in any case or in none, is refused with its reason."""
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        ready.from_config(value)


def test_refusal_shows_value_and_choice() -> None:
    """The refusal shows the value and the kinds of condition."""
    with pytest.raises(
        ValueError, match=r"is \{'tpc': 80\}; conditions are tcp, udp, unixSocket, file, http, log, command, any"
    ):
        ready.from_config({"tpc": 80})
