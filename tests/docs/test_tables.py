"""The tables of documents say what code and recorded results say; ``python tests/docs/test_tables.py`` writes them."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from enum import Enum
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

import pytest_nixproc
from benchmarks.results import benchmark_names, page
from pytest_nixproc import errors, hookspecs
from pytest_nixproc._cli import all_commands
from pytest_nixproc._cli.api import DEFAULT, MEANINGS, ExitStatus
from pytest_nixproc._deployment.timeline import Event, Timeline
from pytest_nixproc._plugin import fixtures, options
from pytest_nixproc._registry import Registry
from pytest_nixproc._system.instance import RunningInstance
from pytest_nixproc._system.system import System
from pytest_nixproc.checks.api import EndReport, Rule, RuleInput, Snapshot, StopReport, nothing
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.parts import AccountDatabase, Files, Lifecycle, Network, Processes
from pytest_nixproc.machines.verbs import Verbs
from pytest_nixproc.machines.waiting import Clock
from pytest_nixproc.managers import bsdrc, cygrunsrv, launchd, supervisord, sysvinit
from pytest_nixproc.managers.docker.generator import CONTAINER_PARAMETERS, IMAGE_PARAMETERS
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.managers.s6_rc.parameters import PARAMETERS
from pytest_nixproc.managers.systemd import directives
from pytest_nixproc.model import ready
from pytest_nixproc.model.credentials import Group, User
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.names import camel_case
from pytest_nixproc.model.process import ManagedProcess, create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.model.value_types import ValueType
from pytest_nixproc.sources.api import Source
from pytest_nixproc.testing import fake_machine
from pytest_nixproc.testing.conformance import results
from pytest_nixproc.testing.conformance.results import Results, read_all
from pytest_nixproc.testing.conformance.subjects import SUBJECTS
from pytest_nixproc.testing.fake_machine import FakeMachine
from pytest_nixproc.testing.programs import models
from pytest_nixproc.values.findings import UNSAID, Finding, Origin
from pytest_nixproc.values.location import Call, Location
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import File, Link, Status

DOCS: Final = Path(__file__).parents[2] / "docs"
BENCHMARKS: Final = "../benchmarks/README.md"
README: Final = "../README.md"
Rows = Iterable[tuple[str, ...]]

DAEMON_DEFAULT: Final = "whether it runs as a daemon"
OF_CHOICES: Final = {"manager": "the managers for which models are checked", "format": "how findings are written"}
STOP_DEFAULT: Final = "the instance's stop time-out, in whole seconds"


def option_rows() -> Iterator[tuple[str, ...]]:
    """Yield the options."""
    yield "option", "environment", "ini file", "default", "meaning"
    for option in options.OPTIONS:
        flag = f"{option.flag}={option.metavar}" if option.metavar else option.flag
        meaning = f"{option.help}; one of {', '.join(option.choices)}" if option.choices else option.help
        yield code(flag), code(option.variable), code(option.ini), code(option.default), meaning


def parameter_rows() -> Iterator[tuple[str, ...]]:
    """Yield the parameters of a managed process."""
    yield "in Python", "in JSON, YAML and Nix", "kind", "meaning"
    for item in fields(ManagedProcess):
        if item.metadata:
            yield code(item.name), code(camel_case(item.name)), item.metadata["kind"].title, item.metadata["doc"]


def account_rows() -> Iterator[tuple[str, ...]]:
    """Yield the properties of groups and users."""
    yield "of", "in Python", "in JSON and YAML", "default"
    for kind in (Group, User):
        for item in fields(kind):
            default = "none" if item.default in (None, "", MISSING) else str(item.default)
            yield kind.__name__.lower(), code(item.name), code(camel_case(item.name)), default


def state_rows() -> Iterator[tuple[str, ...]]:
    """Yield the state directories."""
    yield "in Python", "in JSON and YAML", "path"
    for name, path in vars(StateDirs.under("STATE")).items():
        yield code(name), code(f"${{{camel_case(name)}}}"), code(path)


def ready_rows() -> Iterator[tuple[str, ...]]:
    """Yield the conditions."""
    yield "in Python", "in JSON and YAML", "meaning"
    for maker in vars(ready).values():
        if getattr(maker, "__annotations__", {}).get("return") == "Condition" and maker is not ready.from_config:
            key = camel_case(maker.__name__)
            yield code(f"ready.{call_of(maker)}"), code(key if is_configurable(key) else ""), summary(maker)


def is_configurable(condition: str) -> bool:
    """Tell whether a configuration file can name a condition."""
    example: Any = {"tcp": 80, "command": ["true"]}.get(condition, "/example")
    try:
        ready.from_config({condition: example})
    except ValueError:
        return False
    return True


def manager_rows() -> Iterator[tuple[str, ...]]:
    """Yield the managers."""
    yield "manager", "prefers", "platforms", "Dysnomia's module", "refuses", "note"
    for manager in Registry().managers.values():
        can = manager.capabilities
        refused = ", ".join(f"{code(name)} ({reason})" for name, reason in can.unsupported.items())
        platforms = ", ".join(can.platforms)
        yield code(manager.name), can.prefers, platforms, code(can.dysnomia_module), refused or "nothing", can.note


def status_rows() -> Iterator[tuple[str, ...]]:
    """Yield the managers for who meets them first."""
    yield "manager", "on", ""
    for manager in Registry().managers.values():
        yield manager.name, ", ".join(manager.capabilities.platforms), manager.capabilities.note


def sysvinit_rows() -> Iterator[tuple[str, ...]]:
    """Yield what an override for sysvinit can change."""
    yield "in Python", "in JSON, YAML and Nix", "value", "default"
    own = {
        "process": "its executable",
        "args": "its arguments",
        "process_is_daemon": DAEMON_DEFAULT,
        "instructions": "the activities of the Linux Standard Base",
        "stop_seconds": STOP_DEFAULT,
    }
    for name, value in sysvinit.default_parameters(launch_by("sysvinit")).items():
        yield code(name), code(camel_case(name)), sysvinit.KINDS[name].title, own.get(name, code(repr(value)))


def launch_by(manager: str) -> Launch:
    """Return how a manager runs a process of which nothing is said."""
    model = ProcessesModel({"NAME": Instance(create_managed_process(name="NAME", process="/PROGRAM"))})
    return Registry().manager(manager).launch("NAME", model, Target(StateDirs.under(), "/DIRECTORY"))


def bsdrc_rows() -> Iterator[tuple[str, ...]]:
    """Yield what an override for bsdrc can change."""
    yield "in Python", "in JSON, YAML and Nix", "value", "default"
    own = {
        "command": "its executable",
        "command_args": "its arguments",
        "command_is_daemon": DAEMON_DEFAULT,
        "stop_seconds": STOP_DEFAULT,
    }
    for name, value in bsdrc.default_parameters(launch_by("bsdrc")).items():
        yield code(name), code(camel_case(name)), bsdrc.KINDS[name].title, own.get(name, code(repr(value)))


def cygrunsrv_rows() -> Iterator[tuple[str, ...]]:
    """Yield what an override for cygrunsrv can change."""
    yield "in Python", "in JSON, YAML and Nix", "value", "default"
    for name, value in cygrunsrv.default_parameters(launch_by("cygrunsrv")).items():
        own = {"environment": "the tags of the deployment", "dependencies": "the services of its dependencies"}
        yield code(name), code(camel_case(name)), cygrunsrv.KINDS[name].title, own.get(name, code(repr(value)))


def kind_rows(kinds: Mapping[str, ValueType], names: str) -> Callable[[], Iterator[tuple[str, ...]]]:
    """Return the function that yields the kinds of values that overrides have under a manager's own names."""

    def rows() -> Iterator[tuple[str, ...]]:
        yield "value", names
        by_title: dict[str, list[str]] = {}
        for name, kind in kinds.items():
            by_title.setdefault(kind.title, []).append(name)
        yield from ((title, ", ".join(map(code, found))) for title, found in by_title.items())

    return rows


