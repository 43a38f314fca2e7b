"""The catalogue of planted faults: each is found by the rule that is meant for it, and by no other.

The faults are those that packagers make: something that a second instance needs for itself does not follow from its
parameters. First those that a model shows, then those that only a running system does.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._planning.planner import Planner
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc._registry import Registry
from pytest_nixproc._system.system import System
from pytest_nixproc.checks.api import RuleInput
from pytest_nixproc.checks.claims import OtherDeployment
from pytest_nixproc.errors import ConflictError, TeardownError
from pytest_nixproc.machines.host import Host
from pytest_nixproc.model import ready
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.pace import slowness
from pytest_nixproc.values.findings import Finding
from pytest_nixproc.values.machine import Account, Accounts, Facts
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target

REGISTRY: Final = Registry()
STATE: Final = StateDirs.under("/srv/state")
PLANTED: Final = str(Path(__file__).with_name("planted.py"))
Parameters = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """A fault that a model shows: the rule that finds it, what two instances are made of, and where they are put."""

    code: str
    first: Parameters
    second: Parameters
    attributes: tuple[Parameters, Parameters] = ({}, {})
    target: Parameters = field(default_factory=dict)
    plan: Parameters = field(default_factory=dict)
    pools: Parameters = field(default_factory=dict)


def environment(**values: Any) -> tuple[Parameters, Parameters]:
    """Return parameters of two instances whose programs are told the same."""
    return {"environment": values}, {"environment": values}


def args(*values: str) -> tuple[Parameters, Parameters]:
    """Return parameters of two instances whose programs get the same arguments."""
    return {"args": values}, {"args": values}


def account(name: str, **attributes: Any) -> Parameters:
    """Return parameters of an instance that describes one user."""
    return {"credentials": {"users": {name: attributes}}}


def group(name: str, gid: int) -> Parameters:
    """Return parameters of an instance that describes one group."""
    return {"credentials": {"groups": {name: {"gid": gid}}}}


def both(**values: Any) -> tuple[Parameters, Parameters]:
    """Return the same for two instances."""
    return values, values


HOME: Final = {"home_dir": "/srv/state/lib/shared", "create_home_dir": True}
NONE: Final[tuple[Parameters, Parameters]] = ({}, {})
PRIVILEGED: Final[Parameters] = {
    "force_disable_user_change": False,
    "accounts": Accounts({"old": Account("old", 900, "old", 901)}, {"old": 901}),
}
SHARED: Final = "/srv/state/lib/shared"
OTHER: Final = OtherDeployment("other.py", [("web", Endpoint("port", 5000))], {"/opt/data": "db"}, {})

FAULTS: Final = {
    "a constructor that ignores port": Fault("NP101", *NONE, ({"port": 5000}, {"port": 5000})),
    "an admin port with a fixed default": Fault(
        "NP101", *NONE, ({"port": 5000, "admin_port": 9000}, {"port": 5001, "admin_port": 9000})
    ),
    "a named port of the one is the port of the other": Fault(
        "NP101", *NONE, ({"port": 5000}, {"ports": {"metrics": 5000}})
    ),
    "two name servers": Fault("NP101", *NONE, ({"udp_port": 5353}, {"udp_port": 5353})),
    "one of all addresses and one of a single one": Fault(
        "NP101", *NONE, ({"port": 5000}, {"port": 5000, "bind_ip": "127.0.0.2"})
    ),
    "a shared PID file": Fault("NP102", *both(pid_file="/srv/state/run/web.pid")),
    "a program that is told a shared PID file": Fault("NP102", *environment(PID_FILE="/srv/state/run/web.pid")),
    "a program that writes another's PID file": Fault("NP102", {}, {"args": ["--pid-file=/srv/state/run/a.pid"]}),
    "a shared log in the environment": Fault("NP103", *environment(WEB_LOG_FILE="/srv/state/log/web.log")),
    "a shared log as an option": Fault("NP103", *args("--error-log", "/srv/state/log/error.log")),
    "a program that logs into its manager's log of another": Fault(
        "NP103", {}, {"args": ["--logfile=/srv/state/log/nixproc-a.log"]}
    ),
    "a data directory shared by two databases": Fault("NP104", *NONE, ({"data_dir": SHARED}, {"data_dir": SHARED})),
    "a data directory that is a state directory": Fault("NP104", *environment(PGDATA=STATE.lib_dir)),
    "a data directory as an option": Fault("NP104", *args("--dbpath", SHARED)),
    "a shared socket": Fault(
        "NP104", *NONE, ({"socket_file": "/srv/state/run/s"}, {"socket_file": "/srv/state/run/s"})
    ),
    "a shared socket as an option": Fault("NP104", *args("--socket=/srv/state/run/s")),
    "a shared cache": Fault("NP104", *environment(WEB_CACHE_DIR="/srv/state/cache/web")),
    "a shared spool": Fault("NP104", *args("--spool-dir", "/srv/state/spool/mail")),
    "two users with one home": Fault("NP104", account("u", **HOME), account("v", **HOME)),
    "the same name": Fault("NP105", {"name": "web", "instance_name": "a"}, {"name": "web", "instance_name": "b"}),
    "names that differ in case": Fault("NP105", {"name": "web"}, {"name": "Web"}),
    "a user with two groups": Fault("NP106", account("www", group="a"), account("www", group="b")),
    "a user with two numbers": Fault("NP106", account("www", uid=900), account("www", uid=901)),
    "a PID file in the machine's own directory": Fault("NP107", {"pid_file": "/srv/web-of-all.pid"}, {}),
    "a log in /tmp": Fault("NP108", {"environment": {"LOG_FILE": "/tmp/web.log"}}, {}),
    "state in the machine's own /var": Fault("NP108", {"args": ["--config", "/var/lib/web/settings"]}, {}),
    "a lock in the machine's own /run": Fault("NP108", {"environment": {"LOCK": "/run/lock/web"}}, {}),
    "a user that nobody describes": Fault("NP109", {"user": "nobody-at-all"}, {}, target=PRIVILEGED),
    "a user whose name is a number": Fault("NP109", {"user": "1000"}, {}, target=PRIVILEGED),
    "a user that exists with another number": Fault("NP110", account("old", uid=5), {}, target=PRIVILEGED),
    "a program that is told the other's port": Fault(
        "NP111", *environment(PORT=5000), ({"port": 5000}, {"port": 5001})
    ),
    "two programs that are told one port": Fault("NP111", *args("--port", "5000")),
    "a listening port as an option": Fault(
        "NP111", {}, {"args": ["--listen-port=5000"]}, ({"port": 5000}, {"port": 5001})
    ),
    "a socket whose path is too long": Fault("NP112", *NONE, ({"socket": f"/srv/state/run/{'x' * 100}"}, {})),
    "a data directory inside another": Fault("NP113", *NONE, ({"data_dir": SHARED}, {"data_dir": f"{SHARED}/b"})),
    "a log inside the other's data directory": Fault(
        "NP113", {}, {"environment": {"LOG_FILE": f"{SHARED}/web.log"}}, ({"data_dir": SHARED}, {})
    ),
    "two users with one number": Fault("NP114", account("u", uid=900), account("v", uid=900)),
    "two groups with one number": Fault("NP114", group("g", 900), group("h", 900)),
    "names that a manager makes the same": Fault(
        "NP115", {"name": "web-1"}, {"name": "web_1"}, plan={"normalize_name": REGISTRY.manager("bsdrc").normalize_name}
    ),
    "pools that overlap": Fault(
        "NP117", *NONE, pools={"webPorts": {"min": 5000, "max": 5999}, "dbPorts": {"min": 5500, "max": 6000}}
    ),
    "a proxy that does not depend on what it serves": Fault(
        "NP118", {}, {"args": ["http://127.0.0.1:5000/"]}, ({"port": 5000}, {"port": 5001})
    ),
    "a client that does not depend on the socket's owner": Fault(
        "NP118", {}, {"environment": {"DB_SOCKET": "/srv/state/run/s"}}, ({"socket": "/srv/state/run/s"}, {})
    ),
    "a privileged port without privileges": Fault(
        "NP119", *NONE, ({"port": 80}, {}), {"facts": Facts(account=Account("me", 1000, "us", 100))}
    ),
    "overrides for a mistyped manager": Fault(
        "NP121", {"overrides": {"supervsord": {"autorestart": "true"}}}, {}, plan={"managers": REGISTRY.managers}
    ),
    "a port that another deployment has": Fault("NP120", *NONE, ({"port": 5000}, {}), plan={"others": [OTHER]}),
    "a directory that another deployment has": Fault(
        "NP120", *NONE, ({"data_dir": "/opt/data"}, {}), plan={"others": [OTHER]}
    ),
}


def static_findings(fault: Fault) -> list[Finding]:
    """Hold all static rules against the two instances of a fault."""
    instances = {
        name: Instance(create_managed_process(**{"name": name, "process": "/bin/x", **parameters}), **attributes)
        for name, parameters, attributes in zip("ab", (fault.first, fault.second), fault.attributes, strict=True)
    }
    target = Target(STATE, "/srv/profile", **fault.target)
    plan = RuleInput(ProcessesModel(instances, id_resources=fault.pools), target, **fault.plan)
    return [finding for rule in REGISTRY.rules for finding in rule.static(plan)]


@pytest.mark.parametrize("name", FAULTS)
def test_model_with_a_fault(name: str) -> None:
    """A fault that the model shows is found by its rule and by no other."""
    fault = FAULTS[name]
    findings = static_findings(fault)
    assert {finding.code for finding in findings} == {fault.code}, "\n".join(map(str, findings))
    assert all(finding.remedy for finding in findings)


SOUND: Final = create_managed_process(name="sound", process="/bin/x")


def deep(_: object) -> ProcessesModel:
    """Return a model whose dependencies go deeper than two digits count."""
    made: dict[str, Instance] = {}
    for number in range(101):
        process = create_managed_process(name=f"n{number}", process="/bin/x", dependencies=list(made)[-1:])
        made[f"n{number}"] = Instance(process)
    return ProcessesModel(made)


@pytest.mark.parametrize(
    ("manager", "model"),
    [
        ("sysvinit", deep),
        (
            "supervisord",
            lambda _: ProcessesModel(
                {"a": Instance(create_managed_process(name="a:b", process="/bin/x")), "b": Instance(SOUND)}
            ),
        ),
    ],
    ids=["priority", "name"],
)
def test_model_that_a_manager_refuses(manager: str, model: Callable[[object], ProcessesModel], host: Host) -> None:
    """What a manager cannot express is a finding about the instance that asks for it, and no other is."""
    plan = Planner(REGISTRY.manager(manager), host, REGISTRY.rules, Settings()).plan(model)
    assert [finding.code for finding in plan.findings] == ["NP116"]
    assert len(plan.refusals) == 1


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Return this machine."""
    machine = Host()
    yield machine
    machine.lifecycle.close()


