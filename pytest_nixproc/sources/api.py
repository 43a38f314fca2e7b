"""The contract of a source of models, and the functions that choose a source for a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pytest_nixproc.errors import SourceError
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.ids import Assignments
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.value import Value


def any_file(path: str) -> bool:  # noqa: ARG001 - most kinds are told by their suffix
    """Recognise every file."""
    return True


class IdRecord(Value):
    """The way in which one kind of model keeps the ids of its instances."""

    file: Callable[[str, ModelContext], str]
    """Returns the file of the ids, given the path of the model."""

    text: Callable[[Assignments], str]
    """Returns the text to write into the file of the ids."""


class Script(Value):
    """One phase of a test definition: Python text that tests a system with the verbs of the NixOS test driver."""

    phase: str
    instance: str
    """Instance that the phase is about; empty for the whole system."""

    text: str
    place: str
    """File and line where the user has written the script; empty where they are not known."""

    needed: bool
    """Whether the script has to have run before those that follow it."""


class Scripted(Value):
    """A model, with the scripts that test its system."""

    model: ProcessesModel
    scripts: tuple[Script, ...]
    """Scripts in the order in which they run."""

    path: tuple[str, ...]
    """Directories in which the scripts find programs."""


class Definition(Value):
    """A test of a system that is defined by scripts."""

    name: str
    """Name that tells the test from others in its file."""

    managers: tuple[str, ...]
    """Managers under which the test runs."""

    profiles: tuple[str, ...]
    """Profiles in which the test runs."""

    unavailable_reason: str
    """Why the test cannot run with this package; empty if it can."""

    read: Callable[[ModelContext], Scripted]
    """Reads the model and its scripts; raises the errors of reading a model."""


class SuiteReader(Value):
    """A reader of one kind of file that defines tests."""

    recognises: Callable[[str], bool]
    """Tells whether a file defines tests, without executing it."""

    read: Callable[[str, ModelContext, Sequence[str], Sequence[str]], list[Definition]]
    """Returns the definitions of a file, given the names of the managers and profiles that they can choose from."""


class Source(Value):
    """One kind of model file: its suffixes, and the function that reads it."""

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[str, ModelContext], ProcessesModel]
    """Reads a model.

    Raises :class:`~pytest_nixproc.errors.SourceError` or :class:`~pytest_nixproc.errors.ModelError`.
    """

    takes_attribute: bool = False
    """Whether the source also reads ``PATH#ATTRIBUTE``, where the path may be a directory."""

    recognises: Callable[[str], bool] = any_file
    """Tells, without executing anything, whether an existing file of that suffix is meant to be a model."""

    ids: IdRecord | None = None
    """How ids are kept from one deployment to another; None where they are not."""

    constructor: Callable[[str, str, ModelContext], Any] | None = None
    """Returns the :class:`~.constructors.Constructor` that a file has under a name; None if such files have none.

    Raises the errors of ``read``.
    """

    suite: SuiteReader | None = None
    """Reader of test definitions in such files; None where they have none."""

    def reads(self, path: str) -> bool:
        """Tell whether a model is of this kind, by its path."""
        file, hash_sign, _ = path.partition("#")
        has_attribute = self.takes_attribute and hash_sign and (os.path.isdir(file) or file.endswith(self.suffixes))
        return path.endswith(self.suffixes) or bool(has_attribute)


def suite_reader(path: str, sources: Iterable[Source]) -> SuiteReader | None:
    """Return the reader of an existing file that defines tests; None for any other file."""
    readers = (source.suite for source in sources if path.endswith(source.suffixes))
    return next((reader for reader in readers if reader and reader.recognises(path)), None)


def params_in(lines: Iterable[str]) -> dict[str, Any]:
    """Read arguments for a model, each ``NAME=VALUE``, where a value is JSON or else text."""
    params: dict[str, Any] = {}
    for line in lines:
        name, equals, text = line.strip().partition("=")
        if not equals or not name.replace("-", "_").isidentifier():
            raise SourceError(f"{line}: write NAME=VALUE")
        try:
            params[name] = json.loads(text)
        except json.JSONDecodeError:
            params[name] = text
    return params


def read_model(path: str, context: ModelContext, sources: tuple[Source, ...]) -> ProcessesModel:
    """Read a model file with the source of its suffix."""
    return source_of(path, sources).read(path, context)


def source_of(path: str, sources: tuple[Source, ...]) -> Source:
    """Return the source that reads an existing model file, by its name."""
    for source in sources:
        if source.reads(path):
            if not os.path.exists(path if os.path.isfile(path) else path.partition("#")[0]) or os.path.isdir(path):
                raise SourceError(f"no model file {path}", remedy="check its path")
            return source
    suffixes = ", ".join(suffix for source in sources for suffix in source.suffixes)
    raise SourceError(f"{path} is no model file", remedy=f"its name has to end in one of {suffixes}")
