"""How many small faults in the package the tests find: faults are drawn, and each is tried against the tests.

The commit's hash is the seed, so that everybody draws the same faults. A fault is a change of one place: a condition is
negated, a statement is dropped, a number or a truth value is another one, or an exception is not handled. The packages
take turns. Each fault is made in a copy of the tree; ``tests/unit`` is run first, then the tests that are nearest to
the fault's package, and everything if these find nothing. Before that, everything has to pass without a fault.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from benchmarks.results import DIRTY, Bar, Results, add_options
from pytest_nixproc._registry import Registry

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = "pytest_nixproc"
COPIED: Final = ("pytest_nixproc", "tests", "examples", "docs", "benchmarks", ".ci", ".github")
FILES: Final = ("LICENSE", "conftest.py", "tox.ini")
UNIT: Final = "tests/unit"
EVERYTHING: Final = ("tests", "examples", f"--ignore={UNIT}")
CONFORMANCE: Final = ("tests/conformance/test_managers.py", "-k")
NEAREST: Final[dict[str, tuple[str, ...]]] = {
    "checks": ("tests/checks",),
    **dict.fromkeys(("machines", "_persistence"), ("tests/machines",)),
    **dict.fromkeys(("model", "_plugin", "_system"), ("tests/plugin",)),
    "sources": ("tests/nix",),
    **dict.fromkeys(("_deployment", "_inspection", "_planning", "testing"), (*CONFORMANCE, "sysvinit or supervisord")),
}
"""The tests that are most likely to find what the unit loop does not, by package; a manager has its own conformance."""

LIMIT_SECONDS: Final = 1800.0
UNIT_LIMIT_SECONDS: Final = 300.0
"""A fault may have tests wait for ever; the unit loop has a minute."""

SURVIVES: Final = "nothing"
LEAST: Final = 0.9

DROPPED: Final = (ast.AugAssign, ast.Raise, ast.Delete)
"""Statements that are dropped, beside calls and changes of objects: without others, a name would not be known."""


@dataclass(frozen=True)
class Fault:
    """A change of one place in the source."""

    operator: str
    path: str
    line: int
    old: str
    new: str
    begin: int
    end: int

    def text(self, source: str) -> str:
        """Return the source with the fault."""
        return source[: self.begin] + self.new + source[self.end :]


@dataclass(frozen=True)
class Verdict:
    """What became of a fault: the first test that failed, or ``nothing``."""

    fault: Fault
    found_by: str


class Finder(ast.NodeVisitor):
    """Finds all places of one file at which a fault can be made."""

    def __init__(self, path: str, source: str) -> None:
        self.path = path
        self.source = source
        lines = source.encode().splitlines(keepends=True)
        self.starts = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]
        self.faults: list[Fault] = []

    def add(self, operator: str, node: ast.expr | ast.stmt, new: str = "") -> None:
        """Note a fault that puts other text into the place of a node; ``{}`` is the text that was there."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        # Columns of the syntax tree are bytes.
        raw = self.source.encode()
        begin = len(raw[: self.starts[node.lineno - 1] + node.col_offset].decode())
        end = len(raw[: self.starts[node.end_lineno - 1] + node.end_col_offset].decode())
        old = self.source[begin:end]
        fault = Fault(operator, self.path, node.lineno, old, new.replace("{}", old), begin, end)
        self.faults.append(fault)

    def visit_If(self, node: ast.If) -> None:
        """Negate the condition, unless it is there for the type checker alone."""
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.add("negate", node.test, "(not ({}))")
            self.generic_visit(node)

    def visit_condition(self, node: ast.While | ast.IfExp) -> None:
        """Negate the condition."""
        self.add("negate", node.test, "(not ({}))")
        self.generic_visit(node)

    visit_While = visit_IfExp = visit_condition  # noqa: N815 - ast.NodeVisitor calls them so

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Negate what chooses the items."""
        for condition in node.ifs:
            self.add("negate", condition, "(not ({}))")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Drop a call; a text is documentation."""
        if not isinstance(node.value, ast.Constant):
            self.add("drop", node, "pass")
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Drop what changes an object."""
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self.add("drop", node, "pass")
        self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        """Drop statements of some kinds, and look into everything."""
        if isinstance(node, DROPPED):
            self.add("drop", node, "pass")
        super().generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Look at the value; annotations are for the type checker."""
        if node.value:
            self.visit(node.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Change a number or a truth value; texts are for people, or compared by golden files."""
        if isinstance(node.value, bool):
            self.add("constant", node, str(not node.value))
        elif isinstance(node.value, int | float):
            self.add("constant", node, repr(node.value + 1))

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        """Handle nothing."""
        if node.type is not None:
            self.add("handler", node.type, "()")
        for statement in node.body:
            self.visit(statement)

    def visit_Call(self, node: ast.Call) -> None:
        """Suppress nothing."""
        if ast.unparse(node.func) in ("suppress", "contextlib.suppress"):
            self.add("handler", node, f"{ast.unparse(node.func)}()")
        else:
            self.generic_visit(node)


def faults_in(path: Path) -> list[Fault]:
    """Return all faults that can be made in a file."""
    source = path.read_text()
    finder = Finder(str(path.relative_to(ROOT)), source)
    finder.visit(ast.parse(source))
    return finder.faults


def package_of(path: str) -> str:
    """Return the package of a file below ours; the files of ours itself are one, too."""
    return path.split("/")[1] if path.count("/") > 1 else ""


def draw(count: int, seed: str) -> list[Fault]:
    """Draw faults: packages take turns, an operator is drawn, and then a place where it can be used."""
    chance = random.Random(seed)  # noqa: S311 - the same faults for the same seed are what is wanted
    faults: dict[str, list[Fault]] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        for fault in faults_in(path):
            faults.setdefault(package_of(fault.path), []).append(fault)
    drawn: list[Fault] = []
    packages = cycle(sorted(faults))
    while len(drawn) < count and any(faults.values()):
        left = faults[next(packages)]
        if not left:
            continue
        operator = chance.choice(sorted({fault.operator for fault in left}))
        fault = chance.choice([fault for fault in left if fault.operator == operator])
        left.remove(fault)
        drawn.append(fault)
    return drawn


@contextmanager
def copies(count: int) -> Iterator[SimpleQueue[Path]]:
    """Make copies of the tree, which need no namespace of their own, and hand them out."""
    with tempfile.TemporaryDirectory(prefix="mutations-", dir="/var/tmp") as place:
        queue: SimpleQueue[Path] = SimpleQueue()
        for number in range(count):
            copy = Path(place) / str(number)
            for name in COPIED:
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            for file in (*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *(ROOT / name for name in FILES)):
                shutil.copy(file, copy)
            queue.put(copy)
        yield queue


def loops_for(fault: Fault) -> Iterator[Sequence[str]]:
    """Yield what is run one after the other until a test fails, as arguments of pytest."""
    yield (UNIT,)
    package = package_of(fault.path)
    if package == "managers":
        # A manager's file or package has its name, but for underscores.
        name = fault.path.split("/")[2].removesuffix(".py").replace("_", "-")
        yield (*CONFORMANCE, name if name in Registry().managers else "sysvinit")
        yield ("tests/managers",)
    elif package in NEAREST:
        yield NEAREST[package]
    yield EVERYTHING


def attempt(fault: Fault, places: SimpleQueue[Path], *, unit: bool) -> Verdict:
    """Make a fault in a copy and run the tests there, until one fails."""
    place = places.get()
    file = place / fault.path
    source = file.read_text()
    loops = islice(loops_for(fault), 1 if unit else None)
    try:
        replace(file, fault.text(source))
        found = next(filter(None, (first_failure(run_tests(place, loop)) for loop in loops)), SURVIVES)
    finally:
        replace(file, source)
        places.put(place)
    print(f"{fault.path}:{fault.line} {fault.operator}: found by {found}", file=sys.stderr, flush=True)
    return Verdict(fault, found)


def refuse_failing(places: SimpleQueue[Path], loops: Sequence[Sequence[str]]) -> None:
    """Raise when a test fails without any fault, and show how: it would find each of them."""
    place = places.get()
    for loop in loops:
        done = run_tests(place, loop)
        if failure := first_failure(done):
            print(done.stdout if done else "", file=sys.stderr)
            raise SystemExit(f"without a fault, this fails: {failure}")
    places.put(place)


def replace(file: Path, source: str) -> None:
    """Write a module, and forget what was compiled of it, which is known by the second of the last change."""
    file.write_text(source)
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
        compiled.unlink()


def run_tests(place: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """Run tests in a copy until one fails; return nothing if the time limit ends them."""
    workers = str((os.cpu_count() or 1) + 1)
    argv = [sys.executable, "-m", "pytest", "-x", "-q", "-n", workers, "-p", "no:cacheprovider", *words]
    variables = {**os.environ, "PYTHONPATH": str(place)}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    limit = UNIT_LIMIT_SECONDS if words == (UNIT,) else LIMIT_SECONDS
    try:
        return subprocess.run(
            argv, cwd=place, env=variables, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return None


def first_failure(done: subprocess.CompletedProcess[str] | None) -> str:
    """Return the first test that has failed, or what else has ended the tests; an empty text if all passed."""
    if done is None:
        return "the time limit"
    if done.returncode == 0:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    said = (done.stdout + done.stderr).split("\n")
    return failed[1] if failed else next(filter(None, reversed(said)), f"status {done.returncode}")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw faults and try them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=60, help="how many faults are drawn")
    parser.add_argument("--skip", type=int, default=0, help="how many of them are left out, as tried before")
    parser.add_argument("--seed", default="", help="instead of the commit's hash")
    parser.add_argument("--jobs", type=int, default=1, help="faults tried side by side, each by all processors")
    parser.add_argument("--unit", action="store_true", help="run tests/unit alone")
    parser.add_argument("--list", action="store_true", help="only say what would be tried")
    add_options(parser)
    options = parser.parse_args(argv)
    results = Results("mutations")
    seed = options.seed or results.commit.removesuffix(DIRTY)
    drawn = draw(options.count, seed)[options.skip :]
    if options.list:
        print("\n".join(f"{fault.path}:{fault.line}: {fault.old!r} -> {fault.new!r}" for fault in drawn))
        return 0
    with copies(options.jobs) as places, ThreadPoolExecutor(options.jobs) as pool:
        refuse_failing(places, ((UNIT,),) if options.unit else ((UNIT,), EVERYTHING))
        verdicts = list(pool.map(partial(attempt, places=places, unit=options.unit), drawn))
    report(results, verdicts)
    results.figure("seed", seed)
    return results.finish(options.results, check=options.check)


def report(results: Results, verdicts: Sequence[Verdict]) -> None:
    """Add the faults, those that nothing has found first, and what has to hold."""
    table = results.table("Faults", "place", "was", "became", "found by")
    for verdict in sorted(verdicts, key=lambda verdict: verdict.found_by != SURVIVES):
        fault = verdict.fault
        table.row(f"{fault.path}:{fault.line}", code(fault.old), code(fault.new), verdict.found_by)
    found = sum(verdict.found_by != SURVIVES for verdict in verdicts)
    unit = sum(verdict.found_by.startswith(UNIT) for verdict in verdicts)
    results.figure("found by the unit loop", f"{unit} of {len(verdicts)}")
    bar = Bar(f"{LEAST:.0%} of the faults are found", f"{found} of {len(verdicts)}", found >= LEAST * len(verdicts))
    results.bars.append(bar)


def code(text: str) -> str:
    """Return source as one cell of a table."""
    return f"`{' '.join(text.split())}`"


if __name__ == "__main__":
    sys.exit(main())