MANAGERS: Final = ("supervisord", "sysvinit")
Model = Callable[..., dict[str, Instance]]


@contextmanager
def deployed(manager: str, host: Host, model: Model) -> Iterator[System]:
    """Deploy a model; what it leaves behind is part of some faults, and killed."""
    system = System(Planner(REGISTRY.manager(manager), host, REGISTRY.rules, Settings()), Leases())
    system.start(lambda arguments: ProcessesModel(model(arguments.state, arguments.free_port)))
    try:
        yield system
    finally:
        with suppress(TeardownError):
            system.stop()


def planted(name: str, state: StateDirs, *actions: str, parameters: Parameters | None = None, **attributes: Any) -> Any:
    """Return an instance of the program with planted faults."""
    done = f"{state.lib_dir}/{name}.done"
    words = ("-I", "-S", PLANTED, *actions, f"ready={done}")
    process = create_managed_process(name=name, foreground_process=sys.executable, args=words, **(parameters or {}))
    return Instance(process, ready=ready.file(done), **attributes)


def listening(port: int, host: str = "127.0.0.1") -> str:
    """Return the action that listens."""
    return f"listen={host}:{port}"


def hidden_listener(state: StateDirs, free_port: Callable[[str], int]) -> dict[str, Instance]:
    """Return a model whose second instance listens on a port that it does not declare."""
    one, two, hidden = map(free_port, ("one", "two", "hidden"))
    return {
        "a": planted("a", state, listening(one), port=one),
        "b": planted("b", state, listening(two), listening(hidden), port=two),
    }


