"""The conformance suite for process managers where accounts are created and users are switched.

    class TestMinePrivileged(PrivilegedConformance):
        manager = "mine"

The tests run on machines that are thrown away, and on a host that is said to be disposable
(``--nixproc-disposable-host``); elsewhere they are skipped with the reason.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from pytest_nixproc._persistence.directory import PASSABLE
from pytest_nixproc._planning.planner import Planner
from pytest_nixproc._plugin.matrix import PRIVILEGED, no_accounts_reason
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import ConflictError, DeploymentError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.testing.conformance import (
    HOSTILE,
    HOSTILE_NAMES,
    Bench,
    Build,
    Fixtures,
    Received,
    clean,
    http_body,
    in_both_modes,
    load,
    one,
    own_number,
    received_in,
)
from pytest_nixproc.testing.programs.models import probe
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.units import Mode

DATABASE: Final = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")
NAMES: Final = ("npx-web", "npx-team", "npx-log")


def credentials(**user: Any) -> dict[str, Any]:
    """Return credentials: a user whose primary group has another name, and who belongs to one more group."""
    described = {"group": "npx-team", "extra_groups": ["npx-log"], "description": "Web server", **user}
    return {"groups": {"npx-team": {}, "npx-log": {}}, "users": {"npx-web": described}}


def home_of(state: StateDirs, name: str) -> str:
    """Return a directory that ``initialize`` gives to a user."""
    return f"{state.lib_dir}/{name}.d"


def server(name: str, state: StateDirs, mode: Mode, port: int, *args: str, **parameters: Any) -> Instance:
    """Return a probe that runs as a user, and writes into a directory that only root could have made for it."""
    parameters = {"user": "npx-web", "credentials": credentials()} | parameters
    home = home_of(state, name)
    environment = {"PROBE_DUMP": f"{home}/dump", **parameters.pop("environment", {})}
    initialize = f"mkdir -p '{home}'; id -u > '{home}/initialized'; chown '{parameters['user']}' '{home}'\n"
    return probe(name, state, mode, *args, port=port, environment=environment, initialize=initialize, **parameters)


def dump_of(system: System, name: str) -> Received:
    """Return the dump of a server, which has the values that it has received."""
    return received_in(system.machine, f"{home_of(system.state, name)}/dump")


def numeric_id(machine: Machine, kind: str, name: str) -> int:
    """Return the numeric id of a user (``passwd``) or a group (``group``), from getent(1)."""
    return int(machine.succeed(f"getent {kind} {name}").split(":")[2])


def identity(machine: Machine, pid: int) -> dict[str, list[int]]:
    """Return the users and groups of a process: real, effective, saved, file system; and the supplementary groups."""
    lines = (machine.files.read(f"/proc/{pid}/status") or b"").decode().splitlines()
    found = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
    return {name: [int(number) for number in found[name]] for name in ("Uid", "Gid", "Groups")}


class PrivilegedBench(Bench):
    """A bench whose deployments may create accounts; other users can pass through its directory."""

    def __init__(self, manager: Manager, machine: Machine) -> None:
        super().__init__(manager, machine)
        os.chmod(self.directory, PASSABLE)
        self.before = self.accounts()

    def accounts(self) -> dict[str, bytes | None]:
        """Return the machine's files of accounts, as they are."""
        return {path: self.machine.files.read(path) for path in DATABASE}

    def planner(self, **settings: Any) -> Planner:
        """Return a planner of the profile privileged."""
        return super().planner(**({"privileged": True} | settings))

    def leftovers(self) -> list[str]:
        """Return descriptions of everything that is left behind, changes of accounts included."""
        left = [path for path, content in self.accounts().items() if content != self.before[path]]
        return [*super().leftovers(), *(f"a change of {path}" for path in left)]


