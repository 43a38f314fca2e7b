"""The scripts and links that the sysvinit generator makes."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers.sysvinit import FIRST_START, MANAGER, REQUEST_STOP
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit


def chain(length: int) -> ProcessesModel:
    """Return a model in which each instance depends on the one before."""
    names = [f"p{number:03}" for number in range(length)]
    needs = {name: [before] for before, name in pairwise(names)}
    return ProcessesModel(
        {
            name: Instance(create_managed_process(name=name, process="/x", dependencies=needs.get(name)))
            for name in names
        }
    )


@pytest.fixture
def generate(target: Target) -> Any:
    """Return a function that generates one process, with an override for sysvinit."""

    def generate(override: Any = None, **parameters: Any) -> Unit:
        overrides = {"sysvinit": override} if override is not None else {}
        process = create_managed_process(name="web", process="/bin/web", overrides=overrides, **parameters)
        return MANAGER.unit("web", ProcessesModel({"web": Instance(process)}), target)

    return generate


def text_of(unit: Unit) -> str:
    """Return the script."""
    (file,) = unit.files
    return file.content


def header_of(unit: Unit) -> dict[str, str]:
    """Return the fields of the LSB header."""
    block = text_of(unit).partition("### BEGIN INIT INFO\n")[2].partition("### END INIT INFO")[0]
    return {name: value.strip() for name, _, value in (line[2:].partition(":") for line in block.splitlines())}


def links_of(unit: Unit) -> dict[str, list[str]]:
    """Return the names of the links by runlevel."""
    links: dict[str, list[str]] = {}
    for link in unit.links:
        level, name = re.fullmatch(r"etc/rc\.d/rc(\d)\.d/(.*)", link.path).groups()  # type: ignore[union-attr]
        assert link.target == f"../init.d/{unit.name}"
        links.setdefault(level, []).append(name)
    return links


def setting(unit: Unit, name: str) -> str:
    """Return a setting at the head of the script."""
    return re.search(rf"^{name}=(.*)$", text_of(unit), re.MULTILINE)[1]  # type: ignore[index]


def activities(unit: Unit) -> list[str]:
    """Return the names that the script knows, as its usage message lists them."""
    return re.search(r"usage: \$0 \{(.*)\}", text_of(unit))[1].split("|")  # type: ignore[index]


def test_unit_tells_where_to_look(generate: Any) -> None:
    """The script is executable, and the unit says how the process runs and where its files are."""
    unit = generate(instance_name="web1")
    assert [(file.path, file.mode) for file in unit.files] == [("etc/rc.d/init.d/web", 0o700)]
    assert (unit.name, unit.mode) == ("web", "daemon")
    assert (unit.pid_file, unit.log_file) == ("/srv/state/run/web1.pid", "/srv/state/log/nixproc-web1.log")


def test_header_names_the_processes_that_are_needed(target: Target) -> None:
    """The header has the process's name and those of its dependencies, whatever their keys are."""
    db = create_managed_process(name="postgres", process="/bin/db")
    web = create_managed_process(name="web", process="/bin/web", description="Web\nserver", dependencies=[db])
    model = ProcessesModel({"db": Instance(db), "app": Instance(web)})
    assert header_of(MANAGER.unit("app", model, target)) == {
        "Provides": "web",
        "Required-Start": "postgres",
        "Required-Stop": "postgres",
        "Default-Start": "3",
        "Default-Stop": "0 1 2 4 5 6",
        "Short-Description": "Web server",
    }


def test_everything_starts_without_runlevels(generate: Any) -> None:
    """A process that names no runlevels is started in the usual one."""
    assert links_of(generate()) == {"3": ["S00web"]}


@pytest.mark.parametrize(
    ("override", "start", "stop"),
    [
        ({"runlevels": [3, 4, 5]}, "3 4 5", "0 1 2 6"),
        ({"default_start": [2], "default_stop": [0, 6]}, "2", "0 6"),
        ({"defaultStart": [2], "defaultStop": [0, 6]}, "2", "0 6"),
        ({"runlevels": [3], "default_stop": []}, "3", ""),
    ],
)
def test_runlevels(generate: Any, override: dict[str, Any], start: str, stop: str) -> None:
    """A script has a start link in each of its runlevels and a stop link in the others; header and links agree."""
    unit = generate(override)
    links = links_of(unit)
    assert [level for level in "0123456" if links.get(level) == ["S00web"]] == start.split()
    assert [level for level in "0123456" if links.get(level) == ["K99web"]] == stop.split()
    assert (header_of(unit)["Default-Start"], header_of(unit)["Default-Stop"]) == (start, stop)


