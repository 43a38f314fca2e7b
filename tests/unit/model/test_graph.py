"""The order of a graph."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pytest_nixproc.model.graph import cycle_in, levels_of


def test_no_cycle_is_empty() -> None:
    """Without a cycle there is none to show, even where two ways lead to one name."""
    assert cycle_in({"a": ("b", "c"), "b": ("d",), "c": ("d",), "d": ()}) == []


def test_cycle_is_in_the_order_of_needs() -> None:
    """Along a cycle, each name depends on the next."""
    graph = {"a": ("b",), "b": ("c",), "c": ("d",), "d": ("b",)}
    cycle = cycle_in(graph)
    assert cycle[0] == cycle[-1]
    assert all(needed in graph[name] for name, needed in pairwise(cycle))


@pytest.mark.parametrize(
    ("graph", "levels"),
    [
        ({}, ()),
        ({"b": (), "a": ()}, (("a", "b"),)),
        ({"a": ("b",), "b": ()}, (("b",), ("a",))),
        ({"a": ("b", "c"), "b": ("c",), "c": (), "d": ("c",)}, (("c",), ("b", "d"), ("a",))),
    ],
)
def test_levels(graph: dict[str, tuple[str, ...]], levels: object) -> None:
    """Each name stands in the first level after all that it needs."""
    assert levels_of(graph) == levels
