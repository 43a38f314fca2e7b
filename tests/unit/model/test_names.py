"""The two spellings of parameters, and names that are like others."""

from __future__ import annotations

import pytest

from pytest_nixproc.model.names import TYPING_ERROR, camel_case, did_you_mean, nearest, snake_case
from pytest_nixproc.model.process import ManagedProcess

PAIRS = [
    ("port", "port"),
    ("dnsName", "dns_name"),
    ("daemonExtraArgs", "daemon_extra_args"),
    ("foregroundProcessExtraArgs", "foreground_process_extra_args"),
]


@pytest.mark.parametrize(("camel", "snake"), PAIRS)
def test_spellings_correspond(camel: str, snake: str) -> None:
    """Each spelling gives the other, and stays as it is when it is the wanted one."""
    assert snake_case(camel) == snake
    assert snake_case(snake) == snake
    assert camel_case(snake) == camel


@pytest.mark.parametrize("name", ManagedProcess.PARAMETERS)
def test_every_parameter_survives_both_ways(name: str) -> None:
    """No two parameters fold into one on the way to the other spelling and back."""
    assert snake_case(camel_case(name)) == name


@pytest.mark.parametrize(
    ("spelled", "snake"), [("baseURL", "base_url"), ("HTTPPort", "http_port"), ("x2Port", "x2_port")]
)
def test_abbreviations_are_words(spelled: str, snake: str) -> None:
    """A run of capitals is one word, and the capital before a small letter begins the next."""
    assert snake_case(spelled) == snake


def test_nearest_name() -> None:
    """Of known names the one that is most like another is found, whatever their cases, if it is like it enough."""
    known = ["supervisord", "sysvinit", "s6-rc"]
    assert [nearest(name, known) for name in ("Supervsord", "sysv", "runit", "")] == [
        "supervisord",
        "sysvinit",
        None,
        None,
    ]
    assert nearest("sysv", known, TYPING_ERROR) is None
    assert (did_you_mean("s6rc", known), did_you_mean("zzz", known)) == ("did you mean 's6-rc'?", "")
