"""Scripts of test definitions, run against a system that is up."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import dedent, indent
from types import CodeType
from typing import Any

from pytest_nixproc.deployment.driver_verbs import DriverMachine, say
from pytest_nixproc.deployment.system import System
from pytest_nixproc.errors import NixprocError, ScriptError
from pytest_nixproc.sources.api import Script, Scripted


def title_of(script: Script) -> str:
    """Return what a script is called in messages."""
    return f"{script.phase} of {script.instance}" if script.instance else script.phase


class ScriptRun:
    """The scripts of one system: each runs at most once, and all share their global names, like the driver's one."""

    def __init__(self, system: System, scripted: Scripted, wait_seconds: float) -> None:
        self.system = system
        self._scripts = scripted.scripts
        self._outcomes: dict[Script, ScriptError | None] = {}
        self._names = names_for(DriverMachine(system, scripted.path, wait_seconds))

    def script(self, phase: str, instance: str) -> Script | None:
        """Return the script of a phase and instance, if it says anything."""
        return next((one for one in self._scripts if (one.phase, one.instance) == (phase, instance)), None)

    def blocked_by(self, script: Script) -> Script | None:
        """Run what has to have run before a script; return the first of it that has failed."""
        before = self._scripts[: self._scripts.index(script)]
        needed = (one for one in before if one.needed and one.phase != script.phase)
        return next((one for one in needed if self._outcome(one) is not None), None)

    def run(self, script: Script) -> None:
        """Run a script, unless it has run; raises :class:`~pytest_nixproc.errors.ScriptError` if it fails or did."""
        if (error := self._outcome(script)) is not None:
            raise error.with_traceback(None)

    def _outcome(self, script: Script) -> ScriptError | None:
        if script not in self._outcomes:
            try:
                execute(script, self._names)
            except ScriptError as error:
                self._outcomes[script] = error
            else:
                self._outcomes[script] = None
        return self._outcomes[script]


def names_for(machine: DriverMachine) -> dict[str, Any]:
    """Return the global names that scripts of the driver begin with, as far as there is something to them."""

    def nothing() -> None:
        """Do nothing: the machine is up."""

    return {
        "__name__": "nixproc_script",
        "machine": machine,
        "machines": [machine],
        "start_all": nothing,
        "join_all": nothing,
        "serial_stdout_on": nothing,
        "serial_stdout_off": nothing,
        "subtest": subtest,
    }


@contextmanager
def subtest(name: str) -> Iterator[None]:
    """Name a part of a script, which is said when it begins and when it fails."""
    say(f"subtest: {name}")
    try:
        yield
    except Exception as error:
        error.add_note(f"in the subtest: {name}")
        raise


def execute(script: Script, names: dict[str, Any]) -> None:
    """Execute a script; raises :class:`~pytest_nixproc.errors.ScriptError` with the statement that has failed."""
    text = dedent(script.text)
    file = f"<{title_of(script)}>"
    try:
        exec(compiled(text, file, script), names)  # noqa: S102 - it is what the user wrote to be executed
    except ScriptError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's code raises is its failure
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        number = lines[-1] if lines and lines[-1] else 1
        raise failure(script, number, statement_at(text, number), error) from None


def compiled(text: str, file: str, script: Script) -> CodeType:
    """Compile a script; one that is no Python is an error like any other."""
    try:
        return compile(text, file, "exec")
    except (SyntaxError, ValueError) as error:
        number = getattr(error, "lineno", None) or 1
        line = next(iter(text.splitlines()[number - 1 : number]), "")
        raise failure(script, number, line, error) from None


def failure(script: Script, number: int, statement: str, error: BaseException) -> ScriptError:
    """Return the error of a script: what happened, at which statement, and where the script was written."""
    if isinstance(error, NixprocError):
        what, details, remedy = error.brief, error.details, error.remedy
    else:
        message = getattr(error, "msg", "") or str(error)
        what, details, remedy = f"{type(error).__name__}{message and ': '}{message}", "", ""
    place = f"{script.place}: " if script.place else ""
    facts = [indent(statement, "    "), details, *getattr(error, "__notes__", ())]
    brief = f"{place}{title_of(script)}, line {number}: {what}"
    return ScriptError(brief, details="\n".join(fact for fact in facts if fact), remedy=remedy)


def statement_at(text: str, number: int) -> str:
    """Return the innermost statement that a line belongs to; of one that holds others, its first line."""
    nodes = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.stmt) and node.lineno <= number <= (node.end_lineno or node.lineno)
    ]
    innermost = min(nodes, key=lambda node: (node.end_lineno or node.lineno) - node.lineno, default=None)
    if innermost is None:
        return ""
    source = dedent(" " * innermost.col_offset + (ast.get_source_segment(text, innermost) or ""))
    return source.splitlines()[0] if hasattr(innermost, "body") else source
