"""The settings of a deployment for which nobody has chosen any."""

from __future__ import annotations

from pytest_nixproc._planning.settings import Settings


def test_nothing_is_fetched_unasked() -> None:
    """Programs that read or build a model have no network, unless somebody allows it."""
    assert not Settings().may_download