class PrivilegedConformance(Fixtures):
    """The tests with accounts; set ``manager`` to the manager's registered name, or leave the choice to the options."""

    profile = PRIVILEGED

    @pytest.fixture
    def bench(self, tested_manager: Manager, machine: Machine, pytestconfig: pytest.Config) -> Iterator[Bench]:
        """Return a bench whose deployments may create accounts; anything that a test leaves behind is an error."""
        if reason := no_accounts_reason(pytestconfig, type(machine)):
            pytest.skip(reason)
        with clean(PrivilegedBench(tested_manager, machine)) as bench:
            yield bench

    @in_both_modes
    @pytest.mark.parametrize("nice", [None, 3])
    def test_process_runs_as_its_user(self, bench: Bench, mode: Mode, nice: int | None) -> None:
        """A process has its user and all of its groups, and nobody else's; ``initialize`` has run as root before."""
        port = bench.port()
        with bench.deploy(one(lambda state: server("it", state, mode, port, nice=nice))) as system:
            pid = system["it"].pid
            assert pid is not None
            found = identity(bench.machine, pid)
            uid, gid, other = (
                numeric_id(bench.machine, kind, name)
                for kind, name in (("passwd", "npx-web"), ("group", "npx-team"), ("group", "npx-log"))
            )
            assert (found["Uid"], found["Gid"]) == ([uid] * 4, [gid] * 4)
            assert set(found["Groups"]) | {gid} == {gid, other}
            assert bench.machine.accounts.of(pid) == (uid, gid)
            assert system.machine.files.read(f"{home_of(system.state, 'it')}/initialized") == b"0\n"
            assert own_number(system["it"]) == dump_of(system, "it").pid

    @in_both_modes
    def test_hostile_values_arrive_at_a_user(self, bench: Bench, mode: Mode) -> None:
        """Arguments, variables, umask, directory and nice level arrive as they do without a change of user."""
        variables = {f"HOSTILE_{number}": value for number, value in enumerate(HOSTILE)}
        variables |= {name: f"{name} 'of' \"%(x)s\" $HOME" for name in HOSTILE_NAMES}
        more: dict[str, Any] = {"environment": variables, "umask": "0027", "nice": -5, "directory": bench.directory}
        port = bench.port()
        with bench.deploy(one(lambda state: server("it", state, mode, port, *HOSTILE, **more))) as system:
            found = dump_of(system, "it")
        given = found.arguments[-len(HOSTILE) - 1 :] if mode == "daemon" else found.arguments[-len(HOSTILE) :]
        assert given[: len(HOSTILE)] == tuple(map(os.fsencode, HOSTILE))
        assert {name: found.environment.get(os.fsencode(name)) for name in variables} == {
            name: os.fsencode(value) for name, value in variables.items()
        }
        assert (found.umask, found.nice) == (0o027, os.getpriority(os.PRIO_PROCESS, 0) - 5)
        assert found.directory == os.fsencode(bench.directory)

    @in_both_modes
    def test_state_directories(self, bench: Bench, mode: Mode) -> None:
        """Other users can reach the state and write to its temporary directory, but cannot read the journal."""
        port = bench.port()
        with bench.deploy(one(lambda state: server("it", state, mode, port))) as system:
            state = system.state
            modes = {
                path: bench.machine.succeed(f"stat -c '%a %U' '{path}'").strip()
                for path in (system.root, f"{system.root}/journal", *state.all())
            }
            assert modes == {
                system.root: "711 root",
                f"{system.root}/journal": "600 root",
                **dict.fromkeys(state.all(), "755 root"),
                state.tmp_dir: "1777 root",
            }
            assert system["it"].pid_file == f"{state.tmp_dir}/it.pid"
            assert "the probe is up\n" in system["it"].log

    @in_both_modes
    def test_life_of_a_users_process(self, bench: Bench, mode: Mode) -> None:
        """Processes of two users, and one without a user, are found, signalled, stopped and restarted alike."""
        ports = {name: bench.port() for name in ("one", "two", "root")}

        def build(state: StateDirs) -> Mapping[str, Instance]:
            other = {"user": "npx-two", "credentials": {"users": {"npx-two": {}}}}
            return {
                "one": server("one", state, mode, ports["one"]),
                "two": server("two", state, mode, ports["two"], **other),
                "root": probe("root", state, mode, port=ports["root"]),
            }

        with bench.deploy(build) as system:
            assert identity(bench.machine, system["root"].pid or 0)["Uid"] == [0] * 4
            for name, port in ports.items():
                assert system[name].listening == {port}
                assert system[name].pids == [system[name].pid]
                assert http_body(system[name]) == str(own_number(system[name]))
            system["one"].kill(signal.SIGKILL)
            assert not system["one"].is_running
            system["one"].start()
            system["two"].restart()
            system["two"].reload()
            bench.await_line(system["two"], "reloaded")
            system.assert_no_conflicts()
            assert http_body(system["one"]) == str(own_number(system["one"]))

    def test_attributes_of_accounts(self, bench: Bench) -> None:
        """Accounts get the model's ids, home, shell, description and groups; all is removed at the end."""
        home = f"{bench.scratch}/homes/web"
        os.chmod(bench.scratch, PASSABLE)
        told = {"uid": 27431, "home_dir": home, "create_home_dir": True, "shell": "/bin/sh", "description": "It's 100%"}
        accounts = credentials(**told)
        accounts["groups"]["npx-team"] = {"gid": 27432}
        port = bench.port()
        build = one(lambda state: server("it", state, "foreground", port, credentials=accounts))
        with bench.deploy(build) as system:
            entry = system.machine.succeed("getent passwd npx-web").rstrip("\n").split(":")
            assert entry == ["npx-web", "x", "27431", "27432", "It's 100%", home, "/bin/sh"]
            assert system.machine.succeed("getent group npx-log").rstrip("\n").endswith(":npx-web")
            assert system.machine.succeed(f"stat -c '%u %g %a' '{home}'") == "27431 27432 755\n"
        assert os.listdir(bench.scratch) == []

    @in_both_modes
    def test_existing_accounts_are_used_and_left_alone(self, bench: Bench, mode: Mode) -> None:
        """An existing account, or group named like a user, is used unchanged even if the model differs."""
        machine, port = bench.machine, bench.port()
        machine.succeed(
            "groupadd --gid 27440 npx-log",
            "groupadd --gid 27441 npx-web",
            "groupadd --gid 27442 npx-two",
            "useradd --uid 27441 --gid npx-log --groups npx-web --no-create-home npx-web",
        )
        try:
            before = [machine.succeed(f"getent {kind}") for kind in ("passwd", "group")]
            accounts = credentials(uid=4000)
            # userdel would remove the group that has the user's name, too.
            accounts["users"]["npx-two"] = {"group": "npx-two"}
            with bench.deploy(one(lambda state: server("it", state, mode, port, credentials=accounts))) as system:
                found = identity(machine, system["it"].pid or 0)
                assert (found["Uid"], found["Gid"]) == ([27441] * 4, [27440] * 4)
                assert set(found["Groups"]) | {27440} == {27440, 27441}
                assert [finding.code for finding in system.findings if finding.code.startswith("NP11")] == ["NP110"]
            assert [machine.succeed(f"getent {kind}") for kind in ("passwd", "group")] == before
        finally:
            machine.succeed(
                "userdel npx-web", "for name in npx-log npx-web npx-two; do groupdel -f $name || true; done"
            )

    def test_accounts_that_nobody_describes(self, bench: Bench) -> None:
        """The error names a user or group that is neither described nor existing, before anything is created."""
        accounts = {"users": {"npx-web": {"group": "npx-missing"}}}
        port = bench.port()
        for parameters, place in (
            ({"user": "npx-nobody", "credentials": {}}, "processes.it.pkg.user = 'npx-nobody'"),
            ({"credentials": accounts}, "processes.it.pkg.credentials.users.npx-web.group = 'npx-missing'"),
            ({"user": "0", "credentials": {}}, "processes.it.pkg.user = '0'"),
        ):
            build = one(lambda state, told=parameters: server("it", state, "foreground", port, **told))  # type: ignore[misc]
            system = System(bench.planner())
            with pytest.raises(ConflictError) as caught:
                system.start(load(build))
            assert place in str(caught.value)

    def test_account_that_cannot_be_made(self, bench: Bench) -> None:
        """An account that the tools refuse fails the deployment with their words, and those made before it are gone."""
        port = bench.port()
        accounts = credentials(uid=0)
        build = one(lambda state: server("it", state, "foreground", port, credentials=accounts))
        with pytest.raises(DeploymentError, match=r"user 'npx-web' \(processes.it.pkg.*\n.*UID 0 is not unique"):
            System(bench.planner()).start(load(build))

    def test_shared_account(self, bench: Bench) -> None:
        """An account that two deployments use at once is made by the first, and removed by the last one that ends."""
        ports = bench.port(), bench.port()

        def build(port: int) -> Build:
            return one(lambda state: server("it", state, "foreground", port))

        with bench.deploy(build(ports[1])) as second:
            with bench.deploy(build(ports[0])) as first:
                assert identity(bench.machine, first["it"].pid or 0) == identity(bench.machine, second["it"].pid or 0)
                second.stop()
                assert http_body(first["it"]) == str(own_number(first["it"]))
                bench.machine.succeed("getent passwd npx-web")
            bench.machine.fail("getent passwd npx-web")

    def test_switch(self, bench: Bench) -> None:
        """An upgrade makes the accounts that are new, and removes those that nothing needs any more."""
        port = bench.port()
        two = {"user": "npx-two", "credentials": {"users": {"npx-two": {}}}}
        with bench.deploy(one(lambda state: server("it", state, "foreground", port))) as system:
            system.switch(lambda state: {"it": server("it", state, "foreground", port, **two)})
            found = identity(bench.machine, system["it"].pid or 0)
            assert found["Uid"] == [numeric_id(bench.machine, "passwd", "npx-two")] * 4
            bench.machine.fail(*(f"getent group {name}" for name in NAMES), "getent passwd npx-web")
