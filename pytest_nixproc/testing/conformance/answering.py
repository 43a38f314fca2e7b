"""Tests of answers: at which addresses instances give them, and whose answer makes an instance ready."""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any, Final

import pytest

from pytest_nixproc.errors import StartError
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.testing.conformance.bench import (
    Bench,
    bystander,
    http_body,
    impatient,
    one,
    own_number,
    received,
)
from pytest_nixproc.testing.conformance.fixtures import Fixtures, in_both_modes
from pytest_nixproc.testing.programs import models
from pytest_nixproc.testing.programs.models import misbehaving, probe
from pytest_nixproc.values.addresses import ALL_IPV4, ALL_IPV6, IPV4_LOOPBACK, LOCALHOST, url_of
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.units import Mode

OTHER_LOOPBACK: Final = "127.0.0.2"
DECLARED: Final = {
    "an address": (OTHER_LOOPBACK, OTHER_LOOPBACK, OTHER_LOOPBACK),
    "IPv6": ("::1", "::1", "::1"),
    "a name, of IPv4": (LOCALHOST, "127.0.0.1", "127.0.0.1"),
    "a name, of IPv6": (LOCALHOST, "::1", "::1"),
    "all of IPv4": (ALL_IPV4, ALL_IPV4, "127.0.0.1"),
    "all of IPv6": (ALL_IPV6, ALL_IPV6, "::1"),
    "nothing, an address": ("", OTHER_LOOPBACK, OTHER_LOOPBACK),
    "nothing, IPv6": ("", "::1", "::1"),
    "nothing, all": ("", ALL_IPV4, "127.0.0.1"),
}
"""What a model says of the address, the address that is bound, and the one that a URL has."""

LISTEN: Final = (
    "import socket, sys, time; s = socket.create_server((sys.argv[1], int(sys.argv[2])));"
    " print('up', flush=True); time.sleep(99)"
)
BIND: Final = (
    "import signal, socket, sys, time; time.sleep(float(sys.argv[2])); s = socket.socket(type=socket.SOCK_DGRAM);"
    " s.bind(('127.0.0.1', int(sys.argv[1]))); signal.pause()"
)
SECONDS: Final = 0.5
"""How long the second of two servers takes; the first answers meanwhile."""


