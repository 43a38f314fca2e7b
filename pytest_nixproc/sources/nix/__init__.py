"""Models in Nix: expressions, evaluated and built by the machine's own Nix.

An expression yields instances whose ``pkg`` comes from ``createManagedProcess``: that of the library which it imports
as ``<pytest-nixproc>``, or that of the original framework.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Arguments, Definition, Scripted, Source, SuiteReader
from pytest_nixproc.sources.constructors import Constructor, Made
from pytest_nixproc.sources.nix import command, complaints, constructors, ids, roots, suites
from pytest_nixproc.sources.nix.evaluation import Construction, Evaluation, Evaluator, Suite
from pytest_nixproc.sources.nix.memory import Memory
from pytest_nixproc.sources.nix.reading import Reader


def read_nix(path: str, arguments: Arguments) -> ProcessesModel:
    """Evaluate an expression; what it refers to is built when the model is deployed."""
    evaluator = Evaluator(command.expression_at(path), arguments)
    evaluation = evaluator.evaluate()
    return model_of(evaluator, evaluation, evaluation.document, evaluator.expression.origin)


def model_of(evaluator: Evaluator, evaluation: Evaluation, instances: Mapping[str, Any], origin: str) -> ProcessesModel:
    """Return the model of evaluated instances."""
    reader, provide = reader_of(evaluator, evaluation, instances, origin)
    return reader.model(*ids.read(evaluation.pools, evaluation.recorded, evaluator.id_files), provide)


def reader_of(
    evaluator: Evaluator, evaluation: Evaluation, instances: Mapping[str, Any], origin: str
) -> tuple[Reader, Callable[[str], None]]:
    """Return what reads evaluated instances, and what builds that which those need that have been read."""
    needs = dict.fromkeys(evaluation.needs)

    def apply(instance: str, names: list[str], parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        wanted = {"instance": instance, "path": names, "parameters": parameters}
        applied = evaluator.evaluate(apply=wanted)
        needs.update(dict.fromkeys(applied.needs))
        document = applied.document
        return dict((json.loads(document["configJSON"]) if "configJSON" in document else document)["applied"])

    def provide(directory: str) -> None:
        build(evaluator.expression, list(needs), directory, evaluator.arguments)

    return Reader(instances, origin, apply), provide


def read_constructor(path: str, name: str, arguments: Arguments) -> Constructor:
    """Evaluate a file of constructors, and return the one of a name, or at a path of names."""
    steps = tuple(name.split("."))
    looking = Evaluator(command.expression_at(path), arguments, construction=Construction(steps))
    parameters = constructors.parameters_of(looking.evaluate().document)

    def make(arguments: Arguments, sets: Sequence[Mapping[str, Any]]) -> Made:
        own = {key: value for key, value in arguments.params.items() if key not in parameters}
        named = {f"{steps[-1]}-{number}": values for number, values in enumerate(sets, 1)}
        construction = Construction(steps, constructors.values_in_nix(named, looking.origin))
        evaluator = replace(looking, arguments=replace(arguments, params=own), construction=construction)
        evaluation = evaluator.evaluate()
        reader, provide = reader_of(evaluator, evaluation, evaluation.document, looking.origin)
        return constructors.made_by(reader, named, provide)

    return Constructor(steps[-1], looking.origin, parameters, make)


def read_suite(path: str, arguments: Arguments, managers: Sequence[str], profiles: Sequence[str]) -> list[Definition]:
    """Evaluate a file of test definitions; the model of each is evaluated when it is read."""
    choice = Suite(tuple(managers), tuple(profiles))
    listed = Evaluator(command.expression_at(path), arguments, choice).evaluate().document
    return [definition_of(path, name, facts, choice) for name, facts in listed.items()]


def definition_of(path: str, name: str, facts: Mapping[str, Any], choice: Suite) -> Definition:
    """Return one definition of a file."""
    chosen = replace(choice, name=name, model=facts["exprFile"])

    def read(arguments: Arguments) -> Scripted:
        evaluator = Evaluator(command.expression_at(path), arguments, chosen)
        evaluation = evaluator.evaluate()
        found = evaluation.document
        model = model_of(evaluator, evaluation, found["instances"], facts["exprFile"])
        return suites.scripted(model, found["suite"])

    managers = suites.names_of(facts["processManagers"], choice.managers)
    profiles = suites.names_of(facts["profiles"], choice.profiles)
    return Definition(name, managers, profiles, suites.NO_MACHINE if facts["needsMachine"] else "", read)


SUITE: Final = SuiteReader(suites.defines_tests, read_suite)


def build(expression: command.Expression, needs: list[str], directory: str, arguments: Arguments) -> None:
    """Build derivations, and keep the results while the directory exists.

    Raises :class:`~pytest_nixproc.errors.SourceError` with the end of a failing builder's log.
    """
    tools = arguments.tools
    memory = Memory(tools.cache, expression.origin)
    key = memory.key("built", needs)
    if not needs or ((outputs := memory.recall(key)) and roots.protect(outputs, directory)):
        return
    status, output = tools.run(
        command.build(needs, directory, tools.seconds, may_download=tools.may_download),
        tools.seconds + 2 * command.END_SECONDS,
    )
    if status != 0:
        raise complaints.build_error(expression.origin, status, output, tools.seconds)
    memory.keep([key], {}, roots.outputs_in(directory))


@hookimpl
def nixproc_sources() -> list[Source]:
    """Offer this source."""
    return [
        Source(
            "nix",
            (".nix",),
            read_nix,
            takes_attribute=True,
            ids=ids.RECORD,
            constructor=read_constructor,
            suite=SUITE,
        )
    ]