def hidden_datagrams(state: StateDirs, free_port: Callable[[str], int]) -> dict[str, Instance]:
    """Return a model whose second instance waits on a UDP port that it does not declare."""
    one, hidden = map(free_port, ("one", "hidden"))
    return {"a": planted("a", state, f"udp=127.0.0.1:{one}", udp_port=one), "b": planted("b", state, f"udp=:{hidden}")}


def no_datagrams(state: StateDirs, free_port: Callable[[str], int]) -> dict[str, Instance]:
    """Return a model whose instance listens on the right port, with the wrong protocol."""
    port = free_port("port")
    return {"a": planted("a", state, listening(port), udp_port=port, port=port), "b": planted("b", state)}


def no_listener(state: StateDirs, free_port: Callable[[str], int]) -> dict[str, Instance]:
    """Return a model whose second instance does not listen on its port."""
    one, two = map(free_port, ("one", "two"))
    return {"a": planted("a", state, listening(one), port=one), "b": planted("b", state, port=two)}


def wide_listener(state: StateDirs, free_port: Callable[[str], int]) -> dict[str, Instance]:
    """Return a model whose instance listens everywhere, though declared local."""
    port = free_port("port")
    return {"a": planted("a", state, listening(port, "0.0.0.0"), port=port, bind_address="127.0.0.1")}  # noqa: S104


