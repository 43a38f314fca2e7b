"""Models in Python: their arguments by name, and what is said when they are wrong."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc.errors import ModelError, NixprocError, SourceError
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess, create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources import python
from pytest_nixproc.values.state import StateDirs

if TYPE_CHECKING:
    from tests.unit.sources.conftest import WriteFile

HEAD = "from pytest_nixproc import Instance, ProcessesModel, create_managed_process\n"
WEB = "{'web': Instance(pkg=create_managed_process(name='web', process='/bin/web'))}"


def one(**attributes: Any) -> dict[str, Instance]:
    """Return the instances of a smallest model."""
    return {"web": Instance(create_managed_process(name="web", process="/bin/web"), **attributes)}


@pytest.fixture
def no_context(context: ModelContext) -> ModelContext:
    """Return what models are told when the user gives no parameter."""
    return replace(context, params={})


@pytest.fixture
def read(write_file: WriteFile, no_context: ModelContext) -> Callable[[str], ProcessesModel]:
    """Return a function that reads the text of a model file."""
    return lambda text: python.read_python(write_file("processes.py", text), no_context)


@pytest.fixture
def error_of(read: Callable[[str], ProcessesModel]) -> Callable[[str], str]:
    """Return a function that reads the text of a wrong model file, and returns what is said about it."""

    def error(text: str) -> str:
        with pytest.raises(SourceError) as caught:
            read(text)
        return str(caught.value)

    return error


def test_model_gets_what_it_names(context: ModelContext) -> None:
    """A model receives, by name, those of the arguments that its function has."""
    seen: dict[str, object] = {}

    def processes(state: StateDirs, process_manager: str, tmp_dir: str, greeting: str, other: int = 5) -> Any:
        seen.update(locals())
        return one()

    model = python.model_of(processes, context)
    assert list(model) == ["web"]
    assert {name: value for name, value in seen.items() if name != "seen"} == {
        "state": context.state,
        "process_manager": "supervisord",
        "tmp_dir": "/srv/state/tmp",
        "greeting": "hello",
        "other": 5,
    }


def test_model_that_takes_all_gets_the_users_own(context: ModelContext) -> None:
    """``**kwargs`` receives the user's parameters, and nothing that the model did not ask for."""

    def processes(state: StateDirs, **params: object) -> Mapping[str, Instance]:
        assert state is context.state
        assert params == {"greeting": "hello"}
        return one()

    assert python.model_of(processes, context)


def test_users_parameter_wins(context: ModelContext) -> None:
    """A parameter of the user's takes the place of an argument of ours, and of the model's default."""

    def processes(system: str, port: int = 1) -> Mapping[str, Instance]:
        return one(port=port, system=system)

    model = python.model_of(processes, replace(context, params={"system": "mine", "port": 7}))
    assert (model["web"].system, model["web"].port) == ("mine", 7)


def test_unknown_argument_is_an_error(no_context: ModelContext) -> None:
    """A model that asks for what nobody gives is told how to give it, and what there is."""

    def processes(stat: StateDirs) -> Any:
        raise NotImplementedError(stat)

    with pytest.raises(SourceError, match="asks for 'stat', which is not known") as caught:
        python.model_of(processes, no_context)
    assert "--nixproc-param=stat=VALUE" in caught.value.remedy
    assert ", state," in caught.value.remedy


def test_refused_parameter_is_an_error(context: ModelContext) -> None:
    """A parameter that the model does not have is no silent nothing."""
    with pytest.raises(SourceError, match=r"has no parameter 'greeting'") as caught:
        python.model_of(lambda state, port=1: one(port=port, state=state), context)
    assert caught.value.remedy == "it accepts port, state"


@pytest.mark.parametrize("wrap", [functools.partial, functools.cache])
def test_any_callable_is_a_model(no_context: ModelContext, wrap: Callable[..., Callable[..., Any]]) -> None:
    """A function that another has wrapped is a model like any other."""
    assert list(python.model_of(wrap(one), no_context)) == ["web"]


def test_ready_made_model_is_returned_as_it_is(no_context: ModelContext) -> None:
    """A ProcessesModel that the function returns is not made anew."""
    model = ProcessesModel(one())
    assert python.model_of(lambda: model, no_context) is model


def test_wrong_result_is_an_error(no_context: ModelContext) -> None:
    """What is no mapping is refused with its type."""
    with pytest.raises(SourceError, match=r"processes\(\) returned list") as caught:
        python.model_of(lambda: [1], no_context)
    assert caught.value.remedy == "return a mapping of names to instances"


def test_faults_name_the_file(write_file: WriteFile, no_context: ModelContext) -> None:
    """Faults of the model are raised as such, with the file that it came from."""
    path = write_file("processes.py", "def processes(): return {'web': 5}")
    with pytest.raises(ModelError, match=r"processes\.py has a fault") as caught:
        python.read_python(path, no_context)
    assert caught.value.origin == path


@pytest.mark.parametrize("text", ["", "processes = 5"])
def test_file_without_function(error_of: Callable[[str], str], text: str) -> None:
    """A file that defines no function of that name is told what to define."""
    assert "processes.py defines no function 'processes'" in error_of(text)


def test_absent_file(tmp_path: Path, no_context: ModelContext) -> None:
    """A file that is not there is an error that names it."""
    with pytest.raises(SourceError, match=r"no model file .*absent\.py"):
        python.read_python(str(tmp_path / "absent.py"), no_context)


