"""Where a part of a model was made."""

from __future__ import annotations

import runpy
from inspect import stack
from pathlib import Path

from pytest_nixproc import Instance, create_managed_process
from pytest_nixproc.values.location import Call, Location

KIT = """
from pytest_nixproc import Instance, create_managed_process

def server(name, port):
    return wrapped(create_managed_process(name=name, process="/bin/x"), port)

def wrapped(pkg, port):
    return Instance(pkg, port=port)
"""


def line() -> int:
    """Return the number of the calling line."""
    return stack()[1].lineno


def test_call_in_the_model_itself() -> None:
    """What a line of the model makes is that line's, without more."""
    made, here = Instance(create_managed_process(name="a", process="/bin/x")), line()
    assert made.defined_at is not None
    assert (made.defined_at.file, made.defined_at.line) == (__file__, here)
    assert made.defined_at.via == ()


def test_calls_of_functions(tmp_path: Path) -> None:
    """What functions make is the line's that has called the first of them; the others are named, outermost first."""
    file = tmp_path / "kit.py"
    file.write_text(KIT)
    server = runpy.run_path(str(file))["server"]
    made, here = server("a", 80), line()
    calls = (Call("server", str(file), 5), Call("wrapped", str(file), 8))
    assert made.defined_at == Location(__file__, here, calls)
    assert made.pkg.defined_at == Location(__file__, here, calls[:1])


def test_text() -> None:
    """The text names the functions, and the files that are not the line's own."""
    calls = (Call("server", "/m/processes.py", 7), Call("kit", "/elsewhere/kit.py", 3))
    text = str(Location("/m/processes.py", 12, calls))
    assert text == "/m/processes.py:12 (via server, line 7; via kit, /elsewhere/kit.py:3)"


def deep(depth: int) -> Instance:
    """Make an instance below some calls."""
    return Instance(create_managed_process(name="a", process="/bin/x")) if depth == 0 else deep(depth - 1)


def test_chain_is_short() -> None:
    """Of a long chain, the line of the model and the innermost calls are kept."""
    made, here = deep(9), line()
    assert made.defined_at is not None
    assert (made.defined_at.line, len(made.defined_at.via)) == (here, 3)
