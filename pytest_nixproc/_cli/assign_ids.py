"""``nixproc assign-ids``: ids for the instances of a model, written down once for all."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import Final

from pytest_nixproc._cli.api import Result, Say, Subcommand
from pytest_nixproc._persistence.files import replace_file
from pytest_nixproc._planning.planner import Planner
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._registry import Registry
from pytest_nixproc.errors import NixprocError, SourceError
from pytest_nixproc.model.context import DEFAULT_MANAGER
from pytest_nixproc.model.ids import ProvisionalIds, assign
from pytest_nixproc.sources.api import params_in, source_of
from pytest_nixproc.values.state import StateDirs


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser: the model, its arguments, and the files of ids."""
    parser.add_argument("model", help="the model's file")
    parser.add_argument(
        "--id-resources", default="", metavar="FILE", help="the pools, if not idresources.nix beside it"
    )
    parser.add_argument("--ids", default="", metavar="FILE", help="the ids so far, if not ids.nix beside it")
    parser.add_argument(
        "--output", default="", metavar="FILE", help="where to write; - prints [default: where ids are]"
    )
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="an argument for the model")
    parser.add_argument(
        "--manager", default=DEFAULT_MANAGER, metavar="NAME", help="the manager that the model is told of"
    )


def run(options: argparse.Namespace, say: Say) -> Result:
    """Write down ids for all instances of a model that require some; those that they have are retained."""
    registry = Registry()
    source = source_of(options.model, registry.sources)
    if source.ids is None:
        remedy = "models in Nix do"
        raise SourceError(f"{options.model}: models of this kind keep no ids in a file", remedy=remedy)
    settings = Settings(
        params=params_in(options.param), id_resources=options.id_resources, ids_file=options.ids, privileged=True
    )
    with registry.machine("host")() as machine:
        planner = Planner(registry.manager(options.manager), machine, registry.rules, settings)
        context = replace(planner.inputs.context(planner.allocate()), state=StateDirs.under(), ids=ProvisionalIds())
        model = source.read(options.model, context)
    assigned = assign(model.pools, model.id_requests, model.recorded_ids, lambda _, __: False)
    text, path = source.ids.text(assigned), ""
    if options.output == "-":
        say(text)
    else:
        path = os.path.realpath(options.output or source.ids.file(options.model, context))
        replace_text(path, text)
        say(f"wrote {path}")
    return Result(facts={"file": path, "ids": assigned.ids})


def replace_text(path: str, text: str) -> None:
    """Replace a user's file atomically, and keep its mode; raises :class:`~pytest_nixproc.errors.NixprocError`."""
    try:
        if os.path.exists(path):
            mode = os.stat(path).st_mode
        else:
            # Which modes new files do not get can only be read by setting it.
            mask = os.umask(0o077)
            os.umask(mask)
            mode = 0o666 & ~mask
        replace_file(path, text)
        os.chmod(path, mode)
    except OSError as error:
        raise NixprocError(f"cannot write {path}: {error.strerror}") from error


COMMAND: Final = Subcommand(
    "assign-ids", "models", "assign the ids that a model in Nix requires, once for all", declare, run
)
