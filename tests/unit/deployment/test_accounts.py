"""What is made for a deployment, in which order, and what is written down before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc._deployment.accounts import LEDGER, AccountProvisioner, Item, Ledger, groups_and_users, read_ledger
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc.errors import DeploymentError, MachineError
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.fake_machine import FakeMachine, FakeProcess
from pytest_nixproc.values.machine import Account, Facts
from pytest_nixproc.values.target import Target

SHELL = "/bin/sh"
FULL: dict[str, Any] = {
    "groups": {"team": {"gid": 5}},
    "users": {
        "web": {
            "uid": 7,
            "group": "team",
            "extra_groups": ["log", "mail"],
            "description": "It's",
            "shell": "/bin/sh",
            "home_dir": "/srv/apps/web/",
            "create_home_dir": True,
            "password": "$6$salt$hash",
        },
        "plain": {},
    },
}


def model(*credentials: dict[str, Any]) -> ProcessesModel:
    """Return a model with an instance for each."""
    described = enumerate(credentials, 1)
    return ProcessesModel(
        {
            f"p{number}": Instance(create_managed_process(name=f"p{number}", process="/bin/x", credentials=accounts))
            for number, accounts in described
        }
    )


class BuildTools:
    """The tools of shadow, on a fake machine: they change its accounts, and what is to fail fails."""

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.commands: list[str] = []
        self.passwords: dict[str, str] = {}
        self.failing: dict[str, int] = {}
        self.ledgers: list[str] = []
        machine.processes.program(SHELL, self.run)

    def run(self, machine: FakeMachine, process: FakeProcess) -> None:
        """Do what a command says."""
        tool, *words = process.command.argv[4:]
        status = 0
        if tool == "mv":
            machine.files.contents[words[-1]] = machine.files.contents.pop(words[-2])
        else:
            self.commands.append(" ".join([tool, *words]))
            if password := process.command.environment.get("PASSWORD"):
                self.passwords[words[-1]] = password
            self.ledgers.append((machine.files.read(LEDGER) or b"").decode())
            status = self.failing.get(tool, 0)
            if status == 0:
                self.carry_out(tool, words)
        if status:
            machine.files.append(process.command.output or "", f"{tool} says no\n")
        machine.processes.end(process.pid, status)

    def carry_out(self, tool: str, words: Sequence[str]) -> None:
        """Change the accounts."""
        name = words[-1]
        match tool:
            case "groupadd":
                self.machine.accounts.groups[name] = 900
            case "useradd":
                self.machine.accounts.users[name] = Account(name, 900, words[words.index("--gid") + 1], 900)
            case "groupdel":
                del self.machine.accounts.groups[name]
            case "userdel":
                del self.machine.accounts.users[name]
            case "install":
                self.machine.files.make_directory(name)


@pytest.fixture
def machine() -> FakeMachine:
    """Return a machine, as root, that has two groups."""
    machine = FakeMachine(Facts(shell=SHELL))
    machine.accounts.groups |= {"log": 1, "mail": 2}
    machine.files.make_directory("/srv")
    return machine


@pytest.fixture
def tools(machine: FakeMachine) -> BuildTools:
    """Return the tools."""
    return BuildTools(machine)


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    """Return leases of the test's own."""
    return Leases(str(tmp_path / "leases" / "here"))


@pytest.fixture
def accounts(machine: FakeMachine, leases: Leases) -> Callable[[str], AccountProvisioner]:
    """Return a function that returns the accounts of a deployment, which is leased."""

    def make(root: str) -> AccountProvisioner:
        leases.save(DeploymentLease(root, (ProcessIdentity.current(),)))
        return AccountProvisioner(machine, leases, root)

    return make


@pytest.fixture
def privileged(target: Target) -> Target:
    """Return a place where users are changed."""
    return replace(target, force_disable_user_change=False)


def test_commands() -> None:
    """Groups come before users, each with all that a model says; a user without a group has one of its own name."""
    found = [" ".join(item.argv) for item in groups_and_users(model(FULL, {"groups": {"team": {}, "last": {}}}))]
    more = "--uid 7 --groups log,mail --shell /bin/sh"
    own = "useradd --system --no-log-init --no-create-home --no-user-group"
    assert found == [
        "groupadd --system --gid 5 team",
        "groupadd --system last",
        "groupadd --system plain",
        f"{own} --gid team --home-dir /srv/apps/web/ --comment It's {more} web",
        f"{own} --gid plain --home-dir /dev/null --comment  plain",
    ]


