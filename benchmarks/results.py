"""The results of a benchmark: printed as Markdown while it runs, and kept in a file, of which the README is made."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

DIRECTORY: Final = Path(__file__).resolve().parent / "results"
SHARED: Final = {"bare", "results", "servers", "trace"}
"""Modules beside the benchmarks that measure nothing."""

NOT_MEASURED: Final = "not measured yet"
DIRTY: Final = "-dirty"


def benchmark_names() -> list[str]:
    """Return the names of all benchmarks."""
    return sorted({path.stem for path in DIRECTORY.parent.glob("*.py")} - SHARED)


def line_of(cells: Iterable[str]) -> str:
    """Return a row of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def commit_of(tree: Path) -> str:
    """Return the commit of a tree, marked if anything differs from it but the results of other benchmarks."""
    if not (program := shutil.which("git")):
        return "unknown"

    def git(*words: str) -> str:
        return subprocess.run([program, *words], cwd=tree, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return f"{git('rev-parse', '--verify', 'HEAD') or 'unknown'}{DIRTY if changed else ''}"


def machine_facts() -> dict[str, str]:
    """Return what others have to know of this machine; the kernel without what its builder has added to the version."""
    return {
        "processors": f"{os.cpu_count()} CPUs",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"Python {platform.python_version()}",
    }


@dataclass
class Table:
    """A table whose rows are printed as soon as they are there."""

    title: str
    head: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def row(self, *cells: str) -> None:
        """Add a row, and print it."""
        self.rows.append(list(cells))
        print(line_of(cells), flush=True)

    def lines(self) -> Iterator[str]:
        """Yield the table as lines of Markdown, its title first."""
        yield from (f"{self.title}:", "", line_of(self.head), line_of("---" for _ in self.head))
        yield from map(line_of, self.rows)


@dataclass(frozen=True)
class Bar:
    """One thing that has to hold, what was measured, and whether it holds."""

    what: str
    measured: str
    holds: bool


@dataclass
class Results:
    """Everything that a run of a benchmark has measured, and where; made when it begins."""

    name: str
    commit: str = field(default_factory=lambda: commit_of(DIRECTORY.parents[1]))
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    machine: dict[str, str] = field(default_factory=machine_facts)
    load: list[float] = field(default_factory=lambda: [round(load, 2) for load in os.getloadavg()])
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what a run has written."""
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts |= {
            "tables": [Table(**table) for table in facts["tables"]],
            "bars": [Bar(**bar) for bar in facts["bars"]],
        }
        return cls(**facts)

    def table(self, title: str, *head: str) -> Table:
        """Begin a table, and print its head."""
        self.tables.append(table := Table(title, list(head)))
        print("", *table.lines(), sep="\n", flush=True)
        return table

    def figure(self, what: str, value: str) -> None:
        """Add a figure that is in no table, and print it."""
        self.figures[what] = value
        print(f"- {what}: {value}", flush=True)

    def bar_table(self) -> Table:
        """Return the table of what has to hold."""
        rows = [["yes" if bar.holds else "NO", bar.what, bar.measured] for bar in self.bars]
        return Table("What has to hold", ["holds", "what", "measured"], rows)

    def finish(self, directory: str, *, check: bool) -> int:
        """Print the bars, write the file, and return the exit status: with ``check``, 1 unless all bars hold."""
        if self.bars:
            print("", *self.bar_table().lines(), sep="\n")
        os.makedirs(directory, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        Path(directory, f"{self.name}.json").write_text(f"{text}\n", encoding="utf-8")
        return int(check and not all(bar.holds for bar in self.bars))

    def as_markdown(self) -> str:
        """Return all of it as the README shows it."""
        where = " and ".join(self.machine.values())
        begun = f"Last measured on {self.date} at commit `{self.commit.removesuffix(DIRTY):.12}`"
        changed = ", changed," if self.commit.endswith(DIRTY) else ""
        parts = [f"{begun}{changed} on {where}; the load was {self.load[0]} when it began."]
        parts += ["\n".join(f"- {what}: {value}" for what, value in self.figures.items())] if self.figures else []
        tables = [*self.tables, *([self.bar_table()] if self.bars else [])]
        return "\n\n".join([*parts, *("\n".join(table.lines()) for table in tables)])


def at_most(what: str, measured: float, allowed: float, unit: str = "") -> Bar:
    """Return the bar that what was measured is at most the allowed."""
    return Bar(f"{what}: at most {allowed:g}{unit}", f"{measured:.4g}{unit}", measured <= allowed)


def page(name: str, directory: Path = DIRECTORY) -> str:
    """Return what the README shows of a benchmark's last run."""
    path = directory / f"{name}.json"
    return Results.read(path).as_markdown() if path.exists() else NOT_MEASURED


def add_results_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for the directory of the results."""
    parser.add_argument(
        "--results", metavar="DIR", default=str(DIRECTORY), help="where the results are written, to NAME.json"
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what all benchmarks take."""
    add_results_option(parser)
    parser.add_argument("--check", action="store_true", help="end with status 1 unless everything holds that has to")