def shared(action: str) -> Model:
    """Return a model whose instances do the same with one path in the state."""
    return lambda state, _: {name: planted(name, state, f"{action}={state.lib_dir}/one-for-all") for name in "ab"}


def elsewhere(action: str) -> Model:
    """Return a model whose instance has something outside the state, which is made and removed by the test."""
    return lambda state, _: {
        "a": planted("a", state, f"{action}={os.environ['ELSEWHERE']}/x"),
        "b": planted("b", state),
    }


def working_elsewhere(state: StateDirs, _: object) -> dict[str, Instance]:
    """Return a model whose instance writes where it works, and closes what it has written."""
    return {"a": planted("a", state, f"chdir={os.environ['ELSEWHERE']}", "trace="), "b": planted("b", state)}


def with_parameters(action: str, **parameters: Any) -> Model:
    """Return a model whose instance undoes one of its parameters."""
    return lambda state, _: {"a": planted("a", state, action, parameters=parameters), "b": planted("b", state)}


def escaping(state: StateDirs, _: object) -> dict[str, Instance]:
    """Return a model whose instance leaves a process to nobody."""
    return {"a": planted("a", state, f"escape={state.lib_dir}/pid"), "b": planted("b", state)}


def own_pid_file(*words: str, **parameters: Any) -> Model:
    """Return a model whose instance is told a PID file, and does with it what the words say; ``PID`` is its path."""

    def model(state: StateDirs, _: object) -> dict[str, Instance]:
        path = f"{state.lib_dir}/own.pid"
        environment = {name: value.replace("PID", path) for name, value in parameters.items()}
        own = planted(
            "a", state, *(word.replace("PID", path) for word in words), parameters={"environment": environment}
        )
        return {"a": own, "b": planted("b", state)}

    return model


def one_pid_file(state: StateDirs, _: object) -> dict[str, Instance]:
    """Return a model whose instances are told one PID file where nobody looks for it, and write it."""
    path = f"{state.lib_dir}/one.pid"
    return {name: planted(name, state, f"pid={path}") for name in "ab"}


