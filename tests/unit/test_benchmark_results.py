"""The results of benchmarks: what is printed, kept in files and shown, and what the exit status says."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from benchmarks.results import DIRECTORY, NOT_MEASURED, Bar, Results, at_most, benchmark_names, commit_of, page

BENCHMARKS: Final = Path(__file__).parents[2] / "benchmarks"

SHOWN: Final = """\
- pairs: 3

Servers:

| by | seconds |
| --- | --- |
| a \\| b | 1.5 |

What has to hold:

| holds | what | measured |
| --- | --- | --- |
| yes | growth: at most 2.25 | 1.823 |
| NO | memory: at most 20 MB | 20.5 MB |"""


def example() -> Results:
    """Return results with one of everything."""
    found = Results("example")
    found.figure("pairs", "3")
    found.table("Servers", "by", "seconds").row("a | b", "1.5")
    found.bars += [at_most("growth", 1.823, 2.25), at_most("memory", 20.5, 20, " MB")]
    return found


def git(tree: Path, *words: str) -> str:
    """Run git in a tree, as somebody."""
    argv = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.org", *words]
    return subprocess.run(argv, cwd=tree, capture_output=True, text=True, check=True).stdout.strip()


def test_what_is_printed_is_what_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page of a benchmark is made of its file alone, and shows what the run has printed."""
    results = example()
    results.finish(str(tmp_path), check=False)
    assert capsys.readouterr().out == f"{SHOWN}\n"
    begun, _, shown = page("example", tmp_path).partition("\n\n")
    assert begun.startswith(f"Last measured on {results.date} at commit `{results.commit[:12]}`")
    assert shown == SHOWN


def test_file_says_where_it_was_measured(tmp_path: Path) -> None:
    """The file has commit, date, machine and load, but neither the machine's name nor a path of it."""
    results = example()
    results.finish(str(tmp_path / "new"), check=False)
    text = (tmp_path / "new" / "example.json").read_text(encoding="utf-8")
    facts = json.loads(text)
    assert facts.keys() == {"name", "commit", "date", "machine", "load", "tables", "bars", "figures"}
    assert facts["machine"].keys() == {"processors", "kernel", "python"}
    assert len(facts["load"]) == 3
    assert "/" not in text


@pytest.mark.parametrize("check", [True, False])
def test_exit_status(tmp_path: Path, *, check: bool) -> None:
    """With ``--check`` the status is 1 unless all bars hold; the file is written in any case."""
    results = example()
    assert results.finish(str(tmp_path), check=check) == check
    results.bars[:] = [Bar("this", "it", holds=True)]
    assert results.finish(str(tmp_path), check=check) == 0
    assert Results.read(tmp_path / "example.json") == results


def test_benchmark_without_a_file(tmp_path: Path) -> None:
    """What has no file is said not to be measured."""
    assert page("example", tmp_path) == NOT_MEASURED


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_commit_of_a_tree(tmp_path: Path) -> None:
    """A changed tree is marked, but not for the results of a benchmark that ran before; without git it is unknown."""
    assert commit_of(tmp_path) == "unknown"
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message=one")
    head = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "other.json").touch()
    assert commit_of(tmp_path) == head
    (tmp_path / "benchmarks" / "new.py").touch()
    assert commit_of(tmp_path) == f"{head}-dirty"


def test_every_file_is_of_a_benchmark() -> None:
    """Nothing is kept of a benchmark that is gone, and every one has its place in the README."""
    assert {path.stem for path in DIRECTORY.glob("*.json")} <= set(benchmark_names())
    readme = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert [name for name in benchmark_names() if f"<!-- table: {name} -->" not in readme] == []
