"""Model files as test modules: collected into items without test code, which share one deployment per point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_nixproc._planning.planner import LoadModel
from pytest_nixproc._plugin import matrix, options
from pytest_nixproc._plugin.constructor_trials import check_constructor, constructor_at
from pytest_nixproc._plugin.deployer import Deployer, Planned, deployer_of
from pytest_nixproc._plugin.fixtures import as_failure
from pytest_nixproc._plugin.modules import is_named_like_tests
from pytest_nixproc._plugin.session import session_of
from pytest_nixproc._plugin.settings import rules_of
from pytest_nixproc._system import instance_runs, verification
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.model.constructors import ConstructorTrial
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.python import names_bound
from pytest_nixproc.values.findings import Finding
from pytest_nixproc.values.value import Value

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


class ItemCheck(Value):
    """One check of a system that is done by an item."""

    name: str
    look: Callable[[PointDeployment], None]
    """Raises what the item fails with."""

    instance: str = ""
    """The instance that it is about; empty for the whole system."""

    disturbs: bool = False
    """Whether it stops instances."""

    needs_system: bool = True
    """Whether it can only be done to a system that is up."""


@dataclass(eq=False)
class PointDeployment:
    """The system of one point: deployed when the first of its items needs it, and at most once until it is closed."""

    deployer: Deployer
    point: matrix.Point
    load: LoadModel
    stack: ExitStack = field(default_factory=ExitStack)
    problem: str = ""
    _system: System | None = None
    _findings: list[Finding] | None = None

    @property
    def system(self) -> System:
        """The system; raises the errors of its deployment, and skips when that has been tried before."""
        if self.problem:
            raise skipped(self.problem)
        if self._system is None:
            self.deploy()
        assert self._system is not None, "deploy() raises, or sets it"
        return self._system

    def deploy(self) -> None:
        """Bring the system up."""
        try:
            machine = self.stack.enter_context(self.deployer.session.machine_at(self.point))
            used = self.deployer.deployed(self.point, machine, self.load, tolerant=True)
            self._system = self.stack.enter_context(used)
        except Planned:
            self.problem = "planned only"
            raise skipped(self.problem) from None
        except NixprocError as error:
            self.problem = f"not deployed: {error.brief}"
            raise

    def findings(self) -> list[Finding]:
        """Return the findings of the live rules; they are applied anew after the system was disturbed."""
        if self._findings is None:
            self._findings = self.system.inspect()
        return self._findings

    def disturb(self) -> None:
        """Forget the findings: the system is going to be changed."""
        self._findings = None

    def close(self) -> None:
        """Take the system down, unless it is to be kept; it can be deployed again."""
        stack, self.stack = self.stack, ExitStack()
        self._system, self._findings, self.problem = None, None, ""
        stack.close()


def skipped(reason: str) -> BaseException:
    """Return the exception that skips an item, with the model's file as its place instead of ours."""
    return pytest.skip.Exception(reason, _use_item_location=True)


def deploys(deployed: PointDeployment) -> None:
    """Look at nothing more: the system is up, and all of its instances are ready."""
    _ = deployed.system


def has_no_conflicts(deployed: PointDeployment) -> None:
    """Look at all instances together."""
    deployed.system.assert_no_conflicts()


def upgrade_changes_nothing(deployed: PointDeployment) -> None:
    """Upgrade the system to its own model."""
    verification.upgrade_to_itself(deployed.system, deployed.load)


def tears_down_clean(deployed: PointDeployment) -> None:
    """Take the system down, unless it is to be kept."""
    system = deployed.system
    deployed.close()
    if system in deployed.deployer.session.kept:
        raise skipped("the system is kept")


def is_ready(name: str, deployed: PointDeployment) -> None:
    """Look whether an instance is ready."""
    instance_runs.be_ready(deployed.system[name])


def restarts_alone(name: str, deployed: PointDeployment) -> None:
    """Stop an instance and start it again."""
    verification.restart_alone(deployed.system, name)


def is_without_findings(name: str, codes: frozenset[str], deployed: PointDeployment) -> None:
    """Look at the findings about an instance, of rules with some codes."""
    found = deployed.findings()
    verification.have_no_findings(item for item in found if item.code in codes and name in item.instances)


