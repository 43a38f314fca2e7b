"""Models in Nix: expressions, evaluated and built by the machine's own Nix.

An expression yields instances whose ``pkg`` comes from ``createManagedProcess``: that of the library which it imports
as ``<pytest-nixproc>``, or that of the original framework.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Arguments, Source
from pytest_nixproc.sources.nix import command, complaints, ids
from pytest_nixproc.sources.nix.evaluation import Evaluator
from pytest_nixproc.sources.nix.reading import Reader


def read_nix(path: str, arguments: Arguments) -> ProcessesModel:
    """Evaluate an expression; what it refers to is built when the model is deployed."""
    expression = command.expression_at(path)
    evaluator = Evaluator(expression, arguments)
    evaluation = evaluator.evaluate()
    needs = dict.fromkeys(evaluation.needs)

    def apply(instance: str, names: list[str], parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        wanted = {"instance": instance, "path": names, "parameters": parameters}
        applied = evaluator.evaluate(apply=wanted)
        needs.update(dict.fromkeys(applied.needs))
        document = applied.document
        return dict((json.loads(document["configJSON"]) if "configJSON" in document else document)["applied"])

    def provide(directory: str) -> None:
        build(expression, list(needs), directory, arguments)

    reader = Reader(evaluation.document, expression.origin, apply)
    return reader.model(*ids.read(evaluation.pools, evaluation.recorded, evaluator.id_files), provide)


def build(expression: command.Expression, needs: list[str], directory: str, arguments: Arguments) -> None:
    """Build derivations, and keep the results while the directory exists.

    Raises :class:`~pytest_nixproc.errors.SourceError` with the end of a failing builder's log.
    """
    if not needs:
        return
    tools = arguments.tools
    status, output = tools.run(command.build(needs, directory, may_download=tools.may_download), tools.seconds)
    if status != 0:
        raise complaints.build_error(expression.origin, status, output, tools.seconds)


@hookimpl
def nixproc_sources() -> list[Source]:
    """Offer this source."""
    return [Source("nix", (".nix",), read_nix, takes_attribute=True, ids=ids.RECORD)]
