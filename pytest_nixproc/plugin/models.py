"""Model files as test modules: collected into items without test code, which share one deployment per point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_nixproc.checks.api import Finding
from pytest_nixproc.deployment import verification
from pytest_nixproc.deployment.planner import Load
from pytest_nixproc.deployment.system import System
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.plugin import matrix, options
from pytest_nixproc.plugin.fixtures import failing_plainly
from pytest_nixproc.plugin.modules import is_named_like_tests
from pytest_nixproc.plugin.systems import Planned, Systems, systems_of
from pytest_nixproc.sources.api import is_model_file
from pytest_nixproc.sources.constructors import Trial
from pytest_nixproc.sources.python import names_bound

RUNS_AS_USER: Final = "runs_as_user"
"""The item that only instances with a user of their own have, where users are switched."""

SHOWN: Final[Mapping[str, frozenset[str]]] = {
    "listens": frozenset({"NP202", "NP203", "NP207"}),
    "pid_file": frozenset({"NP204", "NP205"}),
    "writes_only_state": frozenset({"NP208", "NP209", "NP214"}),
    "runs_as_described": frozenset({"NP210", "NP211", "NP212", "NP213"}),
    RUNS_AS_USER: frozenset({"NP206"}),
}
"""The live rules that items of instances show, by the items' names; all others are shown by the system's alone."""


@dataclass(frozen=True)
class Check:
    """What one item does: its name, the instance that it is about (or the whole system), and the look itself.

    One that ``disturbs`` stops instances; one that ``needs_system`` can only be done to a system that is up.
    """

    name: str
    look: Callable[[Deployed], None]
    instance: str = ""
    disturbs: bool = False
    needs_system: bool = True

    @property
    def title(self) -> str:
        """What the item is called within its point."""
        return f"{self.instance}::{self.name}" if self.instance else self.name


@dataclass(eq=False)
class Deployed:
    """The system of one point: deployed when the first of its items needs it, and at most once until it is closed."""

    systems: Systems
    point: matrix.Point
    load: Load
    stack: ExitStack = field(default_factory=ExitStack)
    problem: str = ""
    _system: System | None = None
    _findings: list[Finding] | None = None

    @property
    def system(self) -> System:
        """The system; raises what its deployment raises, and skips when that has been tried before."""
        if self.problem:
            raise skipped(self.problem)
        if self._system is None:
            self.deploy()
        assert self._system is not None, "deploy() raises, or sets it"
        return self._system

    def deploy(self) -> None:
        """Bring the system up."""
        try:
            machine = self.stack.enter_context(self.systems.machine_at(self.point))
            used = self.systems.deployed(self.point, machine, self.load, tolerant=True)
            self._system = self.stack.enter_context(used)
        except Planned:
            self.problem = "planned only"
            raise skipped(self.problem) from None
        except NixprocError as error:
            self.problem = f"not deployed: {error.brief}"
            raise

    def findings(self) -> list[Finding]:
        """Return what the live rules find; looked for anew after the system was disturbed."""
        if self._findings is None:
            self._findings = self.system.inspect()
        return self._findings

    def disturb(self) -> None:
        """Forget what was seen of the system: it is going to be changed."""
        self._findings = None

    def close(self) -> None:
        """Take the system down, unless it is to be kept; it can be deployed again."""
        stack, self.stack = self.stack, ExitStack()
        self._system, self._findings, self.problem = None, None, ""
        stack.close()


def skipped(reason: str) -> BaseException:
    """Return what skips an item, with the model's file as the place instead of ours."""
    return pytest.skip.Exception(reason, _use_item_location=True)


def passes_parameters_on(trial: Trial, deployed: Deployed) -> None:
    """Look at what a constructor makes of different parameters; nothing is started for that."""
    deployed.systems.check_constructor(deployed.point, trial)


def deploys(deployed: Deployed) -> None:
    """Look at nothing more: the system is up, and all of its instances are ready."""
    _ = deployed.system


def has_no_conflicts(deployed: Deployed) -> None:
    """Look at all instances together."""
    verification.have_no_errors(deployed.system)


def upgrade_changes_nothing(deployed: Deployed) -> None:
    """Upgrade the system to its own model."""
    verification.upgrade_to_itself(deployed.system, deployed.load)


def tears_down_clean(deployed: Deployed) -> None:
    """Take the system down, unless it is to be kept."""
    system = deployed.system
    deployed.close()
    if system in deployed.systems.kept:
        raise skipped("the system is kept")


def is_ready(name: str, deployed: Deployed) -> None:
    """Look whether an instance is ready."""
    verification.be_ready(deployed.system, name)


def restarts_alone(name: str, deployed: Deployed) -> None:
    """Stop an instance and start it again."""
    verification.restart_alone(deployed.system, name)


def is_without_findings(name: str, codes: frozenset[str], deployed: Deployed) -> None:
    """Look at what rules of some codes say about an instance."""
    found = deployed.findings()
    verification.have_no_findings(item for item in found if item.code in codes and name in item.instances)


