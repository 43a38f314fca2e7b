"""What is known of the other deployments of a machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pytest_nixproc.deployment import neighbours


def test_journal_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment that ends while its journal is looked for, or read, is in nobody's way."""

    def events(path: str) -> Iterator[Mapping[str, Any]]:
        yield {"event": "begin", "machine": "host"}
        raise FileNotFoundError(path)

    assert list(neighbours.claims_in("/nowhere/at/all/journal", "host")) == []
    monkeypatch.setattr(neighbours, "events", events)
    assert list(neighbours.claims_in("/nowhere/at/all/journal", "host")) == []
