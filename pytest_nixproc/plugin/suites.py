"""Files of test definitions as test modules: each script of a definition is an item, at each point of the matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc.deployment.scripts import ScriptRun, title_of
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.plugin import models, options
from pytest_nixproc.plugin.matrix import Point
from pytest_nixproc.plugin.models import Check, Deployed, ModelItem, ModelPoint, Selection
from pytest_nixproc.plugin.systems import systems_of
from pytest_nixproc.sources.api import Arguments, Definition, Scripted, suite_reader


class Loader:
    """Loads the model of a definition, and keeps the scripts that belong to what it has loaded last."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._scripted: Scripted | None = None

    def __call__(self, arguments: Arguments) -> ProcessesModel:
        """Load the model, which is evaluated together with the scripts."""
        self._scripted = self.definition.read(arguments)
        return self._scripted.model

    @property
    def scripted(self) -> Scripted:
        """The model that was loaded, with its scripts."""
        assert self._scripted is not None, "scripts are asked for when their model is loaded"
        return self._scripted


class SuitePoint(ModelPoint):
    """One definition at one point of the matrix: its items are the deployment and the scripts."""

    def __init__(self, *, point: Point, definition: Definition, **arguments: Any) -> None:
        self.loader = Loader(definition)
        self._run: ScriptRun | None = None
        super().__init__(point=point, load=self.loader, **arguments)

    def checks(self) -> Iterator[Check]:
        """Yield the deployment, what rules find in it, and each script that says anything, in the driver's order."""
        self.systems.preview(self.deployed.point, self.loader)
        yield Check("deploys", models.deploys, needs_system=False)
        yield Check("has_no_conflicts", models.has_no_conflicts)
        for script in self.loader.scripted.scripts:
            yield Check(script.phase, partial(self.run, script.phase, script.instance), script.instance)

    def run(self, phase: str, instance: str, deployed: Deployed) -> None:
        """Run a script of the deployed system, after those that it relies on."""
        scripts = self._scripts_of(deployed)
        script = scripts.script(phase, instance)
        if script is None:
            raise models.skipped("as deployed, the definition has no script for this")
        if blocking := scripts.blocked_by(script):
            raise models.skipped(f"{title_of(blocking)} has failed")
        scripts.run(script)

    def _scripts_of(self, deployed: Deployed) -> ScriptRun:
        if self._run is None or self._run.system is not deployed.system:
            seconds = self.systems.settings.start_seconds
            self._run = ScriptRun(deployed.system, self.loader.scripted, seconds)
        return self._run


class LeftOut(pytest.Item):
    """A definition that is run nowhere, and why."""

    def __init__(self, *, reason: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.add_marker(pytest.mark.skip(reason=reason))

    def runtest(self) -> None:
        """Do nothing; the marker skips it."""

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where it was found."""
        return self.path, 0, self.name


class SuiteNode(pytest.Collector):
    """One definition of a file that has several."""

    def __init__(self, *, definition: Definition, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.definition = definition

    def collect(self) -> Iterable[ModelItem | Selection | LeftOut]:
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
    systems = systems_of(file.config)
    points = [parameter.values[0] for parameter in models.parameters_for(file)]
    reader = suite_reader(str(file.path), systems.registry.sources)
    assert reader is not None, "other files are not collected as such"
    managers = tuple(dict.fromkeys(point.manager.name for point in points))
    profiles = tuple(dict.fromkeys(point.profile for point in points))
    with models.told_by_collector(file), systems.unbooted(points[0]) as machine:
        planner = systems.planner(points[0], machine)
        return reader.read(str(file.path), planner.arguments(planner.choose_site()), managers, profiles)


def items_of(node: SuiteNode | SuiteFile, definition: Definition) -> Iterable[ModelItem | Selection | LeftOut]:
    """Return the items of a definition at all points that both the options and itself choose."""
    chosen = [
        parameter
        for parameter in models.parameters_for(node)
        if parameter.values[0].manager.name in definition.managers
        and parameter.values[0].profile in definition.profiles
    ]
    reason = definition.obstacle or ("" if chosen else "it is for other managers or profiles than those chosen")
    if reason:
        return [LeftOut.from_parent(node, name="definition", reason=reason)]
    return models.items_at(node, chosen, partial(SuitePoint.from_parent, definition=definition))


def collected(path: Path, parent: pytest.Collector, others: list[pytest.Collector]) -> list[pytest.Collector]:
    """Return the collectors of a file: of test definitions, of a model, or pytest's own."""
    if is_suite(path, parent.session):
        return [SuiteFile.from_parent(parent, path=path), *others]
    return models.collected(path, parent, others)


def is_given_module(path: Path, config: pytest.Config) -> bool:
    """Tell whether a file that is given by itself is a test module as a model, or because of its test definitions."""
    return is_readable(path, config) or models.is_given_model(path, config)


def is_readable(path: Path, config: pytest.Config) -> bool:
    """Tell whether a source recognises test definitions in a file."""
    return suite_reader(str(path), systems_of(config).registry.sources) is not None


def is_suite(path: Path, session: pytest.Session) -> bool:
    """Tell whether a file holds test definitions, and was given by itself or is matched by the option."""
    patterns = options.read_names(session.config, "model-files")
    is_wanted = session.isinitpath(path) or any(path.match(pattern) for pattern in patterns)
    return is_wanted and is_readable(path, session.config)