def test_syntax_error_names_file_and_line(error_of: Callable[[str], str], tmp_path: Path) -> None:
    """A syntax error is shown with its place and its line, and with no line of ours."""
    lines = error_of("x = 1\nprocesses = (\n").splitlines()
    assert lines == [f"{tmp_path}/processes.py:2: '(' was never closed", "processes = ("]


@pytest.mark.parametrize("body", ["1 / 0", "open('/nowhere/at/all')", "import nothing_of_this_name"])
@pytest.mark.parametrize("head", ["", "def processes():\n    "])
def test_exception_shows_the_users_frames_only(error_of: Callable[[str], str], head: str, body: str) -> None:
    """An exception of the model, at import or later, is shown with the user's own lines and none of ours."""
    text = error_of(head + body)
    assert body in text
    assert text.count('  File "') == 1
    assert 'processes.py", line ' in text
    assert "pytest_nixproc" not in text


@pytest.mark.parametrize("body", ["import sys\nsys.exit(3)\n", "def processes():\n    raise SystemExit('enough')\n"])
def test_model_that_exits_is_an_error(error_of: Callable[[str], str], body: str) -> None:
    """A model that ends the process, in the module or in its function, is an error that names the file and the line."""
    said = error_of(body if "def" in body else f"{body}processes = None\n")
    assert "SystemExit: " in said
    assert "processes.py" in said


def test_our_errors_pass_through(error_of: Callable[[str], str]) -> None:
    """An error of ours that a model raises is not wrapped in another one."""
    text = error_of("from pytest_nixproc.errors import SourceError\ndef processes(): raise SourceError('mine')")
    assert text == "mine"


@pytest.mark.parametrize("directory", ["importlib-demo", "pytest_nixproc_demo"])
def test_users_frames_are_known_by_their_place(write_file: WriteFile, no_context: ModelContext, directory: str) -> None:
    """A directory's name does not make the user's lines look like somebody else's."""
    path = write_file(f"{directory}/processes.py", "1 / 0")
    with pytest.raises(SourceError) as caught:
        python.read_python(path, no_context)
    assert "1 / 0" in caught.value.details


def test_users_package_beside_ours_is_not_ours() -> None:
    """A file whose path only begins like that of this package is a user's."""
    package = str(Path(python.__file__).parents[1])
    code = compile("1 / 0", f"{package}_demo/processes.py", "exec")
    with pytest.raises(ZeroDivisionError) as caught:
        exec(code)  # noqa: S102 - to raise from a file that does not exist
    assert f"{package}_demo/processes.py" in python.own_frames(caught.value)


@pytest.mark.parametrize("neighbour", ["nixproc_neighbour.py", "nixproc_neighbour/__init__.py"])
def test_neighbours_do_not_mix(write_file: WriteFile, no_context: ModelContext, neighbour: str) -> None:
    """Models import the modules and packages beside them; neighbours of the same name stay apart."""
    text = f"import nixproc_neighbour\n{HEAD}def processes(): return {{nixproc_neighbour.NAME: {WEB}['web']}}"
    models: list[str] = []
    for name in ("a", "b"):
        write_file(f"{name}/{neighbour}", f"NAME = '{name}'")
        models += python.read_python(write_file(f"{name}/processes.py", text), no_context)
    assert models == ["a", "b"]
    assert "nixproc_neighbour" not in sys.modules


def test_constructor_imports_when_it_is_called(write_file: WriteFile, no_context: ModelContext) -> None:
    """A constructor can import its neighbours when it is called, too, and they are those that its file has seen."""
    write_file("nixproc_neighbour.py", "class Name(str): pass")
    path = write_file(
        "lib.py",
        f"from nixproc_neighbour import Name as Known\n{HEAD}def server(name):\n"
        "    from nixproc_neighbour import Name\n    assert Name is Known\n"
        "    return create_managed_process(name=Name(name), process='/bin/web')\n",
    )
    made = python.read_constructor(path, "server", no_context).make(no_context, [{"name": "web"}])
    assert [process.name for process in made.items if isinstance(process, ManagedProcess)] == ["web"]
    assert "nixproc_neighbour" not in sys.modules


def test_search_path_is_restored(error_of: Callable[[str], str]) -> None:
    """A model file, even one that fails, leaves the import path as it was."""
    before = list(sys.path)
    error_of("1 / 0")
    assert sys.path == before


def test_model_file_may_define_classes(read: Callable[[str], ProcessesModel]) -> None:
    """Classes that look up their own module, as data classes do, work in a model file."""
    head = f"from __future__ import annotations\nfrom dataclasses import dataclass\n{HEAD}"
    text = f"{head}@dataclass\nclass Options:\n    port: int = 1\ndef processes(): return {WEB}"
    assert list(read(text)) == ["web"]


def test_two_readings_are_independent(read: Callable[[str], ProcessesModel]) -> None:
    """A file is executed anew each time: a model has no memory of an earlier one."""
    text = f"{HEAD}seen = []\ndef processes():\n    seen.append(1)\n    assert len(seen) == 1\n    return {WEB}"
    assert read(text)["web"] is not read(text)["web"]


def test_source_is_for_python_files() -> None:
    """The source is offered for the suffix of Python."""
    (source,) = python.nixproc_sources()
    assert (source.name, source.suffixes) == ("python", (".py",))
    assert issubclass(SourceError, NixprocError)
