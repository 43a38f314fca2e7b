"""Files on ids beside a model in Nix: which ones belong to it, what they may hold, and how ids are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc.errors import ModelError, SourceError
from pytest_nixproc.model.ids import Assignments, Pool
from pytest_nixproc.sources.nix.command import ProcessesExpression
from pytest_nixproc.sources.nix.ids import IdFiles, id_files, ids_beside, read, text_of

BOTH = IdFiles("/m/idresources.nix", "/m/ids.nix")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("processes.nix", "ids.nix"),
        ("processes-advanced.nix", "ids-advanced.nix"),
        ("processes-.nix", "ids-.nix"),
        ("processesx.nix", "ids.nix"),
        ("web.nix", "ids.nix"),
    ],
)
def test_file_of_a_model(name: str, expected: str) -> None:
    """Variants of a model in one directory have ids of their own, by the rest of their names."""
    assert ids_beside(ProcessesExpression(f"/m/{name}", is_flake=False)) == f"/m/{expected}"


def test_file_of_a_flake() -> None:
    """A flake's ids are in its directory."""
    assert ids_beside(ProcessesExpression("/m/processes", is_flake=True)) == "/m/processes/ids.nix"


def test_files_need_not_be_there(tmp_path: Path) -> None:
    """What is not there is None; what was named wins over what is beside the model, but pools have to be there."""
    model = ProcessesExpression(f"{tmp_path}/processes.nix", is_flake=False)
    assert id_files(model, "", "") == IdFiles(None, None)
    for name in ("idresources.nix", "ids.nix", "other.nix"):
        (tmp_path / name).write_text("{ }")
    assert id_files(model, "", "") == IdFiles(f"{tmp_path}/idresources.nix", f"{tmp_path}/ids.nix")
    other = os.path.relpath(f"{tmp_path}/other.nix")
    assert id_files(model, other, f"{tmp_path}/new.nix") == IdFiles(f"{tmp_path}/other.nix", None)
    with pytest.raises(SourceError, match=r"no file /nowhere\.nix with pools of ids"):
        id_files(model, "/nowhere.nix", "")


def test_text_is_the_original_s() -> None:
    """Sorted names in quotes; a pool without ids is there, and what was assigned last only if anything was."""
    ids = {"webPorts": {"web10": 5001, "web2": 5002, "web1": 5000}, "uids": {}}
    assert text_of(Assignments(ids, {"webPorts": 5002})) == (
        "{\n"
        '  "ids" = {\n'
        '    "uids" = {\n'
        "    };\n"
        '    "webPorts" = {\n'
        '      "web1" = 5000;\n'
        '      "web10" = 5001;\n'
        '      "web2" = 5002;\n'
        "    };\n"
        "  };\n"
        '  "lastAssignments" = {\n'
        '    "webPorts" = 5002;\n'
        "  };\n"
        "}"
    )
    assert "lastAssignments" not in text_of(Assignments(ids))


@pytest.mark.parametrize(
    ("name", "expected"),
    [('a"b', r'"a\"b"'), ("a\\", r'"a\\"'), ("${x}", r'"\${x}"'), ("$${x}", r'"$\${x}"'), ("$x é\n", r'"$x é\n"')],
)
def test_hostile_names(name: str, expected: str) -> None:
    """What would end a string of Nix, or begin an expression in it, is escaped."""
    assert f'\n    {expected} = {{\n      "a" = 1;\n    }};\n' in text_of(Assignments({name: {"a": 1}}))


def test_reading_back() -> None:
    """What files hold is read as pools and assignments; what the original keeps per machine is left out."""
    recorded = {"ids": {"uids": {"a": 7}}, "lastAssignments": {"uids": 8}, "lastAssignmentsPerTarget": {"x": {}}}
    pools, assigned = read({"uids": {"min": 1, "max": 9, "scope": "global"}}, recorded, BOTH)
    assert (pools, assigned) == ({"uids": Pool(1, 9)}, Assignments({"uids": {"a": 7}}, {"uids": 8}))


def test_without_pools_recorded_ids_count() -> None:
    """A model whose pools are not there keeps the ids that it has, and gets no others."""
    recorded = {"ids": {"uids": {"a": 7, "b": 9}, "gids": {}}}
    pools, _ = read({}, recorded, IdFiles(None, "/m/ids.nix"))
    assert pools == {"uids": Pool(7, 9)}


@pytest.mark.parametrize(
    ("pools", "recorded", "fault"),
    [
        ([], {}, r"/m/idresources\.nix: is \[\], which is no mapping"),
        ({"uids": {"min": 1}}, {}, r"/m/idresources\.nix\.uids: is .*, which is no pool"),
        ({"uids": {"min": 5, "max": 1}}, {}, r"/m/idresources\.nix\.uids: is .*, which is no pool"),
        ({"uids": {"min": 1, "max": 5, "step": 0}}, {}, r"/m/idresources\.nix\.uids: is .*, which is no pool"),
        ({"uids": {"min": 1, "max": 5, "scope": "machine"}}, {}, r"uids\.scope: is 'machine' .*one machine"),
        ({}, [], r"/m/ids\.nix: is \[\], which is not a mapping"),
        ({}, {"ids": {"uids": 5}}, r"/m/ids\.nix\.ids\.uids: is 5, which is not a mapping"),
        ({}, {"ids": {"uids": {"a": "5"}}}, r"/m/ids\.nix\.ids\.uids\.a: is '5', which is not an integer"),
        ({}, {"ids": {"uids": {"a": 5, "b": 5}}}, r"/m/ids\.nix\.ids\.uids\.b: is 5, which a has"),
        ({}, {"lastAssignments": {"uids": None}}, r"/m/ids\.nix\.lastAssignments\.uids: is None"),
    ],
)
def test_faults(pools: Any, recorded: Any, fault: str) -> None:
    """What is no pool and what is no id is a fault with its place."""
    with pytest.raises(ModelError, match=fault):
        read(pools, recorded, BOTH)
