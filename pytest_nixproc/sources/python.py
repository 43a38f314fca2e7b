"""Models in Python: a file, or a function, that returns instances by name."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

from pytest_nixproc.errors import NixprocError, SourceError
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model.constructors import Constructed, Constructor, Parameter
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Source
from pytest_nixproc.values.state import StateDirs

FUNCTION = "processes"


def read_python(path: str, context: ModelContext) -> ProcessesModel:
    """Execute a file and call its ``processes``; modules beside the file can be imported by it."""
    path = os.path.abspath(path)
    with importing_from(os.path.dirname(path)):
        module = executed(path)
        function = getattr(module, FUNCTION, None)
        if not callable(function):
            remedy = f"define {FUNCTION}(state) to return a mapping of names to instances"
            raise SourceError(f"{path} defines no function {FUNCTION!r}", remedy=remedy)
        return model_of(function, context, origin=path)


def executed(path: str) -> ModuleType:
    """Execute a file, and return its module."""
    with as_source_error(path):
        spec = importlib.util.spec_from_file_location(f"nixproc_model_{abs(hash(path))}", path)
        assert spec is not None, "a path that ends in .py has a loader"
        assert spec.loader is not None, "a path that ends in .py has a loader"
        module = importlib.util.module_from_spec(spec)
        # Data classes and pickles look their module up; importing_from forgets it like a sibling.
        sys.modules[module.__name__] = module
        spec.loader.exec_module(module)
    return module


def read_constructor(path: str, name: str, context: ModelContext) -> Constructor:  # noqa: ARG001 - told by its signature
    """Execute a file, and return the constructor that it defines under a name."""
    path = os.path.abspath(path)
    siblings: dict[str, ModuleType] = {}
    with importing_from(os.path.dirname(path), siblings):
        function = getattr(executed(path), name, None)
        if not callable(function):
            raise SourceError(f"{path} defines no constructor {name!r}", remedy="name one of its functions: FILE:NAME")
        constructor = constructor_of(function, origin=f"{path}:{name}")

    def make(context: ModelContext, sets: Sequence[Mapping[str, Any]]) -> Constructed:
        with importing_from(os.path.dirname(path), siblings):
            return constructor.make(context, sets)

    return replace(constructor, make=make)


def constructor_of(function: Callable[..., Any], *, origin: str = "") -> Constructor:
    """Return a function as a constructor; arguments that models can ask for are no parameters of an instance."""
    origin = origin or name_of(function).removesuffix("()")
    offered = ModelContext(state=StateDirs.under()).offered()
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    formal = {name: item for name, item in inspect.signature(function).parameters.items() if item.kind not in several}

    def make_one(given: Mapping[str, Any], values: Mapping[str, Any]) -> Instance | ManagedProcess:
        named = {name: given[name] for name in formal if name in given} | dict(values)
        with as_source_error(origin):
            made = function(**named)
        if not isinstance(made, Instance | ManagedProcess):
            remedy = "return what create_managed_process() or Instance() makes"
            raise SourceError(f"{origin} returned {type(made).__name__}", remedy=remedy)
        return made

    def make(context: ModelContext, sets: Sequence[Mapping[str, Any]]) -> Constructed:
        refuse_unknown(context.params.keys() - formal, formal, origin)
        given = replace(context, params={}).offered()
        return Constructed([make_one(given, values) for values in sets])

    parameters = {name: parameter_of(item) for name, item in formal.items() if name not in offered}
    return Constructor(getattr(function, "__name__", "constructor"), origin, parameters, make)


def parameter_of(formal: inspect.Parameter) -> Parameter:
    """Return a parameter of a function as a parameter of a constructor."""
    annotation = formal.annotation
    declared = "" if annotation is formal.empty else getattr(annotation, "__name__", str(annotation))
    is_required = formal.default is formal.empty
    return Parameter(formal.name, is_required, None if is_required else formal.default, declared)


def defines_model(path: str) -> bool:
    """Tell whether a file binds ``processes``; one that cannot be parsed but mentions it is a model with an error."""
    with open(path, "rb") as file:
        text = file.read()
    return FUNCTION.encode() in text and FUNCTION in names_bound(text, default=FUNCTION)


def names_bound(text: bytes, default: str = "") -> set[str]:
    """Return the names that a module binds at its top level; ``default`` when its text cannot be parsed."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return {default}
    return set(names_in(tree.body))