def docker_rows() -> Iterator[tuple[str, ...]]:
    """Yield what an override for docker can change."""
    yield "of", "in Python", "in JSON, YAML and Nix", "meaning"
    for part, parameters in (("image", IMAGE_PARAMETERS), ("container", CONTAINER_PARAMETERS)):
        for name, meaning in parameters.items():
            yield part, code(name), code(camel_case(name)), meaning


def s6_rc_rows() -> Iterator[tuple[str, ...]]:
    """Yield what an override for s6-rc can change."""
    yield "in Python", "in JSON, YAML and Nix", "meaning"
    for name, meaning in PARAMETERS.items():
        yield code(name), code(camel_case(name)), meaning


def rule_rows() -> Iterator[tuple[str, ...]]:
    """Yield the rules of the checks."""
    yield "code", "looks at", "severity", "what must hold"
    for rule in Registry().rules:
        yield f"[{rule.code}](rules.md#{anchor_of(rule)})", looks_at(rule), rule.severity, rule.asserts


def looks_at(rule: Rule) -> str:
    """Return what a rule looks at."""
    halves = {
        "the running system": rule.live,
        "the stop of an instance": rule.leak,
        "the end of an instance": rule.end,
        "a constructor": rule.constructor,
    }
    return next((name for name, function in halves.items() if function is not nothing), "the model")


