"""Files of test definitions as test modules: each script of a definition is an item, at each point of the matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc._plugin import models
from pytest_nixproc._plugin.deployer import deployer_of
from pytest_nixproc._plugin.matrix import Point
from pytest_nixproc._plugin.models import ItemCheck, ModelInstance, ModelItem, ModelPoint, PointDeployment
from pytest_nixproc._plugin.session import session_of
from pytest_nixproc._system.nixos_driver.scripts import ScriptRun, title_of
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Definition, Scripted, suite_reader


class DefinitionLoader:
    """The loader of a definition's model, which keeps the scripts that belong to the model loaded last."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._scripted: Scripted | None = None

    def __call__(self, context: ModelContext) -> ProcessesModel:
        """Load the model, which is evaluated together with the scripts."""
        self._scripted = self.definition.read(context)
        return self._scripted.model

    @property
    def scripted(self) -> Scripted:
        """The model that was loaded, with its scripts."""
        assert self._scripted is not None, "scripts are asked for when their model is loaded"
        return self._scripted


class SuitePoint(ModelPoint):
    """One definition at one point of the matrix: its items are the deployment and the scripts."""

    def __init__(self, *, point: Point, definition: Definition, **context: Any) -> None:
        self.loader = DefinitionLoader(definition)
        self._run: ScriptRun | None = None
        super().__init__(point=point, load=self.loader, **context)

    def checks(self) -> Iterator[ItemCheck]:
        """Yield the deployment, the check for conflicts, and each script that is not empty, in the driver's order."""
        self.deployer.preview(self.deployed.point, self.loader)
        yield ItemCheck("deploys", models.deploys, needs_system=False)
        yield ItemCheck("has_no_conflicts", models.has_no_conflicts)
        for script in self.loader.scripted.scripts:
            yield ItemCheck(script.phase, partial(self.run, script.phase, script.instance), script.instance)

    def run(self, phase: str, instance: str, deployed: PointDeployment) -> None:
        """Run a script of the deployed system, after those that it relies on."""
        if self._run is None or self._run.system is not deployed.system:
            seconds = self.deployer.session.settings.start_seconds
            self._run = ScriptRun(deployed.system, self.loader.scripted, seconds)
        script = self._run.script(phase, instance)
        if script is None:
            raise models.skipped("as deployed, the definition has no script for this")
        if blocking := self._run.blocked_by(script):
            raise models.skipped(f"{title_of(blocking)} has failed")
        self._run.run(script)


class LeftOut(pytest.Item):
    """The item of a definition that is run nowhere, skipped with the reason."""

    def __init__(self, *, reason: str, **context: Any) -> None:
        super().__init__(**context)
        self.add_marker(pytest.mark.skip(reason=reason))

    def runtest(self) -> None:
        """Do nothing; the marker skips it."""

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return the file of the definition."""
        return self.path, 0, self.name


class SuiteNode(pytest.Collector):
    """One definition of a file that has several."""

    def __init__(self, *, definition: Definition, **context: Any) -> None:
        super().__init__(**context)
        self.definition = definition

    def collect(self) -> Iterable[ModelItem | ModelInstance | LeftOut]:
        """Return the definition's items."""
        return items_of(self, self.definition)


class SuiteFile(pytest.File):
    """A file of test definitions that pytest was given, or that ``nixproc_model_files`` matches."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """Yield the items of the only definition, or a collector for each of several."""
        for definition in definitions_in(self):
            if definition.name:
                yield SuiteNode.from_parent(self, name=definition.name, definition=definition)
            else:
                yield from items_of(self, definition)


def definitions_in(file: SuiteFile) -> list[Definition]:
    """Read the definitions of a file, which choose from the managers and profiles of the options."""
    deployer = deployer_of(file.config)
    points = [parameter.values[0] for parameter in models.parameters_for(file)]
    reader = suite_reader(str(file.path), deployer.session.registry.sources)
    assert reader is not None, "other files are not collected as such"
    managers = tuple(dict.fromkeys(point.manager.name for point in points))
    profiles = tuple(dict.fromkeys(point.profile for point in points))
    with models.as_collection_error(file), deployer.session.unbooted(points[0]) as machine:
        planner = deployer.planner(points[0], machine)
        return reader.read(str(file.path), planner.inputs.context(planner.allocate()), managers, profiles)


def items_of(node: SuiteNode | SuiteFile, definition: Definition) -> Iterable[ModelItem | ModelInstance | LeftOut]:
    """Return the items of a definition at all points that both the options and itself choose."""
    chosen = [
        parameter
        for parameter in models.parameters_for(node)
        if parameter.values[0].manager.name in definition.managers
        and parameter.values[0].profile in definition.profiles
    ]
    reason = definition.unavailable_reason or (
        "" if chosen else "it is for other managers or profiles than those chosen"
    )
    if reason:
        return [LeftOut.from_parent(node, name="definition", reason=reason)]
    return models.items_at(node, chosen, partial(SuitePoint.from_parent, definition=definition))


def collected(path: Path, parent: pytest.Collector, others: list[pytest.Collector]) -> list[pytest.Collector]:
    """Return the collectors of a file: of test definitions, of a model, or pytest's own.

    Test definitions are collected from a file that was given by itself, or is matched by the option.
    """
    if is_suite(path, parent.config, is_given=parent.session.isinitpath(path)):
        return [SuiteFile.from_parent(parent, path=path), *others]
    return models.collected(path, parent, others)


def is_deployed(path: Path, config: pytest.Config, *, is_given: bool) -> bool:
    """Tell whether a file has items that deploy systems: as definitions, as a model, or as its constructors."""
    return (
        is_suite(path, config, is_given=is_given)
        or models.is_model(path, config, is_given=is_given)
        or path in models.constructors_asked_for(config)
    )


def is_suite(path: Path, config: pytest.Config, *, is_given: bool) -> bool:
    """Tell whether a file is collected as one of test definitions: it is named or given, and a source recognises it."""
    is_wanted = is_given or models.is_matched(path, config)
    return is_wanted and suite_reader(str(path), session_of(config).registry.sources) is not None
