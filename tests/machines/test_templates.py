"""Processes that are forked from a template: nobody can tell them from those that were executed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.guardian import templates
from pytest_nixproc.machines.guardian.templates import Templates
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import children_of, command_line, is_alive, parents
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.values.commands import Spawn

LIMIT: Final = 30
INTERPRETER: Final = (sys.executable, "-P", "-X", "utf8")
PROBE: Final = "pytest_nixproc.testing.programs.probe"
OWN_FACTS: Final = ("Pid", "Tgid", "Ngid", "NStgid", "NSpid", "NSpgid", "NSsid", "Vm", "Rss", "Hugetlb")
"""Facts of ``/proc/PID/status`` that differ from process to process."""

CHANGING_FACTS: Final = ("voluntary", "nonvoluntary", "State", "SigQ")
"""Facts that change from moment to moment; the last is how many signals wait for all processes of the user."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="templates need prctl(2) of Linux")


@pytest.fixture
def host() -> Iterator[Host]:
    """Return this machine, with a guardian of its own."""
    host = Host()
    yield host
    host.lifecycle.close()


def probe(tmp_path: Path, *, is_forked: bool, tag: str = "NIXPROC_DEPLOYMENT=/tests/template") -> Spawn:
    """Return the command of a probe, with arguments and variables that are not easy to pass on."""
    name, _, value = tag.partition("=")
    variables = {"PROBE_DUMP": f"{tmp_path}/dump", name: value, "PATH": "/bin", "ODD": "ü\udcff = ' \" \n$HOME"}
    argv = (*INTERPRETER, "-m", PROBE, "an argument", "", "-m", "ü\udcff\n")
    return Spawn(argv, variables, f"{tmp_path}/output", is_forked=is_forked)


def start(host: Host, command: Spawn) -> int:
    """Start a probe, and wait until it is up."""
    pid = host.processes.spawn(command)
    dump = command.environment["PROBE_DUMP"]
    said = Path(command.output or "")
    wait_until(
        lambda: "" if os.path.exists(dump) else said.read_text() or "nothing said",
        host.deadline(LIMIT),
        "see the probe",
    )
    return pid


def end(host: Host, pid: int) -> int | None:
    """End a process by SIGTERM; return how it has ended."""
    host.processes.signal(pid, signal.SIGTERM)
    assert host.processes.wait_ended([pid], host.deadline(LIMIT)) == set()
    host.processes.sync_exits()
    return host.processes.exit_status(pid)


def facts(host: Host, command: Spawn) -> dict[str, Any]:
    """Start a probe; return what it sees of its surroundings, what others see of it, and how it ends."""
    pid = start(host, command)
    at = Path(f"/proc/{pid}")
    status = dict(line.split(":\t", 1) for line in (at / "status").read_text().splitlines())
    seen = {name: fact for name, fact in status.items() if not name.startswith((*OWN_FACTS, *CHANGING_FACTS))}
    inside = json.loads(Path(command.environment["PROBE_DUMP"]).read_text())
    assert inside.pop("pid") == pid
    for moment in ("begun", "listening"):
        inside.pop(moment)
    outside = {
        **{name: (at / name).read_bytes() for name in ("cmdline", "environ", "limits", "cgroup", "comm")},
        **{name: os.readlink(at / name) for name in ("exe", "cwd", "root")},
        "leads": (os.getsid(pid), os.getpgid(pid)) == (pid, pid),
        "described": host.processes.describe(pid),
        "tagged": pid in host.processes.tagged("NIXPROC_DEPLOYMENT=/tests/template"),
    }
    return {"status": seen, "inside": inside, **outside, "ended": end(host, pid)}


def templates_of(host: Host) -> list[int]:
    """Return the templates of a host's guardian."""
    pid = host.lifecycle.guard("/nonexistent", ["/bin/true"])
    host.lifecycle.unguard("/nonexistent")
    return [child for child in children_of(pid or 0) if "machines.guardian.template" in command_line(child)]


