"""Evaluations of processes expressions: at most one run of Nix for the same content and arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Self

from pytest_nixproc.errors import SourceError
from pytest_nixproc.model.ids import ProvisionalIds
from pytest_nixproc.model.names import camel_case
from pytest_nixproc.sources.api import Arguments
from pytest_nixproc.sources.nix import command, complaints
from pytest_nixproc.sources.nix.ids import IdFiles, id_files
from pytest_nixproc.sources.nix.memory import Memory, inputs_of

PLACE: Final = "\x1astate\x1a"
"""What stands for a deployment's directory in what is kept; Nix's strings cannot come by it but on purpose."""

FOR_SOURCES: Final = ("state", "free_port")
"""What Python models are told and Nix has no value for."""


@dataclass(frozen=True)
class Evaluation:
    """What an expression yields: instances as JSON text, the store paths that it needs, and what files say on ids."""

    text: str
    needs: tuple[str, ...]
    pools: Any
    recorded: Any

    @classmethod
    def read(cls, facts: Mapping[str, Any], place: str) -> Self:
        """Read what is kept, for a deployment's directory."""
        text = facts["text"].replace(PLACE, place)
        return cls(text, tuple(facts["needs"]), facts["pools"], facts["recorded"])

    @cached_property
    def document(self) -> Any:
        """The text as data."""
        return json.loads(self.text)


