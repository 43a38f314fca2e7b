"""Secrets of a model in all that a session of pytest prints and writes: none of it shows a value."""

from __future__ import annotations

import fnmatch
import secrets

import pytest

MODEL = """
from pytest_nixproc import Instance, create_managed_process

TEXT = '''echo "connecting with $PASSWORD"; sh -c 'sleep 60; :' "$PASSWORD" & exec sleep 60'''


def processes():
    environment = {"PASSWORD": "PLACE"}
    server = create_managed_process(
        name="server", foreground_process="/bin/sh", args=["-c", TEXT, "/var/PLACE"], environment=environment
    )
    return {"server": Instance(server, secrets=["PASSWORD"], dsn="http://me:PLACE@localhost")}
"""
TESTS = """
def test_fails(nixproc_system):
    server = nixproc_system["server"]
    server.wait_for_log("connecting")
    print("told", server.dsn)
    try:
        server.stop()
    except Exception as error:
        raise AssertionError("it was not stopped") from error
"""
REPORTS = ("--junitxml=junit.xml", "--nixproc-findings=json:found.json")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            (),
            [
                "told http://me:********@*",
                "  | connecting with ********",
                "*left behind*: sh -c sleep 60; : ********",
            ],
        ),
        (("--nixproc-plan", "-v"), ["*pkg.args*= '/var/********' *", "    | export PASSWORD=********"]),
    ],
    ids=["failure", "plan"],
)
def test_nothing_shows_a_secret(pytester: pytest.Pytester, options: tuple[str, ...], expected: list[str]) -> None:
    """Log, output, errors, the command line of what is left behind, plan, findings and reports have masks instead."""
    secret = secrets.token_hex()
    pytester.makepyfile(model=MODEL.replace("PLACE", secret), test_it=TESTS)
    result = pytester.runpytest_subprocess("--nixproc-model=model.py", *options, "--showlocals", *REPORTS)
    lines = result.stdout.str().splitlines()
    assert [line for line in expected if not fnmatch.filter(lines, line)] == []
    written = [(pytester.path / name).read_text() for name in ("junit.xml", "found.json")]
    assert secret not in "\n".join([*lines, result.stderr.str(), *written])