def has_address(host: str) -> bool:
    """Tell whether this machine has an address: some have no IPv6, and some a single loopback address."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe_socket:
            probe_socket.bind((host, 0))
    except OSError:
        return False
    return True


def listening(
    name: str, state: StateDirs, mode: Mode, port: int, bound: str, *, delay: float = 0, **attributes: Any
) -> Instance:
    """Return a probe that listens on an address, with attributes of the instance."""
    it = probe(name, state, mode, port=port, delay=delay, environment={"PROBE_HOST": bound})
    return Instance(it.pkg, port=port, **attributes)


class Answering(Fixtures):
    """Tests of answers: at which addresses instances give them, and whose answer makes an instance ready."""

    def test_ready_by_a_udp_port(self, bench: Bench) -> None:
        """An instance whose condition is its UDP port has that when it counts as ready."""
        port = bench.port()
        args = [*models.OPTIONS, "-c", BIND, str(port), str(SECONDS)]
        pkg = create_managed_process(name="it", foreground_process=models.INTERPRETER, args=args)
        with (
            socket.socket(type=socket.SOCK_DGRAM) as other,
            bench.deploy(lambda _: {"it": Instance(pkg, udp_port=port, ready=ready.udp(port))}),
            pytest.raises(OSError, match="Address already in use"),
        ):
            other.bind((IPV4_LOOPBACK, port))

    @in_both_modes
    def test_addresses(self, bench: Bench, mode: Mode) -> None:
        """A server is ready on any address, whether its model says which or not, and its URL names where it answers."""
        ports = {name: bench.port() for name, (_, _, reached) in DECLARED.items() if has_address(reached)}

        def build(state: StateDirs) -> Mapping[str, Instance]:
            return {
                f"it{number}": listening(f"it{number}", state, mode, port, bound, bind_address=said)
                for number, (name, port) in enumerate(ports.items())
                for said, bound, _ in [DECLARED[name]]
            }

        with bench.deploy(build) as system:
            urls = {name: url_of(DECLARED[name][2], port) for name, port in ports.items()}
            assert dict(zip(urls, (it.url for it in system.values()), strict=True)) == urls
            assert all(http_body(it) == str(own_number(it)) for it in system.values())
            assert {finding.code for finding in system.findings} & {"NP202", "NP203", "NP207"} == set()

    @in_both_modes
    @pytest.mark.parametrize("how", ["connection", "HTTP"])
    def test_one_port_on_two_addresses(self, bench: Bench, mode: Mode, how: str) -> None:
        """Two servers may have one port on two addresses: each is ready, answers and stops for itself alone."""
        hosts = {"one": "127.0.0.1", "two": OTHER_LOOPBACK}
        if not has_address(OTHER_LOOPBACK):
            pytest.skip(f"this machine has no address {OTHER_LOOPBACK}")
        port = bench.port()
        condition = {"ready": ready.http("/")} if how == "HTTP" else {}

        def build(state: StateDirs) -> Mapping[str, Instance]:
            return {
                name: listening(name, state, mode, port, host, delay=delay, bind_address=host, **condition)
                for (name, host), delay in zip(hosts.items(), (0, SECONDS), strict=True)
            }

        with bench.deploy(build) as system:
            assert received(system, "two").listening - received(system, "two").begun >= SECONDS
            assert {name: http_body(it) for name, it in system.items()} == {
                name: str(own_number(it)) for name, it in system.items()
            }
            for name in hosts:
                assert [finding.code for finding in system.restart_alone(name)] == []
            system.assert_no_conflicts()

    @in_both_modes
    def test_stranger_on_another_address(self, bench: Bench, mode: Mode) -> None:
        """Who has the port on another address is no reason to refuse a server that is bound to its own."""
        if not has_address(OTHER_LOOPBACK):
            pytest.skip(f"this machine has no address {OTHER_LOOPBACK}")
        port = bench.port()
        with bystander(sys.executable, "-c", LISTEN, "127.0.0.1", str(port)) as stranger:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == "up\n"

            def build(state: StateDirs) -> Mapping[str, Instance]:
                return {"it": listening("it", state, mode, port, OTHER_LOOPBACK, bind_address=OTHER_LOOPBACK)}

            with bench.deploy(build) as system:
                assert http_body(system["it"]) == str(own_number(system["it"]))
                system["it"].restart()
                assert http_body(system["it"]) == str(own_number(system["it"]))

    @in_both_modes
    def test_port_taken_while_it_was_stopped(self, bench: Bench, mode: Mode) -> None:
        """Whoever answers on the port of a server that cannot have it does not make it ready: the error says who."""
        port = bench.port()
        with bench.deploy(one(lambda state: probe("it", state, mode, port=port))) as system:
            it = system["it"]
            it.stop()
            with bystander(sys.executable, "-c", LISTEN, "127.0.0.1", str(port)) as stranger:
                assert stranger.stdout is not None
                assert stranger.stdout.readline() == "up\n"
                with pytest.raises(StartError, match=rf"port {port}: process {stranger.pid} holds it"):
                    it.start()

    @in_both_modes
    def test_stray_answers(self, bench: Bench, mode: Mode) -> None:
        """What an earlier run has left does not make an instance ready by its answers: the error says that it does."""
        port = bench.port()
        build = one(lambda state: impatient(misbehaving("it", state, mode, "wraps", port=port), 3))
        with bench.deploy(build) as system:
            it = system["it"]
            _, worker = it.pids
            it.kill()
            if bench.manager.capabilities.contains:
                it.start()
                assert worker not in it.pids
                return
            with pytest.raises(StartError, match=rf"port {port}: process {worker} holds it"):
                it.start()
            bench.machine.processes.signal(worker, signal.SIGKILL)
            bench.machine.processes.wait_ended([worker], bench.machine.deadline(5))

    @in_both_modes
    def test_ended_when_its_condition_holds(self, bench: Bench, mode: Mode) -> None:
        """An instance that has ended when its condition comes to hold has not started."""
        with (
            pytest.raises(StartError, match="it did not start"),
            bench.deploy(one(lambda state: ready_by_line(misbehaving("it", state, mode, "ends-before-ready")))),
        ):
            pass

    @in_both_modes
    def test_line_of_an_earlier_run(self, bench: Bench, mode: Mode) -> None:
        """A line that an earlier run has logged does not make an instance ready."""
        options = {"ready": "late", "delay": 0.3}
        build = one(lambda state: ready_by_line(misbehaving("it", state, mode, "forks", options=options)))
        with bench.deploy(build) as system:
            for number in (1, 2):
                assert len(re.findall("^ready$", system["it"].log, re.MULTILINE)) == number
                system["it"].restart()

    @in_both_modes
    def test_line_that_ends_in_crlf(self, bench: Bench, mode: Mode) -> None:
        """The end of a line is found before CR LF, too."""
        options = {"ready": "crlf"}
        build = one(lambda state: ready_by_line(misbehaving("it", state, mode, "forks", options=options)))
        with bench.deploy(build) as system:
            system["it"].wait_for_log("^ready$", timeout=5)
            assert re.search("^ready$", system["it"].log, re.MULTILINE) is None


def ready_by_line(instance: Instance) -> Instance:
    """Return an instance that is ready when it has said so."""
    return Instance(instance.pkg, ready=ready.log("^ready$"))
