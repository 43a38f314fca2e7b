"""Ids: what models read, which ids are retained, how new ones are searched, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pytest_nixproc.errors import ModelError, NixprocError
from pytest_nixproc.model.ids import Assignments, Ids, Pool, ProvisionalIds, assign, is_port_pool
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel

NONE = Assignments()


def nothing_taken(_: str, __: int) -> bool:
    """Tell that nobody else has any id."""
    return False


def given(requests: Mapping[str, Sequence[str]], old: Assignments = NONE, **pools: Pool) -> Assignments:
    """Assign ids while nobody else has any."""
    return assign(pools, requests, old, nothing_taken)


def test_ids_are_assigned_in_the_order_of_names() -> None:
    """Instances get ids by their names, from the minimum on, whatever their order in the model."""
    found = given({"b": ["uids"], "a": ["uids"]}, uids=Pool(10, 20))
    assert found == Assignments({"uids": {"a": 10, "b": 11}}, {"uids": 11})


def test_pools_without_requests_are_there_and_empty() -> None:
    """A pool from which nobody requires anything has no ids, and no last one."""
    assert given({}, uids=Pool(1, 2)) == Assignments({"uids": {}}, {})


def test_ids_are_retained() -> None:
    """An id stays with its instance, also when instances whose names come before it are added."""
    old = given({"b": ["uids"]}, uids=Pool(10, 20))
    assert given({"a": ["uids"], "b": ["uids"]}, old, uids=Pool(10, 20)).ids == {"uids": {"a": 11, "b": 10}}


@pytest.mark.parametrize(
    ("requests", "pools", "expected"),
    [
        pytest.param({"a": ["uids"]}, {"uids": Pool(1, 9)}, {"uids": {"a": 2}}, id="all as before"),
        pytest.param({}, {"uids": Pool(1, 9)}, {"uids": {}}, id="instance gone"),
        pytest.param({"a": []}, {"uids": Pool(1, 9)}, {"uids": {}}, id="not required any more"),
        pytest.param({}, {}, {}, id="pool gone"),
        pytest.param({"a": ["uids"]}, {"uids": Pool(5, 9)}, {"uids": {"a": 5}}, id="below the pool now"),
        pytest.param({"a": ["uids"]}, {"uids": Pool(0, 1)}, {"uids": {"a": 0}}, id="above the pool now"),
    ],
)
def test_retention_ends(
    requests: dict[str, list[str]], pools: dict[str, Pool], expected: dict[str, dict[str, int]]
) -> None:
    """An id is retained while instance, request and pool are there and the pool holds it; else it is dropped."""
    old = Assignments({"uids": {"a": 2}}, {"uids": 2})
    assert given(requests, old, **pools).ids == expected


def test_freed_ids_are_not_used_again_at_once() -> None:
    """A new instance gets the id behind the last one, and a freed id only when the pool has come round."""
    pool = Pool(1, 3)
    first = given({"a": ["uids"], "b": ["uids"]}, uids=pool)
    second = given({"b": ["uids"], "c": ["uids"]}, first, uids=pool)
    assert second.ids == {"uids": {"b": 2, "c": 3}}
    assert given({"b": ["uids"], "c": ["uids"], "d": ["uids"]}, second, uids=pool).ids["uids"]["d"] == 1


def test_last_assignment_outlives_its_instance() -> None:
    """What a pool assigned last is remembered as long as the pool is there, and forgotten with it."""
    old = given({"a": ["uids"]}, uids=Pool(1, 3))
    assert given({}, old, uids=Pool(1, 3)).last == {"uids": 1}
    assert given({}, old).last == {}


def test_steps_leave_room() -> None:
    """Ids of a pool are a step apart: from the minimum on, or from the last id on, whatever that is."""
    assert given({"a": ["x"], "b": ["x"]}, x=Pool(10, 19, 3)).ids == {"x": {"a": 10, "b": 13}}
    assert given({"c": ["x"]}, Assignments({}, {"x": 14}), x=Pool(10, 19, 3)).ids == {"x": {"c": 17}}
    assert given({"c": ["x"]}, Assignments({}, {"x": 17}), x=Pool(10, 19, 3)).ids == {"x": {"c": 10}}


def test_search_ends_where_steps_lead_nowhere_new() -> None:
    """With steps that meet taken ids only, the search ends with an error: the count of ids alone does not tell."""
    with pytest.raises(NixprocError, match="no id is left in pool 'x', which goes from 10 to 15 in steps of 3"):
        given(
            {"a": ["x"], "b": ["x"], "c": ["x"]}, Assignments({"x": {"a": 10, "b": 13}}, {"x": 13}), x=Pool(10, 15, 3)
        )


def test_search_begins_anew_when_the_pool_has_moved() -> None:
    """A last id outside the pool's new bounds leads to an id within them."""
    assert given({"a": ["x"]}, Assignments({}, {"x": 5}), x=Pool(10, 12)).ids == {"x": {"a": 10}}
    assert given({"a": ["x"]}, Assignments({}, {"x": 8}), x=Pool(10, 19, 3)).ids == {"x": {"a": 11}}
    assert given({"a": ["x"]}, Assignments({}, {"x": 99}), x=Pool(10, 12)).ids == {"x": {"a": 10}}