@dataclass(frozen=True)
class Suite:
    """What is wanted of a file of test definitions: all of them, or the one of a ``name``, whose model is in a file.

    ``managers`` and ``profiles`` are those that it is to choose from.
    """

    managers: tuple[str, ...]
    profiles: tuple[str, ...]
    name: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Construction:
    """What is wanted of the constructor at a path of names: its parameters, or instances of sets of values by names."""

    path: tuple[str, ...]
    sets: Mapping[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Evaluator:
    """Evaluates one expression with one set of arguments.

    For a ``suite``, that is a file of test definitions, and for a ``construction`` one of constructors.
    """

    expression: command.Expression
    arguments: Arguments
    suite: Suite | None = None
    construction: Construction | None = None

    @property
    def origin(self) -> str:
        """What is evaluated, for messages."""
        name = ".".join(self.construction.path) if self.construction else ""
        return f"{self.expression.origin}:{name}" if name else self.expression.origin

    @cached_property
    def offered(self) -> dict[str, Any]:
        """The arguments that the expression can ask for, by their names in Nix."""
        everywhere = replace(self.arguments, params={}).offered()
        known = {camel_case(name): value for name, value in everywhere.items() if name not in FOR_SOURCES}
        own = self.arguments.params
        ids = {pool: dict(numbers) for pool, numbers in self.arguments.ids.items()}
        return {**known, "ids": ids, **{camel_case(name): value for name, value in own.items()}, **own}

    @cached_property
    def id_files(self) -> IdFiles:
        """The files on ids that belong to the expression."""
        model = command.expression_at(self.suite.model) if self.suite and self.suite.model else self.expression
        return id_files(model, self.arguments.id_resources, self.arguments.ids_file)

    @property
    def needs_ids(self) -> bool:
        """Tell whether no ids are assigned yet."""
        return isinstance(self.arguments.ids, ProvisionalIds)

    def evaluate(self, apply: Mapping[str, Any] | None = None) -> Evaluation:
        """Evaluate the expression, or ``apply`` one of its function overrides.

        Raises :class:`~pytest_nixproc.errors.SourceError`.
        """
        tools = self.arguments.tools
        memory = Memory(tools.cache, self.expression.origin)
        with memory.locked(tools.seconds):
            for place, ids in self._possible():
                found = memory.recall(self._key(memory, place, ids, apply))
                if found is not None and all(os.path.lexists(path.partition("!")[0]) for path in found["needs"]):
                    return Evaluation.read(found, self._place)
            result, said = self._run(apply)
            result["needs"] = list(needs_of(result["context"]))
            self._keep(memory, result, said, apply)
        return Evaluation.read(result, self._place)

    @property
    def _place(self) -> str:
        return self.arguments.state.state_dir

    def _possible(self) -> Iterator[tuple[str, Any]]:
        """Yield what a result may depend on of the deployment's directory and of the ids."""
        ids = None if self.needs_ids else self.offered["ids"]
        for place in (PLACE, self._place):
            yield place, ids
            yield place, "not accepted"

    def _key(self, memory: Memory, place: str, ids: object, apply: object) -> str:
        # Programs may count on how long a path is, so those of equal length alone are alike.
        facts = [{**self.offered, "ids": None}, vars(self.id_files), self._variety, apply]
        rest = json.dumps(facts, sort_keys=True).replace(self._place, place)
        return memory.key(rest, len(self._place), ids, self._circumstances)

    @cached_property
    def _circumstances(self) -> tuple[object, ...]:
        """What else decides about a result: Nix itself, our own part, and the environment."""
        return command.identity(), command.environment(may_download=self.arguments.tools.may_download)

    def _request(self, apply: Mapping[str, Any] | None, *, keeps_functions: bool) -> dict[str, Any]:
        return {
            "model": self.expression.path,
            "isFlake": self.expression.is_flake,
            "attribute": self.expression.attribute,
            "offered": self.offered,
            "needsIds": self.needs_ids,
            "idResources": self.id_files.resources,
            "ids": self.id_files.ids,
            **self._variety,
            "apply": apply,
            "keepsFunctions": keeps_functions,
        }

    @property
    def _variety(self) -> dict[str, dict[str, Any] | None]:
        """What kind of file it is, as part of a request."""
        kinds = {"suite": self.suite, "constructor": self.construction}
        return {name: None if kind is None else vars(kind) for name, kind in kinds.items()}

    @property
    def _is_list(self) -> bool:
        """Tell whether only a list of what there is is wanted, which says nothing of what models accept."""
        is_of_definitions = self.suite is not None and self.suite.name is None
        return is_of_definitions or (self.construction is not None and self.construction.sets is None)

    def _run(self, apply: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
        """Run Nix; return its result, and what it has said on the way.

        Where the original framework meets an override that is a function, Nix is run again, with an eye to that.
        """
        tools = self.arguments.tools
        for keeps_functions in (False, True):
            request = self._request(apply, keeps_functions=keeps_functions)
            status, output = tools.run(command.evaluation(request, may_download=tools.may_download), tools.seconds)
            said, begin, text = output.rpartition(command.RESULT)
            if status == 0 or command.NO_FUNCTIONS not in output:
                break
        if status != 0:
            raise complaints.evaluation_error(self.expression, status, output, tools.seconds)
        # Nix may have something to say at its very end, too.
        result: dict[str, Any] = json.JSONDecoder().raw_decode(begin + text)[0]
        if "problem" in result:
            names = result.get("names", ())
            raise complaints.form_error(self.origin, result["problem"], names, self.offered)
        if not self._is_list and (refused := self.arguments.params.keys() - self._accepted(result["accepts"])):
            remedy = f"it accepts {', '.join(result['accepts']) or 'none'}"
            raise SourceError(f"{self.origin}: it has no parameter {min(refused)!r}", remedy=remedy)
        return result, said

    def _accepted(self, accepts: Iterable[str]) -> set[str]:
        """Return the user's own parameters that an expression accepts, in either spelling."""
        return {name for name in self.arguments.params if {name, camel_case(name)} & set(accepts)}

    def _keep(self, memory: Memory, result: dict[str, Any], said: str, apply: object) -> None:
        """Keep a result for all deployments for which it is the same, unless what it depends on is beyond bounds."""
        fixed = (f"{result['storeDir']}/", f"{command.HERE}/")
        searched = (f"{os.path.realpath(path)}/" for path in result["searched"])
        shallow = tuple(path for path in searched if not f"{os.path.realpath(self.expression.path)}/".startswith(path))
        first = f"{self.expression.path}/flake.nix" if self.expression.is_flake else self.expression.path
        inputs = inputs_of(said, first, fixed, shallow)
        if inputs is None:
            return
        place = self._place if holds_text(result["needs"], self._place) else PLACE
        kept = {name: result[name] for name in ("needs", "pools", "recorded")}
        kept["text"] = result["text"].replace(self._place, place)
        ids: list[object] = [self.offered["ids"]]
        if "ids" not in result["accepts"]:
            ids = ["not accepted"]
        elif self.needs_ids:
            ids = [None, result["ids"]]
        memory.keep([self._key(memory, place, each, apply) for each in ids], inputs, kept)


def needs_of(context: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what a string context names, as nix-store wants it: ``DERIVATION!OUTPUT``, or a path of the store."""
    for path, entry in context.items():
        if entry.get("path") or entry.get("allOutputs"):
            yield path
        for output in entry.get("outputs", ()):
            yield f"{path}!{output}"


def holds_text(needs: Iterable[str], text: str) -> bool:
    """Tell whether a derivation, or one that it needs, has a text in it, or a file that was written to the store."""
    wanted = text.encode(errors="surrogateescape")
    left, seen = [path.partition("!")[0] for path in needs], set[str]()
    while left:
        path = left.pop()
        if path in seen or not os.path.isfile(path):
            continue
        seen.add(path)
        with open(path, "rb") as file:
            content = file.read()
        if wanted in content:
            return True
        if path.endswith(".drv"):
            left += referenced(content.decode(errors="surrogateescape"), os.path.dirname(path))
    return False


def referenced(derivation: str, store: str) -> Iterator[str]:
    """Yield the paths of the store that a derivation has as inputs, and its own outputs, which do no harm."""
    return (f"{store}/{part.partition(chr(34))[0]}" for part in derivation.split(f'"{store}/')[1:])