def test_what_is_made_is_written_down_before(
    accounts: Callable[[str], AccountProvisioner], tools: BuildTools, privileged: Target, machine: FakeMachine
) -> None:
    """The ledger names everything when the first command runs; all of it goes in reverse.

    Passwords are in neither ledger nor command, for a variable is for its user alone.
    """
    one = accounts("/r/one")
    one.provide(model(FULL), privileged)
    assert [command.partition(" ")[0] for command in tools.commands] == [*["groupadd"] * 2, *["useradd"] * 2, "install"]
    assert tools.commands[-1] == "install -d -m 755 -o web -g team /srv/apps/web"
    assert tools.passwords == {"web": "$6$salt$hash"}
    assert "$6$salt$hash" not in "".join([*tools.commands, *tools.ledgers])
    assert set(tools.ledgers) == {tools.ledgers[0]}
    assert json.loads(tools.ledgers[0]) == [
        *(["group", name, [], ["/r/one"]] for name in ("team", "plain")),
        *(["user", name, [], ["/r/one"]] for name in ("web", "plain")),
        ["home", "/srv/apps/web", ["/srv/apps"], ["/r/one"]],
    ]
    assert machine.files.modes[f"{LEDGER}.new"] == 0o600
    tools.commands.clear()
    assert one.release() == []
    assert tools.commands == ["rmdir /srv/apps", "userdel plain", "userdel web", "groupdel plain", "groupdel team"]
    assert (machine.files.read(LEDGER), machine.files.exists("/srv/apps/web")) == (None, False)
    assert one.release() == []


def test_what_exists_is_left_alone(
    accounts: Callable[[str], AccountProvisioner], tools: BuildTools, privileged: Target, machine: FakeMachine
) -> None:
    """AccountProvisioner and homes that are there are neither changed nor written down nor removed."""
    machine.accounts.groups |= {"team": 5, "plain": 6}
    machine.accounts.users |= {name: Account(name, 7, "team", 5) for name in ("web", "plain")}
    machine.files.make_directory("/srv/apps/web")
    one = accounts("/r/one")
    one.provide(model(FULL), privileged)
    assert one.release() == []
    assert tools.commands == []
    assert machine.files.read(LEDGER) is None


def test_group_of_a_users_name_survives_it(
    accounts: Callable[[str], AccountProvisioner], tools: BuildTools, privileged: Target, machine: FakeMachine
) -> None:
    """A user leaves a group of its name that was there before: userdel would remove that too."""
    machine.accounts.groups["plain"] = 6
    one = accounts("/r/one")
    one.provide(model({"users": {"plain": {}}}), privileged)
    assert one.release() == []
    assert tools.commands[1:] == ["usermod --home /dev/null --gid 0 plain", "userdel plain"]


def test_last_one_removes(
    accounts: Callable[[str], AccountProvisioner], tools: BuildTools, privileged: Target, machine: FakeMachine
) -> None:
    """What two deployments use is made once, and removed when the second one lets go of it."""
    one, two = accounts("/r/one"), accounts("/r/two")
    for user in (one, two):
        user.provide(model({"groups": {"team": {}}}), privileged)
    assert one.release() == []
    assert (tools.commands, list(machine.accounts.groups)) == (["groupadd --system team"], ["log", "mail", "team"])
    assert two.release() == []
    assert tools.commands[1:] == ["groupdel team"]


def test_dead_users_do_not_count(
    accounts: Callable[[str], AccountProvisioner], tools: BuildTools, leases: Leases, privileged: Target
) -> None:
    """A deployment that has neither lease nor directory any more does not keep an account alive."""
    accounts("/r/one").provide(model({"groups": {"team": {}}}), privileged)
    leases.remove("/r/one")
    two = accounts("/r/two")
    two.provide(model({"groups": {"last": {}}}), privileged)
    assert two.release() == []
    assert tools.commands[2:] == ["groupdel last", "groupdel team"]


@pytest.mark.parametrize(("status", "removed"), [(9, []), (4, ["userdel web"])])
def test_account_that_cannot_be_made(
    accounts: Callable[[str], AccountProvisioner],
    tools: BuildTools,
    privileged: Target,
    machine: FakeMachine,
    status: int,
    removed: list[str],
) -> None:
    """A refusal is told with the tool's words; a name that somebody else has taken meanwhile is not ours to remove."""
    tools.failing["useradd"] = status
    one = accounts("/r/one")
    with pytest.raises(DeploymentError, match=r"cannot make user 'web' .*users.web.: useradd ended with") as caught:
        one.provide(model(FULL), privileged)
    assert caught.value.details == "useradd says no"
    machine.accounts.users["web"] = Account("web", 7, "team", 5)
    tools.commands.clear()
    assert one.release() == []
    assert tools.commands == [*removed, "groupdel plain", "groupdel team"]


def test_missing_tool(accounts: Callable[[str], AccountProvisioner], tools: BuildTools, privileged: Target) -> None:
    """A machine without the tools is told what it needs."""
    tools.failing["groupadd"] = 127
    with pytest.raises(DeploymentError) as caught:
        accounts("/r/one").provide(model(FULL), privileged)
    assert caught.value.remedy == "install groupadd on the machine"


def test_busy_account(
    accounts: Callable[[str], AccountProvisioner], tools: BuildTools, privileged: Target, machine: FakeMachine
) -> None:
    """An account is removed once its last process is gone; one that stays busy is a problem, and stays written down."""
    one = accounts("/r/one")
    one.provide(model({"users": {"plain": {}}}), privileged)
    tools.failing["userdel"] = 8
    machine.clock.after(1, tools.failing.clear)
    assert one.release() == []
    one.provide(model({"users": {"plain": {}}}), privileged)
    tools.failing["userdel"] = 8
    assert one.release() == ["userdel plain ended with status 8: userdel says no"]
    assert "user:plain" in read_ledger(machine.files.read(LEDGER), LEDGER).entries