def names_in(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names that statements and their blocks bind, but not those bound inside functions and classes."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        else:
            yield from names_in(ast.iter_child_nodes(node))


def model_of(function: Callable[..., Any], context: ModelContext, *, origin: str = "") -> ProcessesModel:
    """Call a model function with the arguments that its signature names."""
    origin = origin or name_of(function)
    instances = call(function, context, origin)
    if isinstance(instances, ProcessesModel):
        return instances
    if not isinstance(instances, Mapping):
        remedy = "return a mapping of names to instances"
        raise SourceError(f"{origin}: {FUNCTION}() returned {type(instances).__name__}", remedy=remedy)
    # Objects that can be called have no module; then there are no pools.
    pools: Mapping[str, object] | None = getattr(function, "__globals__", {}).get("id_resources")
    return ProcessesModel(instances, origin=origin, id_resources=pools)


def call(function: Callable[..., Any], context: ModelContext, origin: str = "") -> Any:
    """Call a user's function with the arguments that its signature names; turn its errors into one of ours."""
    origin = origin or name_of(function)
    chosen = choose(function, context, origin)
    with as_source_error(origin):
        return function(**chosen)


def name_of(function: Callable[..., Any]) -> str:
    """Return the file and name of a function; the name alone for other objects that can be called."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__name__", repr(function))
    return f"{code.co_filename}:{name}()" if code else name


def choose(function: Callable[..., Any], context: ModelContext, origin: str) -> dict[str, Any]:
    """Return the arguments for a model function; raise for required ones without a value, and for unknown ones."""
    offered = context.offered()
    formal = inspect.signature(function).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in formal.values())
    named = {name for name, parameter in formal.items() if parameter.kind is not parameter.VAR_KEYWORD}
    for name in named - offered.keys():
        if (
            formal[name].default is inspect.Parameter.empty
            and formal[name].kind is not inspect.Parameter.VAR_POSITIONAL
        ):
            remedy = f"pass it with --nixproc-param={name}=VALUE; always there are {', '.join(sorted(offered))}"
            raise SourceError(f"{origin}: {FUNCTION}() asks for {name!r}, which is not known", remedy=remedy)
    if not takes_all:
        refuse_unknown(context.params.keys() - named, named, f"{origin}: {FUNCTION}()")
    return {name: value for name, value in offered.items() if name in named or (takes_all and name in context.params)}


def refuse_unknown(unknown: AbstractSet[str], known: Iterable[str], function: str) -> None:
    """Raise an error for parameters of the user's own that a function does not have."""
    if unknown:
        remedy = f"it accepts {', '.join(sorted(known)) or 'none'}"
        raise SourceError(f"{function} has no parameter {min(unknown)!r}", remedy=remedy)


@contextmanager
def as_source_error(origin: str) -> Iterator[None]:
    """Turn an error of a user's code into one error that shows the user's lines and none of ours."""
    try:
        yield
    except NixprocError:
        raise
    except SyntaxError as error:
        place = f"{error.filename}:{error.lineno}"
        raise SourceError(f"{place}: {error.msg}", details=(error.text or "").rstrip()) from error
    except FileNotFoundError as error:
        if error.filename == origin:
            raise SourceError(f"no model file {origin}", remedy="check its path") from error
        raise SourceError(f"{origin}: {error}", details=own_frames(error)) from error
    except (Exception, SystemExit) as error:
        # One that exits would end all of pytest, without a word about the model.
        raise SourceError(f"{origin}: {type(error).__name__}: {error}", details=own_frames(error)) from error


def own_frames(error: BaseException) -> str:
    """Return the lines of a traceback that are neither ours nor the import system's."""
    foreign = [f"{os.path.dirname(file)}{os.sep}" for file in (os.path.dirname(__file__), importlib.__file__)]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*foreign, "<frozen"))
    ]
    return "".join(traceback.format_list(frames)).rstrip()


@contextmanager
def importing_from(directory: str, siblings: dict[str, ModuleType] | None = None) -> Iterator[None]:
    """Let a model import its siblings; forget them afterwards, as another model's may have the same names.

    ``siblings`` remembers them instead, until it is given again.
    """
    own = {} if siblings is None else siblings
    before = set(sys.modules)
    sys.modules.update({name: module for name, module in own.items() if name not in before})
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path.remove(directory)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(f"{directory}{os.sep}"):
                own[name] = sys.modules.pop(name)


@hookimpl
def nixproc_sources() -> list[Source]:
    """Return the reader of models in Python files, for the registry."""
    return [Source("python", (".py",), read_python, recognises=defines_model, constructor=read_constructor)]
