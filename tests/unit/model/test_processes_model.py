"""A processes model: validation as a whole, and the order of activation."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from pytest_nixproc.errors import ModelError
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess, create_managed_process
from pytest_nixproc.model.ready import tcp
from pytest_nixproc.model.system import ProcessesModel


def process(name: str, *dependencies: object, **parameters: Any) -> ManagedProcess:
    """Return a process that only depends on others."""
    return create_managed_process(name=name, process="/bin/x", dependencies=dependencies, **parameters)


def model_of(**dependencies: list[str]) -> ProcessesModel:
    """Return a model of instances with dependencies by name."""
    return ProcessesModel({name: Instance(process(name, *names)) for name, names in dependencies.items()})


def faults_of(instances: Any) -> list[str]:
    """Return the faults of a model that has some."""
    with pytest.raises(ModelError) as caught:
        ProcessesModel(instances)
    return [str(fault) for fault in caught.value.faults]


def test_model_is_a_mapping_of_instances() -> None:
    """A model maps the keys to the instances, in their order."""
    web = Instance(process("web"))
    model = ProcessesModel({"b": web, "a": Instance(process("a"))}, origin="x.py")
    assert (list(model), model["b"], len(model)) == (["b", "a"], web, 2)
    assert repr(model) == "<ProcessesModel x.py: b, a>"
    assert ProcessesModel({}).levels == ()


def test_independent_faults_come_together() -> None:
    """All faults of all instances are in one error, each with its path."""
    faults = faults_of(
        {
            "web": Instance(process("web", umask=18), port=0),
            "db": Instance(create_managed_process(name="db", process="db")),
            "proxy": Instance(process("proxy", "nowhere")),
            "odd": "no instance",
            "a/b": Instance(process("ok")),
        }
    )
    paths = [fault.partition(": ")[0] for fault in faults]
    assert sorted(paths) == [
        "processes.a/b",
        "processes.db.process",
        "processes.odd",
        "processes.proxy.dependencies[0]",
        "processes.web.port",
        "processes.web.umask",
    ]


def test_error_says_how_many_and_where() -> None:
    """The error's text has the origin, the number of faults and each fault."""
    with pytest.raises(ModelError) as caught:
        ProcessesModel({"web": Instance(process("web"), port=0, admin_port=-1)}, origin="web.py")
    assert str(caught.value).splitlines() == [
        "the processes model web.py has 2 faults",
        "  processes.web.port: is 0, which is no TCP port (use a number from 1 to 65535)",
        "  processes.web.admin_port: is -1, which is no TCP port (use a number from 1 to 65535)",
    ]


def test_fault_is_not_passed_on_to_dependants() -> None:
    """A fault in one instance is not reported once more as an unknown dependency of others."""
    faulty = process("web")
    assert faults_of({"web": Instance(faulty, port=0), "proxy": Instance(process("proxy", faulty, "web"))}) == [
        "processes.web.port: is 0, which is no TCP port (use a number from 1 to 65535)"
    ]


def test_dependencies_in_all_forms() -> None:
    """A dependency may be a process, an instance, a key of the model or the name of a process; twice counts once."""
    db = process("database")
    instance = Instance(db)
    for form in (db, instance, "db", "database"):
        model = ProcessesModel({"db": instance, "web": Instance(process("web", form, form))})
        assert model.dependencies == {"db": (), "web": ("db",)}


def test_dependency_is_the_process_and_not_its_like() -> None:
    """Of two instances whose names say otherwise, the dependency is the one that holds the process."""
    second = process("first")
    model = ProcessesModel(
        {"first": Instance(process("x")), "y": Instance(second), "web": Instance(process("w", second))}
    )
    assert model.dependencies["web"] == ("y",)


def test_key_beats_name_of_process() -> None:
    """A dependency by name is looked for among the keys before the names of processes."""
    model = ProcessesModel(
        {"a": Instance(process("b")), "b": Instance(process("c")), "web": Instance(process("web", "b"))}
    )
    assert model.dependencies["web"] == ("b",)


@pytest.mark.parametrize(
    ("wanted", "remedy"), [("webb", "did you mean 'web'?"), ("zzz", "return it from the model too")]
)
def test_unknown_dependency(wanted: str, remedy: str) -> None:
    """A dependency that the model does not hold is a fault, with a suggestion."""
    faults = faults_of({"web": Instance(process("web")), "proxy": Instance(process("proxy", "web", wanted))})
    assert faults == [f"processes.proxy.dependencies[1]: is {wanted!r}, which the model does not hold ({remedy})"]


def test_unknown_dependency_by_object() -> None:
    """A process that the model does not return is named by its own name."""
    (fault,) = faults_of({"web": Instance(process("web", process("elsewhere")))})
    assert "is 'elsewhere', which the model does not hold" in fault


def test_cycle_shows_its_path() -> None:
    """A cycle is a fault that shows who needs whom, all the way round, and nobody else."""
    with pytest.raises(ModelError) as caught:
        model_of(a=["b"], b=["c"], c=["a"], outside=["a"])
    (fault,) = caught.value.faults
    path = fault.problem.removeprefix("form a cycle: ").split(" -> ")
    assert path[0] == path[-1]
    assert set(pairwise(path)) == {("a", "b"), ("b", "c"), ("c", "a")}
    assert fault.path == f"processes.{path[0]}.dependencies"


def test_self_dependency_is_a_cycle() -> None:
    """An instance that depends on itself forms a cycle of one."""
    with pytest.raises(ModelError, match="form a cycle: a -> a"):
        model_of(a=["a"])


def test_levels_follow_dependencies() -> None:
    """An instance stands one level above the highest of its dependencies; a level is in the order of names."""
    model = model_of(proxy=["web2", "web1"], web2=["db"], web1=[], db=[], alone=[])
    assert model.levels == (("alone", "db", "web1"), ("web2",), ("proxy",))
    assert {name: model.level(name) for name in model} == {"alone": 0, "db": 0, "web1": 0, "web2": 1, "proxy": 2}


def test_ready_must_be_a_condition() -> None:
    """What is given as ready must be a condition, and a condition is accepted."""
    (fault,) = faults_of({"web": Instance(process("web"), ready=80)})
    assert fault == "processes.web.ready: is 80, which is no condition (see pytest_nixproc.ready)"
    assert ProcessesModel({"web": Instance(process("web"), ready=tcp(80))})


def test_key_must_be_a_name() -> None:
    """A key that is no text is a fault."""
    assert faults_of({5: Instance(process("web"))}) == ["processes.5: is 5, which is not a string"]


def test_needs_go_through_others() -> None:
    """An instance needs all that it depends on, directly or through others, and nothing else."""
    model = model_of(web=["app"], app=["db", "cache"], db=[], cache=[], other=["db"])
    assert {(name, other) for name in model for other in model if model.needs(name, other)} == {
        ("web", "app"),
        ("web", "db"),
        ("web", "cache"),
        ("app", "db"),
        ("app", "cache"),
        ("other", "db"),
    }


def test_needs_of_a_long_chain() -> None:
    """Each of ten thousand in a row can be asked; what all of them need would be fifty million pairs."""
    names = [f"web{number:05}" for number in range(10_000)]
    model = model_of(**{name: [before] for before, name in pairwise(names)}, web00000=[])
    assert all(model.needs(name, before) for before, name in pairwise(names))
    assert model.needs(names[-1], names[0])
    assert not any(model.needs(before, name) for before, name in pairwise(names))
