"""Scripts of test definitions, run against a system that is up."""

from __future__ import annotations

import ast
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import dedent, indent
from types import CodeType
from typing import Any

from pytest_nixproc._system.nixos_driver.verbs import DriverMachine, say
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import NixprocError, ScriptError
from pytest_nixproc.sources.api import Script, Scripted


def title_of(script: Script) -> str:
    """Return the name of a script in messages."""
    return f"{script.phase} of {script.instance}" if script.instance else script.phase


class ScriptRun:
    """The scripts of one system: each runs at most once; all share one global namespace, as in the test driver."""

    def __init__(self, system: System, scripted: Scripted, wait_seconds: float) -> None:
        self.system = system
        self._scripts = scripted.scripts
        self._outcomes: dict[Script, ScriptError | None] = {}
        self._names = names_for(DriverMachine(system, scripted.path, wait_seconds))

    def script(self, phase: str, instance: str) -> Script | None:
        """Return the script of a phase and instance, or None without one."""
        return next((one for one in self._scripts if (one.phase, one.instance) == (phase, instance)), None)

    def blocked_by(self, script: Script) -> Script | None:
        """Run the scripts that a script needs before it; return the first of them that has failed."""
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
    """Return the global names that the test driver gives to scripts, without those that mean nothing here."""

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
    """Name a part of a script; the name is printed when the part begins, and added to its error."""
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
    """Compile a script; raises :class:`~pytest_nixproc.errors.ScriptError` for one that is no Python."""
    try:
        return compile(text, file, "exec")
    except (SyntaxError, ValueError) as error:
        number = getattr(error, "lineno", None) or 1
        line = next(iter(text.splitlines()[number - 1 : number]), "")
        raise failure(script, number, line, error) from None


def failure(script: Script, number: int, statement: str, error: BaseException) -> ScriptError:
    """Return the error of a script, with the statement that has failed, and the place of the script."""
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
    """Return the innermost statement at a line; of a compound statement, only its first line."""
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