def heading_of(rule: Rule) -> str:
    """Return the heading of a rule's section."""
    return f"{rule.code}: {rule.asserts}"


def anchor_of(rule: Rule) -> str:
    """Return the anchor of a rule's section, as code hosts make it of the heading."""
    return re.sub(r"[^\w -]", "", heading_of(rule)).lower().replace(" ", "-")


def rule_pages() -> str:
    """Return a section for each rule."""
    return "\n\n".join("\n\n".join(section_of(rule)) for rule in Registry().rules)


def section_of(rule: Rule) -> Iterator[str]:
    """Yield the paragraphs about a rule."""
    yield f"## {heading_of(rule)}"
    yield f"Looks at {looks_at(rule)}; severity: {rule.severity}; silenced by `--nixproc-ignore={rule.code}`."
    yield textwrap.fill(rule.explanation, 120, break_long_words=False, break_on_hyphens=False)


def fixture_rows() -> Iterator[tuple[str, ...]]:
    """Yield the fixtures."""
    yield "fixture", "what it does"
    for name in dir(fixtures):
        if name.startswith("nixproc_"):
            yield code(name), summary(inspect.unwrap(getattr(fixtures, name)))


def member_rows(*kinds: type[Any], leave_out: tuple[str, ...] = ()) -> Callable[[], Iterator[tuple[str, ...]]]:
    """Return the function that yields the public members of classes."""

    def rows() -> Iterator[tuple[str, ...]]:
        yield "member", "meaning"
        for kind in kinds:
            yield from ((code(member), meaning) for member, meaning in members_of(kind, leave_out))

    return rows