def checks_of(model: ProcessesModel, looks: Mapping[str, frozenset[str]], *, is_privileged: bool) -> Iterator[Check]:
    """Yield the checks of a model in their order: what disturbs instances comes after all that only looks.

    ``looks`` has the codes of the live rules that each item of an instance shows.
    """
    yield Check("deploys", deploys, needs_system=False)
    yield Check("has_no_conflicts", has_no_conflicts)
    for name, instance in model.items():
        yield Check("is_ready", partial(is_ready, name), name)
        for title, codes in looks.items():
            if title != RUNS_AS_USER or (is_privileged and instance.pkg.user):
                yield Check(title, partial(is_without_findings, name, codes), name)
    yield Check("upgrade_changes_nothing", upgrade_changes_nothing, disturbs=True)
    for name in model:
        yield Check("restarts_alone", partial(restarts_alone, name), name, disturbs=True)
    yield Check("tears_down_clean", tears_down_clean, disturbs=True)


def looks_of(systems: Systems) -> dict[str, frozenset[str]]:
    """Return the codes that items of instances show, of the rules that the options choose, by the items' names."""
    used = {rule.code for rule in systems.rules}
    return {name: codes & used for name, codes in SHOWN.items() if codes & used}


class ModelItem(pytest.Item):
    """One check of a model at one point of the matrix; ``parent`` is the point."""

    def __init__(self, *, check: Check, deployed: Deployed, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.check = check
        self.deployed = deployed
        facts = {"manager": deployed.point.manager.name, "instance": check.instance, "check": check.name}
        self.add_marker(pytest.mark.nixproc_item(**facts))
        if check.disturbs:
            self.add_marker(pytest.mark.nixproc_disturbs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.check.title}>"

    def setup(self) -> None:
        """Deploy the system, if no item has done so yet."""
        if self.check.needs_system:
            with failing_plainly():
                _ = self.deployed.system

    def runtest(self) -> None:
        """Do the check."""
        if self.check.disturbs:
            self.deployed.disturb()
        with failing_plainly():
            self.check.look(self.deployed)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return what the heading of a failure says."""
        return self.path, 0, self.name


class ModelPoint(pytest.Collector):
    """One point of the matrix: its items share one system, which is taken down with the last of them."""

    def __init__(self, *, point: matrix.Point, load: Load, first: Iterable[Check] = (), **arguments: Any) -> None:
        super().__init__(**arguments)
        self.systems = systems_of(self.config)
        self.deployed = Deployed(self.systems, point, load)
        self.first = first

    def collect(self) -> list[ModelItem]:
        """Return the items; their names begin with the point's, so that each can be selected by its id."""
        with told_by_collector(self):
            checks = list(self.checks())
        return [self._item(check, f"{self.name}::{check.title}") for check in checks]

    def checks(self) -> Iterable[Check]:
        """Return what is done to the system, in its order."""
        model = self.systems.preview(self.deployed.point, self.deployed.load)
        is_privileged = self.deployed.point.profile == matrix.PRIVILEGED
        return [*self.first, *checks_of(model, looks_of(self.systems), is_privileged=is_privileged)]

    def _item(self, check: Check, name: str) -> ModelItem:
        nodeid = f"{self.parent.nodeid}::{name}" if self.parent else name
        item: ModelItem = ModelItem.from_parent(self, check=check, deployed=self.deployed, name=name, nodeid=nodeid)
        return item

    def teardown(self) -> None:
        """Take the system down, if no item has done so."""
        with failing_plainly():
            self.deployed.close()


class Selection(pytest.Collector):
    """What an id selects that names a point, or an instance at it: ``processes.py::[MANAGER]::web``."""

    def __init__(self, *, items: list[ModelItem], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.items = items

    def collect(self) -> list[ModelItem]:
        """Return the selected items."""
        return self.items


def points_below(
    collector: pytest.Collector, load: Load, first: Iterable[Check] = ()
) -> Iterator[ModelItem | Selection]:
    """Yield the items of a model at all points that the options choose, and what ids on the command line select.

    ``first`` are checks that come before those that every model has.
    """
    make = partial(ModelPoint.from_parent, load=load, first=first)
    yield from items_at(collector, parameters_for(collector), make)


def parameters_for(collector: pytest.Collector) -> list[Any]:
    """Return the points that the options choose, as parameters."""
    with told_by_collector(collector):
        return systems_of(collector.config).matrix.parameters(None)


def items_at(
    collector: pytest.Collector, parameters: Iterable[Any], make: Callable[..., ModelPoint]
) -> Iterator[ModelItem | Selection]:
    """Yield the items at some points, and what ids on the command line select of them."""
    items: list[ModelItem] = []
    for parameter in parameters:
        (point,) = parameter.values
        name = f"[{parameter.id}]"
        node = make(collector, name=name, point=point)
        for mark in parameter.marks:
            node.add_marker(mark)
        items += node.collect()
    yield from items
    for name in prefixes_asked_for(collector):
        if chosen := [item for item in items if item.name.startswith(f"{name}::")]:
            yield Selection.from_parent(collector, name=name, items=chosen)


def prefixes_asked_for(collector: pytest.Collector) -> Iterator[str]:
    """Yield what the ids on the command line name below a collector, beginning with the point."""
    for argument in collector.config.args:
        base, bracket, rest = argument.partition("[")
        path, *names = base.split("::")
        above = [] if isinstance(collector, pytest.File) else [collector.name]
        if bracket and names == [*above, ""] and collector.config.invocation_params.dir / path == collector.path:
            yield f"{bracket}{rest}"


class ModelFile(pytest.File):
    """A model file that pytest was given, or that ``nixproc_model_files`` matches."""

    def collect(self) -> Iterator[ModelItem | Selection]:
        """Yield the items of the model."""
        yield from points_below(self, systems_of(self.config).load(str(self.path), Path()))


class ConstructorFile(pytest.File):
    """A file of which ``--nixproc-constructor`` names constructors."""

    def collect(self) -> Iterator[pytest.Collector]:
        """Yield one collector for each constructor."""
        for name in constructors_asked_for(self.config)[self.path]:
            yield ConstructorNode.from_parent(self, name=name)


class ConstructorNode(pytest.Collector):
    """One constructor: its instances side by side are a model."""

    def collect(self) -> Iterator[ModelItem | Selection]:
        """Yield the items of that model, after that of the constructor itself."""
        vary = options.read_params(self.config, "vary")
        with told_by_collector(self):
            (point,) = parameters_for(self)[0].values
            constructor = systems_of(self.config).constructor(point, f"{self.path}:{self.name}", Path())
            trial = Trial(constructor, {name: of_list(value) for name, value in vary.items()})
        check = Check("passes_parameters_on", partial(passes_parameters_on, trial), needs_system=False)
        yield from points_below(self, trial.load, [check])


def of_list(value: object) -> list[Any]:
    """Return a list as it is, and in place of anything else one of a single value, which a trial refuses."""
    return value if isinstance(value, list) else [value]


def constructors_asked_for(config: pytest.Config) -> dict[Path, list[str]]:
    """Return the constructors that the options name, by their files."""
    found: dict[Path, list[str]] = {}
    for line in options.read(config, "constructor").splitlines():
        file, name = options.file_and_name(line)
        found.setdefault(config.invocation_params.dir / file, []).append(name)
    return found


@contextmanager
def told_by_collector(collector: pytest.Collector) -> Iterator[None]:
    """Turn our errors into errors of the collection, which show their text and no traceback."""
    try:
        yield
    except NixprocError as error:
        raise collector.CollectError(str(error)) from None


def collected(path: Path, parent: pytest.Collector, others: list[pytest.Collector]) -> list[pytest.Collector]:
    """Return the collectors of a file: those of constructors and models, and pytest's of a module only if it has tests.

    A file that is collected only because the option names a constructor in it is nothing else.
    """
    found: list[pytest.Collector] = []
    if path in constructors_asked_for(parent.config):
        found.append(ConstructorFile.from_parent(parent, path=path))
        if not any(parent.config.invocation_params.dir / name == path for name in given_paths(parent.config)):
            return found
    if is_model(path, parent.session):
        found.append(ModelFile.from_parent(parent, path=path))
    keep_module = not found or has_tests(path, parent.config)
    return [*found, *(other for other in others if type(other) is not pytest.Module or keep_module)]


def given_paths(config: pytest.Config) -> list[str]:
    """Return the paths among the arguments that the user gave to pytest."""
    return [argument.partition("::")[0] for argument in config.option.file_or_dir or ()]


def is_model(path: Path, session: pytest.Session) -> bool:
    """Tell whether a file is collected as a model: a pattern of the option says so, or it was given by itself."""
    if session.isinitpath(path) and is_given_model(path, session.config):
        return True
    patterns = options.read_names(session.config, "model-files")
    return any(path.match(pattern) for pattern in patterns) and is_readable(path, session.config)


def is_given_model(path: Path, config: pytest.Config) -> bool:
    """Tell whether a file is a model if it is given by itself.

    What looks like a test module by its name is one, even when it holds a model's function too.
    """
    return not is_named_like_tests(path, config) and is_readable(path, config)


def is_readable(path: Path, config: pytest.Config) -> bool:
    """Tell whether a source recognises a file as a model."""
    return is_model_file(str(path), systems_of(config).registry.sources)


def has_tests(path: Path, config: pytest.Config) -> bool:
    """Tell whether a module binds names that pytest takes for tests."""
    patterns = [*config.getini("python_functions"), *config.getini("python_classes")]
    names = names_bound(path.read_bytes())
    return any(name.startswith(pattern) or fnmatchcase(name, pattern) for name in names for pattern in patterns)
