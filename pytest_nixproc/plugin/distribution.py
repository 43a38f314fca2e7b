"""How the items of model files are spread over the workers of pytest-xdist; imported only when that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from xdist.scheduler import LoadGroupScheduling, LoadScopeScheduling

from pytest_nixproc.plugin.ids import POINT


def each_alone(_: object, nodeid: str) -> str:
    """Let a test go anywhere."""
    return nodeid


SCOPES: Final[Mapping[str, Callable[[Any, str], str]]] = {
    "load": each_alone,
    "worksteal": each_alone,
    "loadscope": LoadScopeScheduling._split_scope,  # noqa: SLF001 - pytest-xdist's own way to be extended
    "loadgroup": LoadGroupScheduling._split_scope,  # noqa: SLF001 - the same
}
"""The distributions that would tear the items of one system apart, with what each keeps together."""


class ModelScheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Gives all items of a model to one worker; its points may use the same ports. Other tests go where they did."""

    def _split_scope(self, nodeid: str) -> str:
        model, point, _ = nodeid.partition(POINT)
        return model if point else SCOPES[self.config.getvalue("dist")](self, nodeid)