def test_account_that_another_could_not_remove(
    accounts: Callable[[str], AccountProvisioner], tools: BuildTools, privileged: Target, leases: Leases
) -> None:
    """What one deployment was told of does not fail the next one, which tries once more."""
    one, two = accounts("/r/one"), accounts("/r/two")
    one.provide(model({"users": {"plain": {}}}), privileged)
    two.provide(model({"groups": {"team": {}}}), privileged)
    tools.failing["userdel"] = 8
    assert one.release() != []
    leases.remove("/r/one")
    assert two.release() == []
    assert tools.commands.count("userdel plain") > 1
    tools.failing.clear()
    assert accounts("/r/three").release() == []
    assert tools.commands[-1] == "userdel plain"


def test_busy_account_of_a_throwaway_machine(
    accounts: Callable[[str], AccountProvisioner],
    tools: BuildTools,
    privileged: Target,
    machine: FakeMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An account that stays busy is no problem of a machine that is thrown away; it stays written down all the same."""
    monkeypatch.setattr(FakeMachine, "throwaway", True)
    one = accounts("/r/one")
    one.provide(model({"users": {"plain": {}}}), privileged)
    tools.failing["userdel"] = 8
    assert one.release() == []
    assert "user:plain" in read_ledger(machine.files.read(LEDGER), LEDGER).entries


@pytest.mark.parametrize("user", [{"create_home_dir": True}, {"create_home_dir_only": True}])
def test_homes_where_users_are_not_changed(
    accounts: Callable[[str], AccountProvisioner],
    tools: BuildTools,
    target: Target,
    machine: FakeMachine,
    user: dict[str, Any],
) -> None:
    """Where accounts may not be made, homes are, as nobody's in particular; none is made that was not asked for."""
    users = {"web": {"home_dir": "/srv/apps/web", **user}, "other": {"home_dir": "/srv/other"}}
    one = accounts("/r/one")
    one.provide(model({"users": users}), target)
    assert tools.commands == ["install -d -m 755 /srv/apps/web"]
    assert one.release() == []
    assert not machine.files.exists("/srv/apps/web")


def test_home_without_account(
    accounts: Callable[[str], AccountProvisioner], tools: BuildTools, privileged: Target
) -> None:
    """``create_home_dir_only`` makes no account."""
    one = accounts("/r/one")
    one.provide(model({"users": {"web": {"home_dir": "/srv/web", "create_home_dir_only": True}}}), privileged)
    assert tools.commands == ["install -d -m 755 /srv/web"]


def test_directory_above_homes_of_two_deployments(
    accounts: Callable[[str], AccountProvisioner], tools: BuildTools, target: Target
) -> None:
    """What was made above the home of one deployment is removed with the last home in it, whosever that is."""
    one, two = accounts("/r/one"), accounts("/r/two")
    for owner, home in ((one, "/srv/apps/web"), (two, "/srv/apps/deep/db")):
        owner.provide(model({"users": {"web": {"home_dir": home, "create_home_dir": True}}}), target)
    assert one.release() == []
    tools.commands.clear()
    assert two.release() == []
    assert tools.commands == ["rmdir /srv/apps/deep /srv/apps"]


def test_home_in_the_deployment_goes_with_it(
    accounts: Callable[[str], AccountProvisioner], tools: BuildTools, target: Target, machine: FakeMachine
) -> None:
    """A home below the deployment's directory is removed with that, and needs no ledger."""
    users = {"web": {"home_dir": "/r/one/var/lib/web", "create_home_dir": True}}
    accounts("/r/one").provide(model({"users": users}), target)
    assert tools.commands == ["install -d -m 755 /r/one/var/lib/web"]
    assert machine.files.read(LEDGER) is None


def test_ordinary_users_write_elsewhere(leases: Leases) -> None:
    """Who is not root keeps the ledger among the leases."""
    machine = FakeMachine(Facts(account=Account("me", 1000, "us", 100)))
    assert AccountProvisioner(machine, leases, "/r/one").place == f"{leases.directory}/accounts"


@pytest.mark.parametrize("content", [b"[[", b"{}x", b"[1]", b'[["group"]]', b'[["group", "x", 1, 2]]'])
def test_damaged_ledger(content: bytes) -> None:
    """A ledger that makes no sense is an error that names it."""
    with pytest.raises(MachineError, match="the ledger of accounts /etc/x cannot be read"):
        read_ledger(content, "/etc/x")


def test_ledger_comes_back() -> None:
    """What is written is what is read, in its order."""
    ledger = Ledger()
    for name in ("b", "a"):
        ledger.hold(Item("home", name, ("install",), origin="origin", parents=("/x",)), "/r")
    again = read_ledger(ledger.text().encode(), "")
    assert list(again.entries) == ["home:b", "home:a"]
    assert again.text() == ledger.text()
