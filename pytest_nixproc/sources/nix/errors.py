"""Error messages of Nix, made into one error that names the place in the user's own file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

from pytest_nixproc.errors import SourceError
from pytest_nixproc.sources.nix.command import HERE, TIMED_OUT, ProcessesExpression
from pytest_nixproc.values.commands import describe_status

POSITION: Final = re.compile(r"\bat (?:«?(/[^\n]*?)»?):(\d+):(\d+):?$", re.MULTILINE)
MESSAGE: Final = re.compile(r"^( *)error:[ \t]*(.*(?:\n {7}\1?(?! |at [/«]|…)[^\n]+)*)", re.MULTILINE)
TRACE_COMES_FIRST: Final = re.compile(r"^error:[ \t]*$", re.MULTILINE)
"""How errors begin since Nix 2.10 or so: the trace follows, its innermost part last, and then the error itself."""

FAILED_BUILDS: Final = (
    re.compile(r"builder for '[^']*/[a-z0-9]{32}-(.+?)\.drv' (failed[^;:\n]*)"),
    re.compile(r"Cannot build '[^']*/[a-z0-9]{32}-(.+?)\.drv'\.\s+Reason: builder (failed[^\n]*?)\.?$", re.MULTILINE),
)
LOG_LINE: Final = re.compile(r"^ +> ?(.*)$", re.MULTILINE)
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
TALK: Final = re.compile(
    r"^(?:evaluating file|copied source|instantiated|acquiring|adding|reading|got evaluator|warning:).*\n?",
    re.MULTILINE,
)
TAIL: Final = 2000

REMEDIES: Final = (
    (r"build-users-group", "as root without build users, set NIX_CONFIG='build-users-group ='"),
    (r"'nixpkgs' was not found in the Nix search path", "set NIX_PATH=nixpkgs=..., or pass pkgs in the expression"),
    (r"unable to download|Could not resolve|Couldn't connect|127\.0\.0\.1 port 9", "allow it: --nixproc-download"),
    (r"creating directory '[^']*'.*Permission denied|[Rr]ead-only file system", "let Nix write its store"),
    (r"experimental .*feature 'flakes'", "use a Nix that knows flakes, or name a file"),
)


def remedy_for(text: str) -> str:
    """Return the remedy for an error message of Nix; empty where none is known."""
    return next((remedy for pattern, remedy in REMEDIES if re.search(pattern, text)), "")


def evaluation_error(expression: ProcessesExpression, status: int | None, said: str, seconds: float) -> SourceError:
    """Return the error of an evaluation that has failed."""
    said = COLOUR.sub("", said)
    if status is None:
        remedy = "look for an endless loop, or raise --nixproc-build-timeout"
        return SourceError(f"{expression.origin}: evaluation took longer than {seconds:g} s", remedy=remedy)
    message = message_of(said)
    if status < 0 or "stack overflow" in message:
        remedy = "look for a function that calls itself without end"
        return SourceError(f"{expression.origin}: evaluation overflowed its stack", remedy=remedy)
    place = place_in(said, expression) or expression.origin
    brief = f"{place}: {message or f'nix-instantiate {describe_status(status)}'}"
    # Without what Nix says all the time, and without our own part in where it was.
    first, *frames = re.split(r"\n(?=\s*… )", TALK.sub("", said).strip())
    shown = [frame for frame in frames if POSITION.search(frame) and f"{HERE}{os.sep}" not in frame]
    return SourceError(brief, details="\n".join([first, *shown])[:TAIL].rstrip(), remedy=remedy_for(said))


def message_of(said: str) -> str:
    """Return Nix's error message in one line: the first one, or the last where newer Nix begins with the trace."""
    found = [match[2] for match in MESSAGE.finditer(said) if match[2].strip()]
    if not found:
        return ""
    return " ".join((found[-1] if TRACE_COMES_FIRST.search(said) else found[0]).split())


def place_in(said: str, expression: ProcessesExpression) -> str:
    """Return the innermost position in a file of the user's: none of ours, and none that Nix has in its store."""
    found = [(match[1], match[2], match[3]) for match in POSITION.finditer(said)]
    if TRACE_COMES_FIRST.search(said):
        found.reverse()
    beside = os.path.dirname(expression.path) if not expression.is_flake else expression.path
    foreign = [place for place in found if not place[0].startswith(f"{HERE}{os.sep}")]
    own = [place for place in foreign if place[0].startswith(f"{beside}{os.sep}")] or foreign
    return ":".join(own[0]) if own else ""


def build_error(origin: str, status: int | None, said: str, seconds: float) -> SourceError:
    """Return the error of a build that has failed, with the end of its log."""
    said = COLOUR.sub("", said)
    if status in TIMED_OUT:
        remedy = "raise --nixproc-build-timeout"
        return SourceError(f"{origin}: building took longer than {seconds:g} s", details=said[-TAIL:], remedy=remedy)
    if failed := next(filter(None, (pattern.search(said) for pattern in FAILED_BUILDS)), None):
        brief = f"{origin}: building {failed[1]} {failed[2]}"
        log = "\n".join(LOG_LINE.findall(said))
        return SourceError(brief, details=log[-TAIL:] or said[-TAIL:])
    brief = f"{origin}: {message_of(said) or f'nix-store {describe_status(status)}'}"
    return SourceError(brief, details=said[-TAIL:].strip(), remedy=remedy_for(said))


FORMS: Final = {
    "returns a function": "returns a function: it has to be called with all of its arguments at once",
}


def form_error(origin: str, problem: str, names: Iterable[str], offered: Iterable[str]) -> SourceError:
    """Return the error of an expression whose value is no processes model."""
    if problem == "missing arguments":
        name = min(names)
        remedy = f"pass it with --nixproc-param={name}=VALUE; always there are {', '.join(sorted(offered))}"
        return SourceError(f"{origin}: it asks for {name!r}, which is not known", remedy=remedy)
    if problem == "no constructor":
        remedy = f"its constructors are {', '.join(names)}" if names else "it has to yield a set of functions"
        return SourceError(f"{origin}: there is no such constructor", remedy=remedy)
    if problem == "no test definitions":
        strange = f"{min(names)!r} in it is" if names else "it is"
        remedy = "testService { ... } makes one; a file yields one, or a set of them"
        return SourceError(f"{origin}: {strange} no test definition", remedy=remedy)
    remedy = "it has to be a function, or a set, that yields { NAME = { pkg = createManagedProcess { ... }; }; }"
    return SourceError(f"{origin}: {FORMS.get(problem, problem)}", remedy=remedy)