RUNNING: Final[dict[str, tuple[str, Model]]] = {
    "a hidden second listener": ("NP203", hidden_listener),
    "a port that is declared and not used": ("NP202", no_listener),
    "a hidden UDP port": ("NP203", hidden_datagrams),
    "a UDP port that is declared and not used": ("NP202", no_datagrams),
    "a port that is open to everybody": ("NP207", wide_listener),
    "a file that both keep open": ("NP208", shared("open")),
    "a FIFO that both write": ("NP208", shared("fifo")),
    "a file outside the state": ("NP209", elsewhere("open")),
    "a FIFO outside the state": ("NP209", elsewhere("fifo")),
    "a socket outside the state": ("NP209", elsewhere("socket")),
    "a file that is written and closed": ("NP214", elsewhere("write")),
    "a file in the directory that it works in": ("NP214", working_elsewhere),
    "a umask that the program changes": ("NP210", with_parameters("umask=0", umask="077")),
    "a directory that the program leaves": ("NP211", with_parameters("chdir=/usr", directory="/")),
    "a process that escapes": ("NP212", escaping),
    "a PID file of a process that has ended": ("NP204", own_pid_file("stale=PID", PID_FILE="PID")),
    "a PID file of a stranger": ("NP204", own_pid_file("init=PID", WEB_PIDFILE="PID")),
    "a PID file that an option asks for": ("NP204", own_pid_file("--pid-file=PID")),
    "a PID file that both write": ("NP205", one_pid_file),
    "a child that nobody waits for": ("NP213", with_parameters("zombie=")),
}
FOREGROUND_ONLY: Final = frozenset({"NP211"})
"""Rules that do not look at daemons, which is what sysvinit makes of everything."""


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("name", RUNNING)
def test_system_with_a_fault(
    name: str, manager: str, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that only a running system shows is found by its rule and by no other."""
    monkeypatch.setenv("ELSEWHERE", str(tmp_path))
    code, model = RUNNING[name]
    try:
        with deployed(manager, host, model) as system:
            findings = list(system.findings)
    except ConflictError as error:
        findings = [finding for finding in error.findings if isinstance(finding, Finding)]
    assert {finding.code for finding in findings} == {code}, "\n".join(map(str, findings))


LATE_STARTER: Final = """
import os, signal, sys, time
readable, writable = os.pipe()
if os.fork():
    os.read(readable, 1)
    time.sleep(0.2)
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()}\\n")
os.rename(file.name, sys.argv[1])
os.write(writable, b"!")
while True:
    signal.pause()
