"""Scripts of test definitions: what they begin with, how often they run, and how their failures read."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pytest_nixproc._system.nixos_driver.scripts import ScriptRun, execute, names_for
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import CommandFailed, ScriptError
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Script, Scripted
from pytest_nixproc.testing.fake_machine import FakeMachine


class Stand:
    """As much of a system as a run of scripts looks at."""

    def __init__(self) -> None:
        self.machine = FakeMachine()
        self.is_unprivileged = False
        self.root = "/srv/a"


def script(text: str, phase: str = "tests", instance: str = "web", *, needed: bool = False) -> Script:
    """Return a script that stands in line 7 of a file."""
    return Script(phase, instance, text, "/m/suite.nix:7", needed)


def run_of(*scripts: Script) -> ScriptRun:
    """Return a run of scripts."""
    return ScriptRun(cast("System", Stand()), Scripted(ProcessesModel({}), scripts, ()), 1.0)


def error_of(text: str, **names: Any) -> str:
    """Return what a failing script says."""
    with pytest.raises(ScriptError) as error:
        execute(script(text), {"__name__": "x", **names})
    return str(error.value)


def fail(reason: str) -> None:
    """Fail as a verb does."""
    raise CommandFailed(reason, details="its output", remedy="do it well")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "fail('no')",
            "line 1: no\n    fail('no')\nits output\nfix: do it well",
        ),
        ("x = 1\nassert x == 2, 'odd'", "line 2: AssertionError: odd\n    assert x == 2, 'odd'"),
        ("assert False", "line 1: AssertionError\n    assert False"),
        ("    indented = 1\n    nothing\n", "line 2: NameError: name 'nothing' is not defined\n    nothing"),
        (
            "if True:\n    for i in [1]:\n        fail(\n            'no'\n        )\n",
            "line 3: no\n    fail(\n        'no'\n    )",
        ),
        ("for i in 5:\n    pass", "line 1: TypeError: 'int' object is not iterable\n    for i in 5:"),
        ("def f():\n    fail('no')\n\nf()", "line 2: no\n    fail('no')"),
        ("(lambda: 1 / 0)()", "line 1: ZeroDivisionError: division by zero\n    (lambda: 1 / 0)()"),
        ("raise SystemExit(3)", "line 1: SystemExit: 3\n    raise SystemExit(3)"),
        ("x = (1,\n\n", "line 1: SyntaxError: '(' was never closed\n    x = (1,"),
        ("x = 'a\0b'", "line 1: "),
        ("", ""),
    ],
)
def test_failures(text: str, expected: str) -> None:
    """A failure names file, script, line and what happened, then the whole statement, and what a verb has said."""
    if not text:
        execute(script(text), {})
        return
    said = error_of(text, fail=fail)
    assert said.startswith(f"/m/suite.nix:7: tests of web, {expected}")


def test_interruption_is_no_failure() -> None:
    """Who interrupts the tests interrupts a script."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(script("interrupt()"), {"interrupt": interrupt})


def test_names_to_begin_with(capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts find what the driver gives them; parts have names, which are told at a failure."""
    text = "start_all()\njoin_all()\nserial_stdout_off()\nserial_stdout_on()\nassert machines == [machine]\n"
    names = names_for(cast("Any", "the machine"))
    execute(script(f"{text}with subtest('first'):\n    pass"), names)
    assert capsys.readouterr().out == "subtest: first\n"
    said = error_of("with subtest('outer'), subtest('inner'):\n    1 / 0", **names)
    assert said.endswith("    1 / 0\nin the subtest: inner\nin the subtest: outer")


def test_scripts_share_their_names() -> None:
    """What one script has defined, the next can use, as in the one script of the driver."""
    first, second = script("x = 5", "readiness"), script("assert x == 5")
    run = run_of(first, second)
    run.run(first)
    run.run(second)


def test_each_script_runs_once() -> None:
    """A script that others need is not run again by its own item, which fails as it did the first time."""
    initial = script("log = ['initial']", "initialTests", "", needed=True)
    ready = script("log.append('ready'); 1 / 0", "readiness", "web", needed=True)
    other = script("log.append('other')", "readiness", "other", needed=True)
    test, post = (
        script("log.append('test')"),
        script("assert log == ['initial', 'other', 'ready'], log", "postTests", ""),
    )
    run = run_of(initial, ready, other, test, post)
    assert run.blocked_by(other) is None
    run.run(other)
    assert run.blocked_by(test) == run.blocked_by(post) == ready
    for _ in range(2):
        with pytest.raises(ScriptError, match="readiness of web, line 1: ZeroDivisionError"):
            run.run(ready)
    run.run(post)
    assert run.script("tests", "web") == test
    assert run.script("tests", "nobody") is None
