"""Evaluations of processes expressions: at most one run of Nix for the same content and arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any, Final, Self

from pytest_nixproc.errors import SourceError
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.ids import ProvisionalIds
from pytest_nixproc.model.names import camel_case
from pytest_nixproc.sources.nix import command, errors
from pytest_nixproc.sources.nix.cache import EvaluationCache, inputs_of
from pytest_nixproc.sources.nix.ids import IdFiles, id_files
from pytest_nixproc.values.value import Value

PLACE: Final = "\x1astate\x1a"
"""Stands for a deployment's directory in kept results; Nix's strings cannot come by it but on purpose."""

FOR_SOURCES: Final = ("state", "free_port")
"""Arguments of Python models that Nix has no value for."""


class Evaluation(Value):
    """The result of an expression."""

    text: str
    """Instances as JSON text."""

    needs: tuple[str, ...]
    """Derivations and store paths that the instances need, as nix-store takes them."""

    pools: Any
    """Content of the file of pools."""

    recorded: Any
    """Content of the file of assigned ids."""

    @classmethod
    def read(cls, facts: Mapping[str, Any], place: str) -> Self:
        """Return the evaluation of a fresh or cached result, with a deployment's directory filled in."""
        text = facts["text"].replace(PLACE, place)
        return cls(text, tuple(facts["needs"]), facts["pools"], facts["recorded"])

    @cached_property
    def document(self) -> Any:
        """The content of ``text``, parsed from JSON."""
        return json.loads(self.text)


class Suite(Value):
    """A request for the definitions in a file of tests."""

    managers: tuple[str, ...]
    """Managers that the definitions choose from."""

    profiles: tuple[str, ...]
    """Profiles that the definitions choose from."""

    name: str | None = None
    """Name of the one definition that is wanted; None for all."""

    model: str | None = None
    """File of that definition's model."""


class Construction(Value):
    """A request to a constructor: for its parameters, or for instances."""

    path: tuple[str, ...]
    """Names that lead to the constructor."""

    sets: Mapping[str, Mapping[str, Any]] | None = None
    """Values of each instance, by its name; None to ask for the parameters."""


class Evaluator(Value):
    """An evaluator of one expression with one set of arguments."""

    expression: command.ProcessesExpression
    context: ModelContext
    suite: Suite | None = None
    """The request, if the expression is a file of test definitions."""

    construction: Construction | None = None
    """The request, if the expression is a file of constructors."""

    @property
    def origin(self) -> str:
        """The name of the evaluated expression, for messages."""
        name = ".".join(self.construction.path) if self.construction else ""
        return f"{self.expression.origin}:{name}" if name else self.expression.origin

    @cached_property
    def offered(self) -> dict[str, Any]:
        """The arguments that the expression can ask for, by their names in Nix."""
        everywhere = replace(self.context, params={}).offered()
        known = {camel_case(name): value for name, value in everywhere.items() if name not in FOR_SOURCES}
        own = self.context.params
        ids = {pool: dict(numbers) for pool, numbers in self.context.ids.items()}
        return {**known, "ids": ids, **{camel_case(name): value for name, value in own.items()}, **own}

    @cached_property
    def id_files(self) -> IdFiles:
        """The files of id pools and assigned ids that belong to the expression."""
        model = command.expression_at(self.suite.model) if self.suite and self.suite.model else self.expression
        return id_files(model, self.context.id_resources, self.context.ids_file)

    @property
    def needs_ids(self) -> bool:
        """Tell whether no ids are assigned yet."""
        return isinstance(self.context.ids, ProvisionalIds)

    def evaluate(self, apply: Mapping[str, Any] | None = None) -> Evaluation:
        """Evaluate the expression, or ``apply`` one of its function overrides.

        Raises :class:`~pytest_nixproc.errors.SourceError`.
        """
        tools = self.context.tools
        cache = EvaluationCache(tools.cache, self.expression.origin)
        with cache.locked(tools.seconds):
            # What a result may depend on of the deployment's directory and of the ids.
            assigned = None if self.needs_ids else self.offered["ids"]
            for place, ids in product((PLACE, self._place), (assigned, "not accepted")):
                found = cache.recall(self._key(cache, place, ids, apply))
                if found is not None and all(os.path.lexists(path.partition("!")[0]) for path in found["needs"]):
                    return Evaluation.read(found, self._place)
            result, said = self._run(apply)
            result["needs"] = list(needs_of(result["context"]))
            self._keep(cache, result, said, apply)
        return Evaluation.read(result, self._place)

    @property
    def _place(self) -> str:
        return self.context.state.state_dir

    def _key(self, cache: EvaluationCache, place: str, ids: object, apply: object) -> str:
        # Programs may count on how long a path is, so those of equal length alone are alike.
        facts = [{**self.offered, "ids": None}, vars(self.id_files), self._variety, apply]
        rest = json.dumps(facts, sort_keys=True).replace(self._place, place)
        return cache.key(rest, len(self._place), ids, self._circumstances)

    @cached_property
    def _circumstances(self) -> tuple[object, ...]:
        """The other facts that decide about a result: Nix itself, our own part, and the environment."""
        return command.identity(), command.environment(may_download=self.context.tools.may_download)

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
        """The kind of the file, as part of a request."""
        wanted = {"suite": self.suite, "constructor": self.construction}
        return {name: None if kind is None else vars(kind) for name, kind in wanted.items()}

    def _run(self, apply: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
        """Run Nix; return its result, and the log before it.

        Where upstream's library meets an override that is a function, Nix is run again, with an eye to that.
        """
        tools = self.context.tools
        for keeps_functions in (False, True):
            request = self._request(apply, keeps_functions=keeps_functions)
            status, output = tools.run(command.evaluation(request, may_download=tools.may_download), tools.seconds)
            said, begin, text = output.rpartition(command.RESULT)
            if status == 0 or command.NO_FUNCTIONS not in output:
                break
        if status != 0:
            raise errors.evaluation_error(self.expression, status, output, tools.seconds)
        # Nix may have something to say at its very end, too.
        result: dict[str, Any] = json.JSONDecoder().raw_decode(begin + text)[0]
        if "problem" in result:
            names = result.get("names", ())
            raise errors.form_error(self.origin, result["problem"], names, self.offered)
        self._refuse_params(result["accepts"])
        return result, said

    def _refuse_params(self, accepts: Sequence[str]) -> None:
        """Raise for a parameter of the user's that an expression accepts in neither spelling."""
        lists_definitions = self.suite is not None and self.suite.name is None
        if lists_definitions or (self.construction is not None and self.construction.sets is None):
            # A list of what there is says nothing of what models accept.
            return
        refused = [name for name in self.context.params if {name, camel_case(name)}.isdisjoint(accepts)]
        if refused:
            remedy = f"it accepts {', '.join(accepts) or 'none'}"
            raise SourceError(f"{self.origin}: it has no parameter {min(refused)!r}", remedy=remedy)

    def _keep(self, cache: EvaluationCache, result: dict[str, Any], said: str, apply: object) -> None:
        """Keep a result for all deployments for which it is the same, unless it depends on too many files."""
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
        cache.keep([self._key(cache, place, each, apply) for each in ids], inputs, kept)


def needs_of(context: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the names in a string context, as nix-store takes them: ``DERIVATION!OUTPUT``, or a path of the store."""
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
            # Its inputs, and its own outputs, which do no harm.
            store, derivation = os.path.dirname(path), content.decode(errors="surrogateescape")
            left += (f"{store}/{part.partition(chr(34))[0]}" for part in derivation.split(f'"{store}/')[1:])
    return False