def test_sequence_numbers_follow_dependencies(target: Target) -> None:
    """The level of an instance is its number at the start, and what is missing to 99 its number at the stop."""
    model = chain(3)
    process = create_managed_process(
        name="last", process="/x", dependencies=["p002"], overrides={"sysvinit": {"runlevels": [3]}}
    )
    model = ProcessesModel({**model, "last": Instance(process)})
    links = links_of(MANAGER.unit("last", model, target))
    assert (links["3"], links["6"]) == (["S03last"], ["K96last"])


def test_sequence_numbers_end_at_99(target: Target) -> None:
    """A chain of a hundred has numbers; one more is an error that says what to do."""
    model = chain(101)
    assert links_of(MANAGER.unit("p099", model, target)) == {"3": ["S99p099"]}
    with pytest.raises(
        Unsupported, match="sysvinit cannot deploy 'p100': its dependencies go 100 levels deep"
    ) as caught:
        MANAGER.unit("p100", model, target)
    assert caught.value.remedy == "shorten the chain of dependencies"


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ({}, "reload_signal", "HUP"),
        ({"reloadSignal": "-USR1"}, "reload_signal", "USR1"),
        ({"reload_signal": "SIGUSR1"}, "reload_signal", "USR1"),
        ({"stop_signal": 3}, "stop_signal", "3"),
        ({"stopSeconds": 60}, "stop_seconds", "60"),
        ({}, "stop_seconds", "5"),
        ({"enableDaemonOutputLogging": False}, "log_file", "/dev/null"),
        ({}, "log_file", "/srv/state/log/nixproc-web.log"),
        ({"process": "/bin/it's"}, "program", "'/bin/it'\"'\"'s'"),
    ],
)
def test_override_as_mapping(generate: Any, override: dict[str, Any], name: str, value: str) -> None:
    """A mapping changes single parameters, in either spelling."""
    assert setting(generate(override), name) == value


def test_override_as_function(generate: Any) -> None:
    """A function receives all parameters, and what it returns counts, without a trace in later scripts."""

    def change(parameters: dict[str, Any]) -> dict[str, Any]:
        assert parameters["description"] == "web"
        parameters["instructions"]["start"]["instruction"] = "echo started"
        return parameters | {"runlevels": (5,), "stop_signal": "INT"}

    unit = generate(change)
    assert (links_of(unit)["5"], setting(unit, "stop_signal")) == (["S00web"], "INT")
    assert "        echo started\n" in text_of(unit)
    assert "echo started" not in text_of(generate())


def test_usual_activities(generate: Any) -> None:
    """A script knows what the Linux Standard Base asks for, and how to be asked to stop without waiting for it."""
    assert activities(generate()) == [
        *("start", "stop", "request-stop", "reload", "force-reload", "restart", "try-restart", "status")
    ]


def test_stop_of_its_own_is_not_done_by_halves(generate: Any) -> None:
    """A stop instruction that an override gives is also what a request to stop runs."""
    text = text_of(generate({"instructions": {"stop": {"instruction": "my_stop"}}}))
    assert "my_stop" in text.partition("    request-stop)\n")[2].partition(";;")[0]
    assert REQUEST_STOP not in text


def test_request_to_stop_has_a_short_cut(generate: Any) -> None:
    """A request for an identified process is met before the functions are read, unless an override has its own way."""
    text = text_of(generate())
    assert text.index("stop_signal=") < text.index(REQUEST_STOP) < text.index("is_running() {")
    assert REQUEST_STOP not in text_of(generate({"activities": {"request-stop": "my_request"}}))
    assert REQUEST_STOP not in text_of(generate({"globalInstructions": "request_stop() { :; }"}))


