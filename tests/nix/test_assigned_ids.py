"""Ids beside a model in Nix: read for deployments, and written down on demand."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_nixproc._cli import main
from pytest_nixproc.errors import ModelError, SourceError
from pytest_nixproc.model.ids import Assignments, Ids, Pool, ProvisionalIds

if TYPE_CHECKING:
    from tests.nix.conftest import Bench

RESOURCES = """
    rec {
      webPorts = { min = 5000; max = 5003; };
      adminPorts = { min = 6000; max = 6008; step = 3; };
      uids = { min = 2000; max = 3000; };
      gids = uids;
    }
"""


def instance(name: str, *pools: str) -> str:
    """Return an instance that requires ids, and shows those that it has as attributes."""
    wanted = " ".join(f'"{pool}"' for pool in pools)
    shown = " ".join(f'"{pool}" = ids."{pool}"."{name}" or 0;' for pool in pools)
    pkg = f'createManagedProcess {{ name = "{name}"; process = "/bin/true"; }}'
    return f'"{name}" = {{ requiresUniqueIdsFor = [ {wanted} ]; {shown} pkg = {pkg}; }};'


def model(bench: Bench, *instances: str, name: str = "processes.nix") -> str:
    """Write a model; return its path."""
    text = "{ ids ? { }, system, greeting ? null }: let inherit (import <pytest-nixproc> { inherit ids; }) "
    return bench.write(f"{text} createManagedProcess; in {{ {' '.join(instances)} }}", name)


def run(*arguments: str) -> int:
    """Run the command."""
    return main(["assign-ids", *arguments])


def written(bench: Bench, name: str = "ids.nix") -> str:
    """Return what is written down."""
    return (bench.directory / name).read_text(encoding="utf-8")


def test_recorded_ids_are_read(bench: Bench) -> None:
    """What is beside a model counts, and a first look at it foresees them: one evaluation serves for both."""
    path = model(bench, instance("a", "webPorts", "uids"), instance("b", "webPorts"))
    bench.write(RESOURCES, "idresources.nix")
    bench.write("{ ids = { webPorts = { a = 5002; b = 5001; gone = 5000; }; uids.a = 2500; }; }", "ids.nix")
    found = bench.read_file(path, ids=ProvisionalIds())
    assert (found["a"].webPorts, found["b"].webPorts, found["a"].uids) == (5002, 5001, 2500)
    assert found.recorded_ids.ids["webPorts"] == {"a": 5002, "b": 5001, "gone": 5000}
    assert found.pools["adminPorts"] == Pool(6000, 6008, 3)
    ids = Ids({"webPorts": {"a": 5002, "b": 5001}, "uids": {"a": 2500}, "adminPorts": {}, "gids": {}})
    assert bench.read_file(path, ids=ids)["a"].webPorts == 5002
    assert bench.commands == ["nix-instantiate"]


def test_changed_files_count(bench: Bench) -> None:
    """Files that come, change or go are seen, although the model itself is what it was."""
    path = model(bench, instance("a", "webPorts"))
    with pytest.raises(ModelError, match="is 'webPorts', which is no pool"):
        bench.read_file(path, ids=ProvisionalIds())
    bench.write(RESOURCES, "idresources.nix")
    assert bench.read_file(path, ids=ProvisionalIds())["a"].webPorts == 5000
    bench.write("{ ids.webPorts.a = 5003; }", "ids.nix")
    assert bench.read_file(path, ids=ProvisionalIds())["a"].webPorts == 5003
    bench.write("{ ids.webPorts.a = 5001; }", "ids.nix")
    assert bench.read_file(path, ids=ProvisionalIds())["a"].webPorts == 5001
    (bench.directory / "ids.nix").unlink()
    assert bench.read_file(path, ids=ProvisionalIds())["a"].webPorts == 5000


def test_named_files(bench: Bench) -> None:
    """Files that are named replace those beside the model."""
    path = model(bench, instance("a", "webPorts"))
    bench.write("throw ''not this one''", "idresources.nix")
    files = {
        "id_resources": bench.write("{ webPorts = { min = 1; max = 9; }; }", "other/pools.nix"),
        "ids_file": bench.write("{ ids.webPorts.a = 7; }", "other/numbers.nix"),
    }
    assert bench.read_file(path, ids=ProvisionalIds(), **files)["a"].webPorts == 7


def test_ids_without_pools(bench: Bench) -> None:
    """A model with ids and no pools, as the original deploys it, has just those ids."""
    path = model(bench, instance("a", "webPorts"))
    bench.write("{ ids.webPorts.a = 5001; }", "ids.nix")
    found = bench.read_file(path, ids=ProvisionalIds())
    assert (found["a"].webPorts, found.pools) == (5001, {"webPorts": Pool(5001, 5001)})
    assert found.recorded_ids == Assignments({"webPorts": {"a": 5001}})


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("idresources.nix", "{ webPorts = { min = 9; max = 1; }; }", r"idresources\.nix\.webPorts: is .* no pool"),
        ("idresources.nix", "5", r"idresources\.nix: is 5, which is no mapping"),
        (
            "idresources.nix",
            "{ webPorts = { min = 1; max = nothing; }; }",
            r"idresources\.nix:1:\d+: undefined variable",
        ),
        ("ids.nix", "{ ids.webPorts = 5; }", r"ids\.nix\.ids\.webPorts: is 5, which is not a mapping"),
        ("ids.nix", "{ ids.webPorts = { a = 1; b = 1; }; }", r"ids\.nix\.ids\.webPorts\.b: is 1, which a has"),
        ("ids.nix", '"text"', r"ids\.nix: is 'text', which is not a mapping"),
        ("ids.nix", "{ ids = ", r"ids\.nix:1:\d+: syntax error"),
    ],
)
def test_broken_files(bench: Bench, name: str, text: str, expected: str) -> None:
    """What is wrong in a file on ids is an error with its place in that file."""
    path = model(bench, instance("a", "webPorts"))
    bench.write(RESOURCES, "idresources.nix")
    bench.write(text, name)
    with pytest.raises((ModelError, SourceError), match=expected):
        bench.read_file(path, ids=ProvisionalIds())


def test_life_of_a_file(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids are assigned in the order of names, kept, freed, and used again only when the pool has come round.

    The numbers are worked out by hand from the original's rules.
    """
    bench.write(RESOURCES, "idresources.nix")
    path = model(bench, instance("b", "webPorts", "uids", "gids"), instance("a", "webPorts", "adminPorts"))
    assert run(path) == 0
    assert capsys.readouterr().out == f"wrote {bench.directory}/ids.nix\n"
    assert written(bench) == (
        '{\n  "ids" = {\n'
        '    "adminPorts" = {\n      "a" = 6000;\n    };\n'
        '    "gids" = {\n      "b" = 2000;\n    };\n'
        '    "uids" = {\n      "b" = 2000;\n    };\n'
        '    "webPorts" = {\n      "a" = 5000;\n      "b" = 5001;\n    };\n'
        '  };\n  "lastAssignments" = {\n'
        '    "adminPorts" = 6000;\n    "gids" = 2000;\n    "uids" = 2000;\n    "webPorts" = 5001;\n  };\n}'
    )
    # a goes, c and d come; b stays where it is, and what was last assigned stays known.
    run(model(bench, instance("b", "webPorts"), instance("c", "webPorts", "adminPorts"), instance("d", "webPorts")))
    assert '"webPorts" = {\n      "b" = 5001;\n      "c" = 5002;\n      "d" = 5003;\n' in written(bench)
    assert '"adminPorts" = {\n      "c" = 6003;\n' in written(bench)
    assert '"uids" = {\n    };\n' in written(bench)
    assert '"uids" = 2000;' in written(bench)
    # The pool has come round: a new instance gets what a has left.
    run(model(bench, *(instance(name, "webPorts") for name in "bcde")))
    assert '"webPorts" = {\n      "b" = 5001;\n      "c" = 5002;\n      "d" = 5003;\n      "e" = 5000;\n' in written(
        bench
    )
    before = written(bench)
    assert run(model(bench, *(instance(name, "webPorts") for name in "bcdef"))) == 1
    assert "no id is left in pool 'webPorts', which goes from 5000 to 5003 in steps of 1" in capsys.readouterr().err
    assert written(bench) == before


