"""What a process is told is told to nobody else, under any manager."""

from __future__ import annotations

import secrets
from typing import Final

import pytest

from pytest_nixproc._plugin.matrix import PRIVILEGED
from pytest_nixproc.testing.conformance import Bench, Fixtures, in_both_modes, one
from pytest_nixproc.testing.privileged import PrivilegedConformance, dump_of, server
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.units import Mode

LOOK: Final = """
import glob, os, sys
secret, number = os.environb.pop(b"SECRET"), int(sys.argv[2])
paths = [os.path.join(directory, name) for directory, _, names in os.walk(sys.argv[1]) for name in names]
os.setgroups([])
os.setgid(number)
os.setuid(number)
for path in [*paths, *glob.glob("/proc/[0-9]*/cmdline")]:
    if os.path.isfile(path):
        try:
            with open(path, "rb") as file:
                found = secret in file.read()
        except OSError:
            continue
        if found:
            print(path)
"""
"""Says which files of a directory, and which command lines, hold a secret that a user can read."""

NOBODY: Final = 65534


@pytest.fixture(autouse=True)
def agrees_with_the_record() -> None:
    """Compare with nothing: this is no part of the suite that other managers are held against."""


class TestSecrets(Fixtures):
    """For every manager that can run here."""

    manager = "all"
    profile = PRIVILEGED
    bench = PrivilegedConformance.bench

    @in_both_modes
    @pytest.mark.parametrize("form", ["{}", "{} 'of' \"%(x)s\"\n$HOME"])
    def test_environment_is_for_the_process(self, bench: Bench, mode: Mode, form: str) -> None:
        """A variable of a process of another user arrives, and is in no file or command line that others can read."""
        secret = secrets.token_hex()
        port, variables = bench.port(), {"PASSWORD": form.format(secret)}

        def readers_find(number: int) -> list[str]:
            argv = (bench.machine.facts.python, "-c", LOOK, system.root, str(number))
            look = Spawn(argv, {"SECRET": secret})
            status, output = bench.machine.processes.capture(look, bench.machine.deadline(30))
            assert status == 0, output
            return output.splitlines()

        build = one(lambda state: server("it", state, mode, port, environment=variables, umask="0077"))
        with bench.deploy(build) as system:
            found = dump_of(system, "it").environment
            assert found[b"PASSWORD"].decode() == variables["PASSWORD"]
            assert readers_find(0)
            assert readers_find(NOBODY) == []
