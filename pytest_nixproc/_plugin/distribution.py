"""The distribution of model files' items over the workers of pytest-xdist; imported only when that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler import LoadGroupScheduling, LoadScopeScheduling

from pytest_nixproc._plugin.suites import is_deployed


def each_alone(_: object, nodeid: str) -> str:
    """Return a test's own id: the test may run on any worker."""
    return nodeid


SCOPES: Final[Mapping[str, Callable[[Any, str], str]]] = {
    "load": each_alone,
    "worksteal": each_alone,
    "loadscope": LoadScopeScheduling._split_scope,  # noqa: SLF001 - pytest-xdist's own way to be extended
    "loadgroup": LoadGroupScheduling._split_scope,  # noqa: SLF001 - the same
}
"""The distributions that would tear the items of one system apart, with what each keeps together."""


class ModelScheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """The scheduler that gives all items of a model to one worker: its points may use the same ports.

    The tests of other files are distributed as they were without it.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._has_models = cache(partial(has_models, config))

    @cached_property
    def _nodes(self) -> set[str]:
        """The constructors, and the definitions in files with several: each has systems of its own."""
        return {nodeid.partition("::deploys[")[0] for nodeid in self.collection if "::deploys[" in nodeid}

    def _split_scope(self, nodeid: str) -> str:
        file, _, names = nodeid.partition("::")
        if not self._has_models(self.config.rootpath / file):
            return SCOPES[self.config.getvalue("dist")](self, nodeid)
        node = f"{file}::{names.partition('::')[0]}"
        return node if node in self._nodes else file


def has_models(config: pytest.Config, path: Path) -> bool:
    """Tell whether the items of a file, or some of them, are those of models."""
    given = (config.invocation_params.dir / argument.partition("::")[0] for argument in config.args)
    return is_deployed(path, config, is_given=path in given)