def test_step_that_leads_nowhere(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Where steps meet taken ids only, there is an error that names the pool, and no endless search."""
    bench.write("{ adminPorts = { min = 6000; max = 6008; step = 3; }; }", "idresources.nix")
    assert run(model(bench, *(instance(name, "adminPorts") for name in "abcd"))) == 1
    assert "no id is left in pool 'adminPorts', which goes from 6000 to 6008 in steps of 3" in capsys.readouterr().err
    assert not (bench.directory / "ids.nix").exists()


def test_raised_minimum(bench: Bench) -> None:
    """When a pool begins above what was last assigned, ids come from the pool."""
    path = model(bench, instance("a", "webPorts"))
    bench.write("{ webPorts = { min = 7000; max = 7999; }; }", "idresources.nix")
    bench.write("{ ids.webPorts.a = 5000; lastAssignments.webPorts = 5000; }", "ids.nix")
    run(path)
    assert '"a" = 7000;' in written(bench)


def test_hostile_names(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Names come back from the file as they went in, whatever Nix would make of them."""
    pool = r"""a\"b\\c\${d} é$"""
    path = model(bench, instance("web", pool))
    bench.write(f'{{ "{pool}" = {{ min = 41; max = 49; }}; }}', "idresources.nix")
    run(path)
    first = written(bench)
    assert f'"{pool}" = {{\n      "web" = 41;' in first
    run(path)
    assert written(bench) == first
    assert not capsys.readouterr().err


def test_where_it_is_written(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Variants of a model have files of their own; others can be named, and the text can be had alone."""
    path = model(bench, instance("a", "webPorts"), name="processes-advanced.nix")
    bench.write(RESOURCES, "idresources.nix")
    run(path, "--output", "-")
    assert '"a" = 5000;' in capsys.readouterr().out
    assert sorted(os.listdir(bench.directory)) == ["idresources.nix", "processes-advanced.nix"]
    run(path)
    assert '"a" = 5000;' in written(bench, "ids-advanced.nix")
    pools = bench.write("{ webPorts = { min = 1; max = 9; }; }", "pools.nix")
    run(path, "--id-resources", pools, "--ids", f"{bench.directory}/mine.nix")
    assert '"a" = 1;' in written(bench, "mine.nix")
    run(path, "--id-resources", pools, "--ids", f"{bench.directory}/mine.nix", "--output", f"{bench.directory}/out.nix")
    assert written(bench, "out.nix") == written(bench, "mine.nix")


def test_links_and_modes_are_kept(bench: Bench) -> None:
    """A file is replaced where it is, with the mode that it had; nothing is left beside it."""
    path = model(bench, instance("a", "webPorts"))
    bench.write(RESOURCES, "idresources.nix")
    real = Path(bench.write("{ }", "shared/ids.nix"))
    real.chmod(0o640)
    (bench.directory / "ids.nix").symlink_to(real)
    run(path)
    assert (bench.directory / "ids.nix").is_symlink()
    assert (real.stat().st_mode & 0o777, os.listdir(real.parent)) == (0o640, ["ids.nix"])
    assert '"a" = 5000;' in real.read_text()


def test_parameters_and_manager(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A model is told what the command is told; what it does not accept is an error, as in tests."""
    path = model(bench, instance("a", "webPorts"))
    bench.write(RESOURCES, "idresources.nix")
    assert run(path, "--param", "greeting=1", "--manager", "sysvinit", "--output", "-") == 0
    assert run(path, "--param", "other=1") == 1
    assert "it has no parameter 'other'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["processes.py"], "models of this kind keep no ids in a file"),
        (["nowhere.nix"], "no model file"),
        (["text.txt"], "is no model file"),
        (["processes.nix", "--id-resources", "nowhere.nix"], "no file nowhere.nix with pools of ids"),
        (["processes.nix", "--output", "nowhere/ids.nix"], "cannot write"),
        (["processes.nix", "--manager", "none"], "unknown process manager 'none'"),
        (["processes.nix", "--param", "x"], "write NAME=VALUE"),
    ],
)
def test_wrong_calls(
    bench: Bench,
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What makes no sense is one clear error, and status 1."""
    model(bench)
    bench.write("def processes(state):\n    return {}\n", "processes.py")
    bench.write("", "text.txt")
    monkeypatch.chdir(bench.directory)
    assert run(*arguments) == 1
    assert expected in capsys.readouterr().err


def test_deployments_write_nothing(bench: Bench, pytester: pytest.Pytester) -> None:
    """A test deploys with the ids beside the model, and leaves the project's files alone."""
    path = Path(model(bench, instance("a", "webPorts").replace("/bin/true", "/bin/sleep")))
    path.write_text(path.read_text().replace("process =", "foregroundProcess ="))
    text = path.read_text().replace('"/bin/sleep";', '"/bin/sleep"; args = [ 60 ];')
    path.write_text(text)
    bench.write("{ webPorts = { min = 28000; max = 28999; }; }", "idresources.nix")
    bench.write("{ ids.webPorts.a = 28500; }", "ids.nix")
    before = sorted(os.listdir(bench.directory))
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.nixproc(model={str(path)!r})
        def test_it(nixproc_system):
            assert nixproc_system["a"].webPorts == 28500
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    assert sorted(os.listdir(bench.directory)) == before
    assert (bench.directory / "ids.nix").read_text() == "{ ids.webPorts.a = 28500; }"


def test_command_line(bench: Bench) -> None:
    """The command runs as a module, as people call it."""
    bench.write(RESOURCES, "idresources.nix")
    path = model(bench, instance("a", "webPorts"))
    command = [sys.executable, "-m", "pytest_nixproc", "assign-ids", path, "--output", "-"]
    assert '"a" = 5000;' in subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_first_look_without_assignments(bench: Bench) -> None:
    """Where only some ids are recorded, the others come from the assignment, which the second look gets."""
    path = model(bench, instance("a", "webPorts"), instance("b", "webPorts"))
    bench.write(RESOURCES, "idresources.nix")
    bench.write("{ ids.webPorts.b = 5000; lastAssignments.webPorts = 5000; }", "ids.nix")
    first = bench.read_file(path, ids=ProvisionalIds())
    assert first["b"].webPorts == 5000
    context = replace(bench.context, ids=Ids({"webPorts": {"a": 5001, "b": 5000}}))
    assert bench.read_file(path, ids=context.ids)["a"].webPorts == 5001
