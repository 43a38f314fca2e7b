"""Expressions in Nix, which are evaluated, and whose derivations are built."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_nixproc.model.constructors import Constructed, Constructor
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Definition, Scripted
from pytest_nixproc.sources.nix import command, constructors, errors, gc_roots, ids, suites
from pytest_nixproc.sources.nix.cache import EvaluationCache
from pytest_nixproc.sources.nix.evaluation import Construction, Evaluation, Evaluator, Suite
from pytest_nixproc.sources.nix.reading import Reader


def read_nix(path: str, context: ModelContext) -> ProcessesModel:
    """Evaluate an expression and return its model; derivations are built when the model is deployed."""
    evaluator = Evaluator(command.expression_at(path), context)
    evaluation = evaluator.evaluate()
    return model_of(evaluator, evaluation, evaluation.document, evaluator.expression.origin)


def model_of(evaluator: Evaluator, evaluation: Evaluation, instances: Mapping[str, Any], origin: str) -> ProcessesModel:
    """Return the model of evaluated instances."""
    reader, provide = reader_of(evaluator, evaluation, instances, origin)
    return reader.model(*ids.read(evaluation.pools, evaluation.recorded, evaluator.id_files), provide)


def reader_of(
    evaluator: Evaluator, evaluation: Evaluation, instances: Mapping[str, Any], origin: str
) -> tuple[Reader, Callable[[str], None]]:
    """Return a reader of evaluated instances, and a function that builds all that the instances read so far need."""
    needs = dict.fromkeys(evaluation.needs)

    def apply(instance: str, names: list[str], parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        wanted = {"instance": instance, "path": names, "parameters": parameters}
        applied = evaluator.evaluate(apply=wanted)
        needs.update(dict.fromkeys(applied.needs))
        document = applied.document
        return dict((json.loads(document["configJSON"]) if "configJSON" in document else document)["applied"])

    def provide(directory: str) -> None:
        build(evaluator.expression, list(needs), directory, evaluator.context)

    return Reader(instances, origin, apply), provide


def read_constructor(path: str, name: str, context: ModelContext) -> Constructor:
    """Evaluate a file of constructors, and return the constructor with the given name or attribute path."""
    steps = tuple(name.split("."))
    looking = Evaluator(command.expression_at(path), context, construction=Construction(steps))
    parameters = constructors.parameters_of(looking.evaluate().document)

    def make(context: ModelContext, sets: Sequence[Mapping[str, Any]]) -> Constructed:
        own = {key: value for key, value in context.params.items() if key not in parameters}
        named = {f"{steps[-1]}-{number}": values for number, values in enumerate(sets, 1)}
        construction = Construction(steps, constructors.values_in_nix(named, looking.origin))
        evaluator = replace(looking, context=replace(context, params=own), construction=construction)
        evaluation = evaluator.evaluate()
        reader, provide = reader_of(evaluator, evaluation, evaluation.document, looking.origin)
        return constructors.made_by(reader, named, provide)

    return Constructor(steps[-1], looking.origin, parameters, make)


def read_suite(path: str, context: ModelContext, managers: Sequence[str], profiles: Sequence[str]) -> list[Definition]:
    """Evaluate a file of test definitions; the model of each is evaluated when it is read."""
    choice = Suite(tuple(managers), tuple(profiles))
    listed = Evaluator(command.expression_at(path), context, choice).evaluate().document
    return [definition_of(path, name, facts, choice) for name, facts in listed.items()]


def definition_of(path: str, name: str, facts: Mapping[str, Any], choice: Suite) -> Definition:
    """Return one test definition of a file."""
    chosen = replace(choice, name=name, model=facts["exprFile"])

    def read(context: ModelContext) -> Scripted:
        evaluator = Evaluator(command.expression_at(path), context, chosen)
        evaluation = evaluator.evaluate()
        found = evaluation.document
        model = model_of(evaluator, evaluation, found["instances"], facts["exprFile"])
        return suites.scripted(model, found["suite"])

    managers = suites.names_of(facts["processManagers"], choice.managers)
    profiles = suites.names_of(facts["profiles"], choice.profiles)
    return Definition(name, managers, profiles, suites.NO_MACHINE if facts["needsMachine"] else "", read)


def build(expression: command.ProcessesExpression, needs: list[str], directory: str, context: ModelContext) -> None:
    """Build derivations, and protect the results from garbage collection while ``directory`` exists.

    Raises :class:`~pytest_nixproc.errors.SourceError` with the end of a failing builder's log.
    """
    tools = context.tools
    cache = EvaluationCache(tools.cache, expression.origin)
    key = cache.key("built", needs)
    if not needs or ((outputs := cache.recall(key)) and gc_roots.protect(outputs, directory)):
        return
    status, output = tools.run(
        command.build(needs, directory, tools.seconds, may_download=tools.may_download),
        tools.seconds + 2 * command.END_SECONDS,
    )
    if status != 0:
        raise errors.build_error(expression.origin, status, output, tools.seconds)
    cache.keep([key], {}, gc_roots.outputs_in(directory))