def test_first_start_has_a_short_cut(generate: Any) -> None:
    """A first start needs few of the functions; one with instructions of its own needs what these may call."""
    text = text_of(generate())
    assert text.index("launch() {") < text.index(FIRST_START) < text.index("is_running() {")
    assert FIRST_START not in text_of(generate({"activities": {"start": "my_start"}}))
    assert FIRST_START not in text_of(generate({"globalInstructions": "launch() { :; }"}))


def test_instruction_is_replaced(generate: Any) -> None:
    """An instruction that an override gives takes the place of the usual one, with the usual message."""
    text = text_of(generate({"instructions": {"reload": {"instruction": "my_reload"}}}))
    reload = text.partition("    reload)\n")[2].partition(";;")[0]
    assert reload.splitlines()[1].strip() == "my_reload"
    assert "Reloading web" in reload


def test_activities_are_added_and_removed(generate: Any) -> None:
    """Overrides can add activities, and remove usual ones."""
    unit = generate({"activities": {"backup": "my_backup"}, "removeActivities": ["reload", "force-reload"]})
    assert activities(unit) == ["start", "stop", "request-stop", "restart", "try-restart", "status", "backup"]
    assert "    backup)\n        my_backup\n" in text_of(unit)


def test_global_instructions_come_before_the_choice(generate: Any) -> None:
    """Functions that an override defines are there when an activity calls them."""
    text = text_of(generate({"globalInstructions": "my_reload() { :; }"}))
    assert text.index("my_reload() { :; }") < text.index("\ncase ${1-} in")


def test_unknown_override_is_refused(generate: Any) -> None:
    """A parameter that there is not is refused with the one that was meant."""
    with pytest.raises(Unsupported, match="its override 'runlevel' is no parameter") as caught:
        generate({"runlevel": 3})
    assert caught.value.remedy == "did you mean 'runlevels'?"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ({"stopSignal": "TREM"}, "'stopSignal' is 'TREM', which is not the name or number of a signal"),
        ({"stop_seconds": "soon"}, "'stop_seconds' is 'soon', which is not a number of seconds"),
        ({"runlevels": ["three"]}, "'runlevels' is ['three'], which is not a list of runlevels"),
        ({"args": "-p 80"}, "'args' is '-p 80', which is not a list"),
        ({"process": "web"}, "'process' is 'web', which is not an absolute path"),
        ({"processIsDaemon": "no"}, "'processIsDaemon' is 'no', which is not True or False"),
        ({"instructions": {"reload": "my_reload"}}, "'instructions' is {"),
        ({"instructions": {"reload": {"instrukction": "x"}}}, "which is not a mapping of activities, each with its"),
        ({"activities": ["backup"]}, "'activities' is ['backup'], which is not a mapping of texts"),
        ({"globalInstructions": None}, "'globalInstructions' is None, which is not a string"),
    ],
)
@pytest.mark.parametrize("is_function", [False, True])
def test_overrides_that_are_refused(generate: Any, override: dict[str, Any], named: str, *, is_function: bool) -> None:
    """A value that no script could have is refused by the parameter's name, as it is written."""
    with pytest.raises(Unsupported) as caught:
        generate((lambda given: given | override) if is_function else override)
    assert named in caught.value.brief


def test_function_that_leaves_out(generate: Any) -> None:
    """What a function does not return keeps its default; runlevels can be written as text, or alone."""
    unit = generate(lambda _: {"runlevels": "5", "stopSignal": "INT"})
    assert (links_of(unit)["5"], setting(unit, "stop_signal")) == (["S00web"], "INT")
    assert unit == generate({"runlevels": [5], "stop_signal": "INT"})


def test_override_of_another_manager_does_not_count(target: Target) -> None:
    """Only the entry of this manager is looked at."""
    process = create_managed_process(name="web", process="/bin/web", overrides={"systemd": {"runlevels": [5]}})
    unit = MANAGER.unit("web", ProcessesModel({"web": Instance(process)}), target)
    assert links_of(unit) == {"3": ["S00web"]}


def test_foreground_program_is_made_a_daemon(target: Target) -> None:
    """A program that only runs in the foreground is left alone by its script, which writes its pid down."""
    process = create_managed_process(name="web", foreground_process="/bin/web")
    unit = MANAGER.unit("web", ProcessesModel({"web": Instance(process)}), target)
    assert unit.mode == "foreground"
    assert 'echo "${PWD##*/}" > "$pid_file"' in text_of(unit)
