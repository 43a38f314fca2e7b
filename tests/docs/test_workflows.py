"""The workflow files are what GitHub Actions takes: known keys, complete steps, expressions about what exists.

The rules are those of the page "Workflow syntax for GitHub Actions", as far as these files use it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from pytest_nixproc._registry import Registry

FILES: Final = sorted((Path(__file__).parents[2] / ".github" / "workflows").iterdir())

OF_WORKFLOWS: Final = {"name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs"}
EVENTS: Final = {"push", "pull_request", "schedule", "workflow_dispatch"}
OF_JOBS: Final = {"name", "runs-on", "container", "services", "strategy", "env", "defaults", "steps"} | {
    *("needs", "if", "permissions", "timeout-minutes", "continue-on-error", "outputs", "concurrency", "environment"),
}
OF_STEPS: Final = {"id", "if", "name", "uses", "run", "with", "env", "shell", "working-directory"} | {
    *("timeout-minutes", "continue-on-error"),
}
OF_STRATEGIES: Final = {"matrix", "fail-fast", "max-parallel"}
CONTEXTS: Final = {
    "github",
    "env",
    "vars",
    "job",
    "steps",
    "runner",
    "secrets",
    "strategy",
    "matrix",
    "needs",
    "inputs",
}
FUNCTIONS: Final = {
    "always",
    "success",
    "failure",
    "cancelled",
    "hashFiles",
    "contains",
    "format",
    "fromJSON",
    "toJSON",
}
ACTION: Final = re.compile(r"(\./[\w./-]+|[\w-]+/[\w./-]+@(v\d+(\.\d+)*|[0-9a-f]{40}))")
EXPRESSION: Final = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
POSIX_SHELLS: Final = ("bash", "sh")

Text = dict[Any, Any]


def read(path: Path) -> Text:
    """Return a workflow; YAML 1.1 takes its key ``on`` for a truth value."""
    loaded: Text = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in loaded.items()}


def jobs() -> Iterator[Any]:
    """Yield the jobs of all workflows as parameters."""
    for path in FILES:
        for name, job in read(path)["jobs"].items():
            yield pytest.param(job, id=f"{path.stem}-{name}")


JOBS: Final = list(jobs())


def strings(value: object) -> Iterator[str]:
    """Yield all texts in a value."""
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_workflow(path: Path) -> None:
    """A workflow has known keys, begins at known events, may only read, and its jobs need each other by name."""
    workflow = read(path)
    assert path.suffix == ".yml"
    assert workflow.keys() <= OF_WORKFLOWS
    assert {"name", "on", "permissions", "jobs"} <= workflow.keys()
    assert set(workflow["on"]) <= EVENTS
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert re.fullmatch(r"[A-Za-z_][\w-]*", name)
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= workflow["jobs"].keys() - {name}


@pytest.mark.parametrize("job", JOBS)
def test_job(job: Text) -> None:
    """A job says where it runs and for how long at most, and its steps each do one thing."""
    assert job.keys() <= OF_JOBS
    assert {"runs-on", "timeout-minutes", "steps"} <= job.keys()
    assert job.get("strategy", {}).keys() <= OF_STRATEGIES
    for step in job["steps"]:
        assert step.keys() <= OF_STEPS
        assert len(step.keys() & {"uses", "run"}) == 1
        assert "with" not in step or "uses" in step
        assert "uses" not in step or ACTION.fullmatch(step["uses"]), step["uses"]


@pytest.mark.parametrize("job", JOBS)
def test_expressions(job: Text) -> None:
    """Expressions are closed, name known contexts and functions, and no axis that the matrix does not have."""
    matrix = job.get("strategy", {}).get("matrix", {})
    axes = {*matrix, *(name for entry in matrix.get("include", []) for name in entry)} - {"include", "exclude"}
    for text in strings(job):
        assert text.count("${{") == len(EXPRESSION.findall(text)), text
        for expression in EXPRESSION.findall(text):
            bare = re.sub(r"'(?:[^']|'')*'", "", expression)
            for name, call in re.findall(r"(?<![\w.-])([A-Za-z_][\w-]*)\s*(\()?", bare):
                assert name in (FUNCTIONS if call else CONTEXTS | {"true", "false", "null"}), expression
            assert set(re.findall(r"\bmatrix\.([\w-]+)", bare)) <= axes, expression


@pytest.mark.parametrize("job", JOBS)
def test_scripts(job: Text) -> None:
    """What is run is shell text that a shell can parse, and names managers that exist."""
    usual = job.get("defaults", {}).get("run", {}).get("shell", "bash")
    for step in job["steps"]:
        text = step.get("run") or step.get("with", {}).get("run", "")
        if any(name in step.get("shell", usual) for name in POSIX_SHELLS):
            subprocess.run(["/bin/sh", "-n"], input=EXPRESSION.sub("x", text), text=True, check=True)
        for names in re.findall(r"--nixproc-(?:manager|require)=([\w,-]+)", text):
            assert set(names.split(",")) <= {*Registry().managers, "all"}