@pytest.mark.parametrize("pool", [Pool(1, 2), Pool(1, 6, 3)])
def test_exhausted_pool_is_an_error(pool: Pool) -> None:
    """When all reachable ids are given, the error names the pool and its bounds; the search always ends."""
    with pytest.raises(NixprocError, match=rf"no id is left in pool 'x', which goes from 1 to {pool.max}") as error:
        given({"a": ["x"], "b": ["x"], "c": ["x"]}, x=pool)
    assert "widen the pool" in str(error.value)


def test_ids_that_others_have_are_skipped() -> None:
    """What somebody else has is not given, and asked for with the pool's name."""
    asked = []

    def is_taken(pool: str, number: int) -> bool:
        asked.append((pool, number))
        return number < 12

    assert assign({"x": Pool(10, 20)}, {"a": ["x"]}, NONE, is_taken).ids == {"x": {"a": 12}}
    assert asked == [("x", 10), ("x", 11), ("x", 12)]


def test_overlapping_pools_give_no_port_twice() -> None:
    """Ports are unique beyond their pool; other ids are unique within their pool only."""
    request = {"a": ["webPorts", "adminPorts", "uids", "gids"]}
    pools = dict.fromkeys(("webPorts", "adminPorts", "uids", "gids"), Pool(10, 11))
    found = assign(pools, request, NONE, nothing_taken).ids
    assert {found["webPorts"]["a"], found["adminPorts"]["a"]} == {10, 11}
    assert (found["uids"]["a"], found["gids"]["a"]) == (10, 10)


@pytest.mark.parametrize(("name", "expected"), [("webappPorts", True), ("ports", True), ("uids", False), ("p", False)])
def test_port_pools_by_name(name: str, expected: bool) -> None:  # noqa: FBT001 - a table of values
    """Pools of ports are those whose name ends in ``ports``."""
    assert is_port_pool(name) is expected


def test_models_read_ids_by_attribute_and_by_key() -> None:
    """Ids can be read both ways; an id that nobody has required is an error which says how to require it."""
    ids = Ids({"webPorts": {"web-1": 5000, "web": 5001}})
    assert (ids["webPorts"]["web-1"], ids.webPorts.web) == (5000, 5001)
    assert ids.get("nothing", {}) == {}
    assert ids.nothing.get("web", 0) == 0
    with pytest.raises(AttributeError, match="requires_unique_ids_for"):
        _ = ids.webPorts.other
    with pytest.raises(AttributeError):
        _ = ids.__deepcopy__


def test_stand_ins_are_there_for_all_names_and_differ() -> None:
    """On the first look every id has a number of its own, always the same one, so that no conflict is seen."""
    ids = ProvisionalIds()
    numbers = [ids.a.x, ids["a"]["y"], ids.b.x, ids.get("b", {}).get("y", 0)]
    assert len(set(numbers)) == 4
    assert ids.a.x == numbers[0]


def model(requires: object, **id_resources: Any) -> ProcessesModel:
    """Return a model of one instance that requires ids."""
    pkg = create_managed_process(name="web", process="/usr/bin/web")
    return ProcessesModel({"web": Instance(pkg, requiresUniqueIdsFor=requires)}, id_resources=id_resources)


@pytest.mark.parametrize("requires", ["webPorts", ["webPorts"], ("webPorts",)])
def test_requests_name_one_pool_or_several(requires: object) -> None:
    """An instance names a pool, or a sequence of them, in either spelling of the attribute."""
    assert model(requires, webPorts={"min": 1, "max": 2}).id_requests == {"web": ("webPorts",)}


def test_unknown_pool_is_a_fault_with_its_path() -> None:
    """A pool that is not declared is named with the place of the request, and with the pools that there are."""
    with pytest.raises(ModelError) as error:
        model(["webPorts", "uids"], webPorts={"min": 1, "max": 2})
    (fault,) = error.value.faults
    assert fault.path == "processes.web.requires_unique_ids_for[1]"
    assert "'uids'" in fault.problem
    assert "there are webPorts" in fault.remedy


@pytest.mark.parametrize(
    "pool",
    [
        {"min": 2, "max": 1},
        {"min": 1},
        {"min": 1, "max": 2, "step": 0},
        {"min": "a", "max": 2},
        {"min": 1, "max": 2, "moon": 3},
        7,
        None,
    ],
)
def test_bad_pools_are_faults(pool: object) -> None:
    """A pool without sound bounds is a fault at its own path, beside those of others."""
    with pytest.raises(ModelError) as error:
        model([], webPorts=pool, uids={"min": 3, "max": 1})
    assert [fault.path for fault in error.value.faults] == ["id_resources.webPorts", "id_resources.uids"]


@pytest.mark.parametrize("entry", [{"min": 1.5, "max": 2}, {"min": 1, "max": 3, "step": 0.5}, {"min": True, "max": 2}])
def test_bounds_are_whole_numbers(entry: object) -> None:
    """Bounds and steps that are no whole numbers are a fault, and no crash later."""
    with pytest.raises(ModelError, match="which is no pool"):
        model("webPorts", webPorts=entry)


@pytest.mark.parametrize("requires", [3, [3], None, [["webPorts"]]])
def test_bad_requests_are_faults(requires: object) -> None:
    """A request that names no pool is a fault with its path, and no crash."""
    with pytest.raises(ModelError, match="requires_unique_ids_for"):
        model(requires, webPorts={"min": 1, "max": 2})