def checks_of(
    model: ProcessesModel, looks: Mapping[str, frozenset[str]], *, is_privileged: bool
) -> Iterator[ItemCheck]:
    """Yield the checks of a model in their order: those that disturb instances come after all that only look.

    ``looks`` has the codes of the live rules that each item of an instance shows.
    """
    yield ItemCheck("deploys", deploys, needs_system=False)
    yield ItemCheck("has_no_conflicts", has_no_conflicts)
    for name, instance in model.items():
        yield ItemCheck("is_ready", partial(is_ready, name), name)
        for title, codes in looks.items():
            if title != RUNS_AS_USER or (is_privileged and instance.pkg.user):
                yield ItemCheck(title, partial(is_without_findings, name, codes), name)
    yield ItemCheck("upgrade_changes_nothing", upgrade_changes_nothing, disturbs=True)
    for name in model:
        yield ItemCheck("restarts_alone", partial(restarts_alone, name), name, disturbs=True)
    yield ItemCheck("tears_down_clean", tears_down_clean, disturbs=True)


class ModelItem(pytest.Item):
    """One check of a model at one point of the matrix."""

    def __init__(self, *, check: ItemCheck, deployed: PointDeployment, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.check = check
        self.deployed = deployed
        facts = {"manager": deployed.point.manager.name, "instance": check.instance, "check": check.name}
        self.add_marker(pytest.mark.nixproc_item(**facts))
        if check.disturbs:
            self.add_marker(pytest.mark.nixproc_disturbs)

    def setup(self) -> None:
        """Deploy the system, if no item has done so yet."""
        if self.check.needs_system:
            with as_failure():
                _ = self.deployed.system

    def runtest(self) -> None:
        """Do the check."""
        if self.check.disturbs:
            self.deployed.disturb()
        with as_failure():
            self.check.look(self.deployed)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return the heading of a failure."""
        return self.path, 0, f"{self.check.instance}::{self.name}" if self.check.instance else self.name


class ModelPoint(pytest.Collector):
    """One point of the matrix: its items share one system, which is taken down with the last of them.

    It has no part in the ids of its items: its name, the point in brackets, ends the name of each.
    """

    def __init__(
        self, *, point: matrix.Point, load: LoadModel, first: Iterable[ItemCheck] = (), **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.deployer = deployer_of(self.config)
        self.deployed = PointDeployment(self.deployer, point, load)
        self.first = first

    def collect(self) -> Iterator[ModelItem | ModelInstance]:
        """Yield the items of the system, and a collector for all that are about one instance, in their order."""
        with as_collection_error(self):
            checks = list(self.checks())
        assert self.parent is not None, "a point is made below a file"
        for instance, some in groupby(checks, lambda check: check.instance):
            if instance:
                nodeid = f"{self.parent.nodeid}::{instance}"
                yield ModelInstance.from_parent(self, name=instance, nodeid=nodeid, point=self, checks=list(some))
            else:
                yield from (self.item(check, self, self.parent.nodeid) for check in some)

    def item(self, check: ItemCheck, parent: pytest.Collector, above: str) -> ModelItem:
        """Return the item of a check, whose id is below ``above``."""
        name = f"{check.name}{self.name}"
        nodeid = f"{above}::{name}"
        return ModelItem.from_parent(parent, name=name, nodeid=nodeid, check=check, deployed=self.deployed)

    def checks(self) -> Iterable[ItemCheck]:
        """Return the checks of the system, in their order."""
        model = self.deployer.preview(self.deployed.point, self.deployed.load)
        is_privileged = self.deployed.point.profile == matrix.PRIVILEGED
        session = self.deployer.session
        used = {rule.code for rule in rules_of(session.registry, session.settings)}
        looks = {name: codes & used for name, codes in SHOWN.items() if codes & used}
        return [*self.first, *checks_of(model, looks, is_privileged=is_privileged)]

    def teardown(self) -> None:
        """Take the system down, if no item has done so."""
        with as_failure():
            self.deployed.close()


class ModelInstance(pytest.Collector):
    """An instance at one point: its items that come one after another."""

    def __init__(self, *, point: ModelPoint, checks: list[ItemCheck], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.point = point
        self.checks = checks

    def collect(self) -> list[ModelItem]:
        """Return the items."""
        return [self.point.item(check, self, self.nodeid) for check in self.checks]


def points_below(
    collector: pytest.Collector, load: LoadModel, first: Iterable[ItemCheck] = ()
) -> Iterator[ModelItem | ModelInstance]:
    """Yield the items of a model at all points that the options choose.

    ``first`` are checks that come before those that every model has.
    """
    make = partial(ModelPoint.from_parent, load=load, first=first)
    yield from items_at(collector, parameters_for(collector), make)


def parameters_for(collector: pytest.Collector) -> list[Any]:
    """Return the points that the options choose, as parameters."""
    with as_collection_error(collector):
        return session_of(collector.config).matrix.parameters(None)


def items_at(
    collector: pytest.Collector, parameters: Iterable[Any], make: Callable[..., ModelPoint]
) -> Iterator[ModelItem | ModelInstance]:
    """Yield the items at some points, those of one point after those of another."""
    for parameter in parameters:
        (point,) = parameter.values
        node = make(collector, name=f"[{parameter.id}]", point=point)
        for mark in parameter.marks:
            node.add_marker(mark)
        yield from node.collect()


class ModelFile(pytest.File):
    """A model file that pytest was given, or that ``nixproc_model_files`` matches."""

    def collect(self) -> Iterator[ModelItem | ModelInstance]:
        """Yield the items of the model."""
        yield from points_below(self, deployer_of(self.config).load(str(self.path), Path()))


class ConstructorFile(pytest.File):
    """A file of which ``--nixproc-constructor`` names constructors."""

    def collect(self) -> Iterator[pytest.Collector]:
        """Yield one collector for each constructor."""
        for name in constructors_asked_for(self.config)[self.path]:
            yield ConstructorNode.from_parent(self, name=name)


class ConstructorNode(pytest.Collector):
    """One constructor: its instances side by side are a model."""

    def collect(self) -> Iterator[ModelItem | ModelInstance]:
        """Yield the items of that model, after that of the constructor itself."""
        vary = options.read_params(self.config, "vary")
        with as_collection_error(self):
            (point,) = parameters_for(self)[0].values
            constructor = constructor_at(deployer_of(self.config), point, f"{self.path}:{self.name}", Path())
            trial = ConstructorTrial(constructor, {name: of_list(value) for name, value in vary.items()})
        check = ItemCheck(
            "passes_parameters_on",
            lambda deployed: check_constructor(deployed.deployer, deployed.point, trial),
            needs_system=False,
        )
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
def as_collection_error(collector: pytest.Collector) -> Iterator[None]:
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
        given = (argument.partition("::")[0] for argument in parent.config.option.file_or_dir or ())
        if not any(parent.config.invocation_params.dir / name == path for name in given):
            return found
    is_given = parent.session.isinitpath(path)
    if is_model(path, parent.config, is_given=is_given):
        found.append(ModelFile.from_parent(parent, path=path))
    keep_module = not found or has_tests(path, parent.config)
    return [*found, *(other for other in others if type(other) is not pytest.Module or keep_module)]


def is_model(path: Path, config: pytest.Config, *, is_given: bool) -> bool:
    """Tell whether a file is collected as a model: a pattern of the option says so, or it was given by itself.

    One that is named like a test module is one if it is given, even when it holds a model's function too.
    """
    is_wanted = is_matched(path, config) or (is_given and not is_named_like_tests(path, config))
    return is_wanted and is_readable(path, config)


def is_matched(path: Path, config: pytest.Config) -> bool:
    """Tell whether a pattern of the option for model files matches a path."""
    return any(path.match(pattern) for pattern in options.read_names(config, "model-files"))


def is_readable(path: Path, config: pytest.Config) -> bool:
    """Tell whether a source recognises a file as a model."""
    sources = session_of(config).registry.sources
    return any(str(path).endswith(source.suffixes) and source.recognises(str(path)) for source in sources)


def has_tests(path: Path, config: pytest.Config) -> bool:
    """Tell whether a module binds names that pytest collects as tests."""
    patterns = [*config.getini("python_functions"), *config.getini("python_classes")]
    names = names_bound(path.read_bytes())
    return any(name.startswith(pattern) or fnmatchcase(name, pattern) for name in names for pattern in patterns)