"""
"""A daemon that writes its PID file some time before the process that has started it ends."""


@pytest.mark.parametrize("manager", MANAGERS)
def test_daemon_whose_starter_ends_late(manager: str, host: Host) -> None:
    """A daemon is up when its PID file is there; that its starter still ends then is no fault of it."""

    def model(state: StateDirs, _: object) -> dict[str, Instance]:
        path = f"{state.runtime_dir}/it.pid"
        words = ("-I", "-S", "-c", LATE_STARTER, path)
        return {"it": Instance(create_managed_process(name="it", daemon=sys.executable, args=words, pid_file=path))}

    with deployed(manager, host, model) as system:
        assert list(system.findings) == []


def at_the_end(*actions: str, second: tuple[str, ...] = (), limit: float | None = None) -> Model:
    """Return a model whose instance does something at its end; ``LIB`` is the state directory of both.

    ``limit`` is that of the other one's start on a quiet machine, in seconds.
    """

    def model(state: StateDirs, _: object) -> dict[str, Instance]:
        first, others = ([word.replace("LIB", state.lib_dir) for word in words] for words in (actions, second))
        attributes: dict[str, Any] = {"start_timeout": limit * slowness()} if limit else {}
        return {"a": planted("a", state, *first), "b": planted("b", state, *others, **attributes)}

    return model


def bequeathing(state: StateDirs, free_port: Callable[[str], int]) -> dict[str, Instance]:
    """Return a model whose instance gives its port away when it ends."""
    port = free_port("port")
    return {"a": planted("a", state, listening(port), "end-bequeath=", port=port), "b": planted("b", state)}


def forgetful(state: StateDirs, _: object) -> dict[str, Instance]:
    """Return a model whose instance leaves a PID file of its own."""
    path = f"{state.lib_dir}/own.pid"
    return {
        "a": planted("a", state, f"pid={path}", parameters={"environment": {"PID_FILE": path}}),
        "b": planted("b", state),
    }


LEAKING: Final[dict[str, tuple[str, Model]]] = {
    "a process that outlives the stop": ("NP301", escaping),
    "a port that is given away": ("NP302", bequeathing),
    "a PID file that stays": ("NP303", forgetful),
    "a socket that stays": ("NP304", at_the_end("rebind=LIB/socket")),
    "a stop that kills another": ("NP305", at_the_end("end-kill=LIB/b", second=("pid=LIB/b",))),
    "a stop that takes away what another needs": (
        "NP306",
        at_the_end("end-remove=LIB/b.done", limit=0.5),
    ),
}


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("name", LEAKING)
def test_stop_with_a_fault(name: str, manager: str, host: Host) -> None:
    """A fault that only the stop of an instance shows is found by its rule and by no other."""
    code, model = LEAKING[name]
    with deployed(manager, host, model) as system:
        try:
            findings = system.restart_alone("a")
        except ConflictError as error:
            findings = [finding for finding in error.findings if isinstance(finding, Finding)]
    assert {finding.code for finding in findings} == {code}, "\n".join(map(str, findings))
    assert all("a" in finding.instances and finding.remedy for finding in findings)


@pytest.mark.parametrize("manager", MANAGERS)
def test_stop_without_a_fault(manager: str, host: Host) -> None:
    """An instance that leaves nothing can be stopped alone, also when others depend on it."""

    def model(state: StateDirs, free_port: Callable[[str], int]) -> dict[str, Instance]:
        port = free_port("port")
        return {
            "a": planted("a", state, listening(port), port=port),
            "b": planted("b", state, parameters={"dependencies": ["a"]}),
        }

    with deployed(manager, host, model) as system:
        before = {name: system[name].pid for name in "ab"}
        system.assert_stops_alone("a")
        assert system["b"].pid == before["b"]
        assert system["a"].pid != before["a"]
        assert not system.findings


@pytest.mark.parametrize("manager", MANAGERS)
def test_system_that_breaks_later(manager: str, host: Host) -> None:
    """An instance that has died is found at the next look, and so is the PID file that it has left."""

    def model(state: StateDirs, free_port: Callable[[str], int]) -> dict[str, Instance]:
        port = free_port("port")
        return {"a": planted("a", state, listening(port), port=port), "b": planted("b", state)}

    with deployed(manager, host, model) as system:
        system["b"].kill()
        with pytest.raises(ConflictError) as caught:
            system.assert_no_conflicts()
    codes = {finding.code for finding in caught.value.findings if isinstance(finding, Finding)}
    # What stays in the foreground has no PID file that could be stale.
    assert codes == ({"NP201", "NP204"} if manager == "sysvinit" else {"NP201"})


@pytest.mark.parametrize("manager", MANAGERS)
def test_instance_that_ends_by_itself(manager: str, host: Host) -> None:
    """An instance that ends by itself is found by the rule about ends alone, and only once."""
    with deployed(manager, host, lambda state, _: {name: planted(name, state) for name in "ab"}) as system:
        pid = system["b"].pid
        assert pid is not None
        host.processes.signal(pid, signal.SIGKILL)
        host.processes.wait_ended([pid], host.deadline(30))
        findings = [*system.check_ends(), *system.check_ends(), *system.inspect()]
    assert [(finding.code, finding.instances) for finding in findings] == [("NP215", ("b",))]


@pytest.mark.parametrize("text", ["", "1"], ids=["gone", "a stranger's"])
def test_pid_file_that_is_spoilt(text: str, host: Host) -> None:
    """A PID file that is gone, or that names a stranger, is found."""
    with deployed("sysvinit", host, lambda state, _: {name: planted(name, state) for name in "ab"}) as system:
        path = Path(system["a"].pid_file)
        good = path.read_text()
        path.write_text(text) if text else path.unlink()
        try:
            with pytest.raises(ConflictError) as caught:
                system.assert_no_conflicts()
        finally:
            path.write_text(good)
    codes = {finding.code for finding in caught.value.findings if isinstance(finding, Finding)}
    assert codes == {"NP201", "NP204"}, "nothing but its PID file tells that it runs"


def test_catalogue_is_large() -> None:
    """There are at least forty faults, and one for each rule but those that only the machine's accounts can break."""
    assert len(FAULTS) + len(RUNNING) + len(LEAKING) >= 40
    tried = {fault.code for fault in FAULTS.values()} | {code for code, _ in (*RUNNING.values(), *LEAKING.values())}
    elsewhere_tried = {"NP116", "NP201", "NP206", "NP215"}
    assert {rule.code for rule in REGISTRY.rules if rule.code < "NP4"} - tried == elsewhere_tried
