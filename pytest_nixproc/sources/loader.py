"""A model in any of its forms: a path, a function, a model, or a mapping of names to instances."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pytest_nixproc.errors import SourceError
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Source, read_model
from pytest_nixproc.sources.python import model_of
from pytest_nixproc.values.value import Value

ModelLike = str | os.PathLike[str] | Callable[..., Mapping[str, Instance]] | ProcessesModel | Mapping[str, Instance]


class ModelLoader(Value):
    """A loader of models in any of their forms."""

    sources: tuple[Source, ...] = ()
    directory: str = ""
    """Directory that paths are relative to; empty for the working directory."""

    def loader(self, model: object) -> Callable[[ModelContext], ProcessesModel]:
        """Return the function that loads a :data:`ModelLike`.

        Raises :class:`~pytest_nixproc.errors.SourceError` for anything else.
        """
        if isinstance(model, str | os.PathLike):
            path = str(Path(self.directory, model))
            return lambda arguments: read_model(path, arguments, self.sources)
        if isinstance(model, ProcessesModel):
            return lambda _: model
        if isinstance(model, Mapping):
            return lambda _: ProcessesModel(model)
        if not callable(model):
            remedy = "give a path, a function that returns instances by name, these instances, or a ProcessesModel"
            raise SourceError(f"{model!r} is no model", remedy=remedy)
        return partial(model_of, model)