def members_of(kind: type[Any], leave_out: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield the public members of a class as they are used, each with its meaning; inherited ones are left out."""
    for name, member in vars(kind).items():
        if name.startswith("_") or name in leave_out or not (doc := inspect.getdoc(member)):
            continue
        function = getattr(member, "__func__", member)
        if isinstance(member, property | cached_property):
            yield name, first_line(doc)
        elif callable(function):
            yield call_of(function, bound=True), first_line(doc)


def part_rows() -> Iterator[tuple[str, ...]]:
    """Yield the members of the parts of a machine."""
    yield "part", "member", "meaning"
    for part, contract in PARTS.items():
        yield from ((code(part), code(member), meaning) for member, meaning in members_of(contract))


def fake_rows() -> Iterator[tuple[str, ...]]:
    """Yield what the parts of the fake machine have besides."""
    yield "part", "member", "meaning"
    machine = FakeMachine()
    for part, contract in PARTS.items():
        members = members_of(type(getattr(machine, part)), dir(contract))
        yield from ((code(part), code(member), meaning) for member, meaning in members)


class Shown:
    """A default as one would write it."""

    def __init__(self, value: object, name: str = "") -> None:
        self.value = value
        self.name = name

    def __repr__(self) -> str:
        if isinstance(self.value, Enum):
            return f"signal.{self.value.name}"
        if self.name == "mode" and isinstance(self.value, int):
            return f"0o{self.value:o}"
        return json.dumps(self.value) if isinstance(self.value, str) else repr(self.value)


def call_of(function: Callable[..., Any], *, bound: bool = False) -> str:
    """Return how a function is called: its name and its parameters with their defaults."""
    signature = inspect.signature(function)
    shown = [
        item.replace(annotation=item.empty)
        if item.default is item.empty
        else item.replace(annotation=item.empty, default=Shown(item.default, item.name))
        for item in list(signature.parameters.values())[bound:]
    ]
    return f"{function.__name__}{signature.replace(parameters=shown, return_annotation=signature.empty)}"


def name_rows() -> Iterator[tuple[str, ...]]:
    """Yield the names that the package offers."""
    yield "name", "what it is"
    for name in pytest_nixproc.__all__:
        yield code(name), summary(getattr(pytest_nixproc, name))


def error_rows(kind: type[NixprocError] = NixprocError) -> Iterator[tuple[str, ...]]:
    """Yield the exceptions, each after the one that it is a kind of."""
    if kind is NixprocError:
        yield "exception", "is a", "when"
    (base,) = kind.__bases__
    yield code(kind.__name__), code(base.__name__), summary(kind)
    for child in kind.__subclasses__():
        if child.__module__ == NixprocError.__module__:
            yield from error_rows(child)


def hook_rows() -> Iterator[tuple[str, ...]]:
    """Yield the hooks."""
    yield "hook", "returns", "what for"
    for name, function in vars(hookspecs).items():
        if name.startswith("nixproc_"):
            yield code(f"{name}()"), code(function.__annotations__["return"]), summary(function)


def argument_rows() -> Iterator[tuple[str, ...]]:
    """Yield what each command takes."""
    yield "command", "argument", "default", "meaning"
    for command in (command for command in all_commands() if command.group):
        parser = argparse.ArgumentParser(add_help=False)
        command.declare(parser)
        for action in parser._actions:  # noqa: SLF001 - argparse tells its arguments in no other way
            flag, value = "".join(action.option_strings), argument_of(action)
            meaning = OF_CHOICES.get(action.dest, "") if action.help == DEFAULT else action.help or ""
            said = code(f"{flag}={value}" if flag and value else flag or value)
            yield code(command.name), said, default_of(action), meaning


def exit_status_rows() -> Iterator[tuple[str, ...]]:
    """Yield the exit statuses."""
    yield "status", "meaning"
    yield from ((str(int(status)), MEANINGS[status]) for status in ExitStatus)


def argument_of(action: argparse.Action) -> str:
    """Return what stands for the value of an argument."""
    if action.choices:
        return "|".join(action.choices)
    many = "..." if action.nargs == "+" else ""
    return f"{action.metavar or action.dest.upper()}{many}" if action.nargs != 0 else ""


def default_of(action: argparse.Action) -> str:
    """Return the default of an argument, where it has one."""
    return code(str(action.default)) if action.default else ""


def function_rows(*functions: Callable[..., Any]) -> Callable[[], Rows]:
    """Return the function that yields functions."""
    return lambda: (("function", "meaning"), *((code(call_of(item)), summary(item)) for item in functions))


def functions_in(module: Any) -> list[Callable[..., Any]]:
    """Return the functions that a module defines."""
    return [item for item in vars(module).values() if inspect.isfunction(item) and item.__module__ == module.__name__]


def class_pages(*kinds: type[Any]) -> Callable[[], str]:
    """Return the function that makes a section for each of some classes of data."""
    return lambda: "\n\n".join("\n\n".join((f"### {kind.__name__}", about(kind), field_table(kind))) for kind in kinds)


def about(kind: type[Any]) -> str:
    """Return the docstring of a class as paragraphs of Markdown."""
    paragraphs = (inspect.getdoc(kind) or "").split("\n\n")
    return "\n\n".join(textwrap.fill(first_line(text), 120, break_on_hyphens=False) for text in paragraphs)


def field_table(kind: type[Any]) -> str:
    """Return the table of the fields of a class."""
    meanings = field_docs(kind)
    head = ("field", "type", "default", "meaning")
    return rendered([head, *(field_row(item, meanings.get(item.name, "")) for item in fields(kind))])


def field_docs(kind: type[Any]) -> dict[str, str]:
    """Return the texts that stand under the fields of a class, by field."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            found[ast.unparse(field.target)] = inspect.cleandoc(ast.literal_eval(text.value))
    return found


def field_row(item: Field[Any], meaning: str) -> tuple[str, ...]:
    """Return the row of a field."""
    return code(item.name), code(str(item.type)), default_of_field(item), first_line(meaning)


def default_of_field(item: Field[Any]) -> str:
    """Return the default of a field as one would write it, or word it."""
    default: Any = item.default
    if item.default_factory is not MISSING or default in ("", ()):
        return "empty"
    if default is MISSING or default is UNSAID:
        return "" if default is MISSING else "unknown"
    return code(getattr(default, "__name__", repr(Shown(default, item.name))))


FEATURES: Final = results.features_of(SUBJECTS)


def recorded() -> list[Results]:
    """Return the recorded conformance."""
    return read_all(str(DOCS / "conformance"))


PARTS: Final[dict[str, type[Any]]] = {
    "processes": Processes,
    "files": Files,
    "network": Network,
    "accounts": AccountDatabase,
    "lifecycle": Lifecycle,
    "clock": Clock,
}
NOT_FOR_TESTS: Final = ("unavailable_reason", "clear_away", "facts", "deadline")
SCRIPTS: Final = [
    function for function in functions_in(fake_machine) if function.__annotations__.get("return") == "Script"
]

TABLES: Final[dict[tuple[str, str], Callable[[], Rows | str]]] = {
    ("options.md", "options"): option_rows,
    ("model.md", "parameters"): parameter_rows,
    ("model.md", "accounts"): account_rows,
    ("model.md", "state"): state_rows,
    ("model.md", "ready"): ready_rows,
    (README, "managers"): status_rows,
    ("managers.md", "managers"): manager_rows,
    ("managers.md", "supervisord"): kind_rows(supervisord.SETTINGS, "settings"),
    ("managers.md", "systemd"): kind_rows(directives.KINDS, "directives"),
    ("managers.md", "launchd"): kind_rows(launchd.KEYS, "keys"),
    ("managers.md", "sysvinit"): sysvinit_rows,
    ("managers.md", "bsdrc"): bsdrc_rows,
    ("managers.md", "cygrunsrv"): cygrunsrv_rows,
    ("managers.md", "docker"): docker_rows,
    ("managers.md", "s6rc"): s6_rc_rows,
    ("conformance.md", "features"): lambda: results.rows(recorded(), FEATURES),
    ("conformance.md", "accepted"): lambda: results.parameter_rows(recorded()),
    ("conformance.md", "reasons"): lambda: results.reason_rows(recorded(), FEATURES),
    ("checks.md", "rules"): rule_rows,
    ("rules.md", "pages"): rule_pages,
    ("reference.md", "names"): name_rows,
    ("reference.md", "process"): member_rows(ManagedProcess),
    ("reference.md", "instance"): member_rows(Instance),
    ("reference.md", "model"): member_rows(ProcessesModel),
    ("reference.md", "state"): member_rows(StateDirs),
    ("reference.md", "files"): class_pages(File, Link),
    ("reference.md", "data"): class_pages(Status, Event, Finding, Origin, Location, Call, Endpoint),
    ("reference.md", "timeline"): member_rows(Timeline, leave_out=("add",)),
    ("reference.md", "errors"): error_rows,
    ("reference.md", "hooks"): hook_rows,
    ("reference.md", "rule"): class_pages(Rule, RuleInput, Snapshot, StopReport, EndReport),
    ("reference.md", "source"): class_pages(Source),
    ("commands.md", "arguments"): argument_rows,
    ("commands.md", "statuses"): exit_status_rows,
    ("reference.md", "parts"): part_rows,
    ("reference.md", "fake"): fake_rows,
    ("reference.md", "scripts"): function_rows(*SCRIPTS),
    ("reference.md", "programs"): function_rows(*functions_in(models)),
    ("testing.md", "fixtures"): fixture_rows,
    ("testing.md", "system"): member_rows(System, leave_out=("start", "stop", "abandon")),
    ("testing.md", "instance"): member_rows(RunningInstance),
    ("testing.md", "machine"): member_rows(Machine, Verbs, leave_out=NOT_FOR_TESTS),
    **{(BENCHMARKS, name): partial(page, name) for name in benchmark_names()},
}


def code(text: str) -> str:
    """Return text as code, or nothing for nothing."""
    return f"`{text}`" if text else ""


def first_line(doc: str) -> str:
    """Return the first paragraph of a docstring as one line of Markdown."""
    paragraph = " ".join(doc.split("\n\n", maxsplit=1)[0].split())
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", paragraph).replace("``", "`")


def summary(documented: object) -> str:
    """Return the first paragraph of an object's docstring."""
    return first_line(inspect.getdoc(documented) or "")


def rendered(rows: Rows | str) -> str:
    """Return rows as a Markdown table; the first one is the head. A text is what it is."""
    if isinstance(rows, str):
        return rows
    head, *body = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join(re.sub(" +", " ", f"| {' | '.join(line)} |") for line in lines)


def place(name: str) -> re.Pattern[str]:
    """Return the pattern of a table's place in a document."""
    return re.compile(rf"(?<=<!-- table: {name} -->\n\n)(.*?)(?=\n\n<!-- end of table -->)", re.DOTALL)


@pytest.mark.parametrize("rule", Registry().rules, ids=lambda rule: rule.code)
def test_every_rule_is_explained(rule: Rule) -> None:
    """A rule of ours says what it looks at and why; the page about rules is made of that."""
    assert len(rule.explanation) > len(rule.asserts)
    assert rule.severity in ("error", "warning")


@pytest.mark.parametrize(("document", "name"), TABLES, ids=[f"{document}-{name}" for document, name in TABLES])
def test_table_agrees_with_its_source(document: str, name: str) -> None:
    """A table that a document shows is the one that the declarations in the code, or recorded results, make."""
    shown = place(name).search((DOCS / document).read_text(encoding="utf-8"))
    assert shown is not None, f"docs/{document} has no table {name!r}"
    assert shown[0] == rendered(TABLES[document, name]()), "run: python tests/docs/test_tables.py"


def test_every_table_is_made_here() -> None:
    """No document has a table of this kind that nothing checks."""
    found = {
        (os.path.relpath(path, DOCS), name)
        for path in (*DOCS.glob("*.md"), DOCS / BENCHMARKS, DOCS / README)
        for name in re.findall(r"<!-- table: (\w+) -->", path.read_text(encoding="utf-8"))
    }
    assert found == TABLES.keys()


def test_every_public_name_is_documented() -> None:
    """What users import, and what they catch, occurs in the documentation."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    caught = [
        name for name, item in vars(errors).items() if inspect.isclass(item) and item.__module__ == errors.__name__
    ]
    assert [name for name in (*pytest_nixproc.__all__, *caught) if not re.search(rf"`{name}\b", text)] == []


def write_all() -> None:
    """Write every table into its document."""
    for (document, name), rows in TABLES.items():
        path = DOCS / document
        before, _, after = place(name).split(path.read_text(encoding="utf-8"))
        path.write_text(before + rendered(rows()) + after, encoding="utf-8")


if __name__ == "__main__":
    write_all()