def memory_of(pid: int) -> str:
    """Return where the stack of a process begins, which only those share that are forked from each other; it grows."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next(line.split()[0].partition("-")[2] for line in lines if "[stack]" in line)


def test_forked_is_as_executed(host: Host, tmp_path: Path) -> None:
    """Arguments, variables, descriptors, limits, umask, signals, session, parent and end: all are the same."""
    executed, forked, again = (facts(host, probe(tmp_path, is_forked=how)) for how in (False, True, True))
    assert forked == executed
    assert again == executed
    assert executed["cmdline"].split(b"\0")[:-1] == [os.fsencode(word) for word in probe(tmp_path, is_forked=True).argv]


def test_template_is_forked_and_goes_with_its_guardian(host: Host, tmp_path: Path) -> None:
    """There is one template for all processes of a module; what was forked from it outlives it until it is ended."""
    host.lifecycle.warm_up(INTERPRETER, PROBE)
    pid = start(host, probe(tmp_path, is_forked=True))
    (template,) = templates_of(host)
    assert memory_of(pid) == memory_of(template)
    (tmp_path / "other").mkdir()
    other = start(host, probe(tmp_path / "other", is_forked=False))
    assert memory_of(other) != memory_of(template)
    host.lifecycle.close()
    assert [one for one in (template, pid, other) if is_alive(one)] == []


def test_template_is_nobodys_stray(host: Host, tmp_path: Path) -> None:
    """A template is nothing that a deployment has left, whether something else runs or not."""
    tag = "NIXPROC_DEPLOYMENT=/tests/template"
    pid = start(host, probe(tmp_path, is_forked=True, tag="NIXPROC_DEPLOYMENT=/tests/other"))
    assert templates_of(host)
    assert host.processes.strays(tag) == []
    end(host, pid)
    assert host.processes.strays(tag) == []
    pid = start(host, probe(tmp_path, is_forked=True))
    assert host.processes.strays(tag) == [pid]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_without_its_template_a_process_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A template that does not answer is given up; it neither comes back nor keeps anything."""
    monkeypatch.setattr(templates, "ANSWER_SECONDS", 0.5)
    own = Templates([])
    template = own.started(INTERPRETER, PROBE)
    assert template is not None
    assert own.pids == {template.pid}
    os.kill(template.pid, number)
    command = probe(tmp_path, is_forked=True)
    for _ in range(2):
        assert own.spawn(list(command.argv), dict(command.environment), command.output or "") is None
    assert own.pids == set()
    assert os.waitpid(template.pid, 0)[1] == signal.SIGKILL


def test_module_that_cannot_be_imported(host: Host, tmp_path: Path) -> None:
    """It fails as it does when it is executed: with its own words, in its own output."""
    argv = (*INTERPRETER, "-m", "pytest_nixproc.nothing")
    pid = host.processes.spawn(Spawn(argv, {}, f"{tmp_path}/output", is_forked=True))
    assert host.processes.wait_ended([pid], host.deadline(LIMIT)) == set()
    assert "No module named pytest_nixproc.nothing" in (tmp_path / "output").read_text()


def test_output_that_cannot_be_written(host: Host, tmp_path: Path) -> None:
    """It is the same error, which names the file; the template goes on."""
    command = probe(tmp_path, is_forked=True)
    for is_forked in (True, False):
        lost = Spawn(command.argv, command.environment, f"{tmp_path}/nowhere/output", is_forked=is_forked)
        with pytest.raises(MachineError, match="a command could not be started") as caught:
            host.processes.spawn(lost)
        assert "No such file or directory" in caught.value.details
    assert templates_of(host)
    end(host, start(host, command))


def test_killed_guardian_takes_its_template_along(host: Host, tmp_path: Path) -> None:
    """A template ends when its guardian is gone; the next guardian has a template of its own."""
    pid = start(host, probe(tmp_path, is_forked=True))
    (template,) = templates_of(host)
    os.kill(parents()[template], signal.SIGKILL)
    with pytest.raises(MachineError, match="the guardian of the deployed processes is gone"):
        host.processes.spawn(probe(tmp_path, is_forked=True))
    wait_until(lambda: "it runs" if is_alive(template) else "", host.deadline(LIMIT), "see the template end")
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: "it runs" if is_alive(pid) else "", host.deadline(LIMIT), "see the process end")
    end(host, start(host, probe(tmp_path, is_forked=True)))
    assert len(templates_of(host)) == 1
