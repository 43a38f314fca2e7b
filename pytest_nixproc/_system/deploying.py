"""The types of the fixtures that deploy for the time of a ``with`` block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from pytest_nixproc._system.system import System
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.sources.loader import ModelLike


class Deploy(Protocol):
    """The type of the fixture ``nixproc_deploy``."""

    def __call__(
        self, model: ModelLike | None = None, *, params: Mapping[str, object] | None = None
    ) -> AbstractContextManager[System]:
        """Deploy a model for the time of a ``with`` block; raise the errors of the deployment as they are."""


class ValidateConstructor(Protocol):
    """The type of the fixture ``nixproc_constructor``."""

    def __call__(
        self,
        constructor: str | Callable[..., Instance | ManagedProcess],
        *,
        vary: Mapping[str, Sequence[object]] | None = None,
        shared: Mapping[str, object] | Callable[..., Mapping[str, object]] | None = None,
    ) -> AbstractContextManager[System]:
        """Compare instances of a constructor, deploy them for the time of a ``with`` block, and restart each."""
