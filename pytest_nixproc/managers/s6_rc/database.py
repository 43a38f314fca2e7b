"""The service database: compiled from definitions, and made the live one."""

from __future__ import annotations

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.s6_rc.generator import SOURCES, live_directory, scan_directory
from pytest_nixproc.managers.s6_rc.tools import Toolbox, milliseconds
from pytest_nixproc.values.target import Target


class Database:
    """The database, which has two places: one is used, and the next is compiled into the other."""

    def __init__(self, machine: Machine, target: Target, tools: Toolbox) -> None:
        self.machine = machine
        self.target = target
        self.tools = tools

    def compile(self, deadline: Deadline) -> str:
        """Compile the definitions into whichever of two databases does not exist yet, and return its path."""
        candidates = [f"{self.target.state.runtime_dir}/s6-rc-compiled-{number}" for number in (1, 2)]
        database, other = sorted(candidates, key=self.machine.files.exists)
        if self.machine.files.exists(database):
            raise MachineError(f"{database} and {other} are there already, and one of them is used")
        self.tools.succeed(deadline, "s6-rc-compile", "--", database, f"{self.target.directory}/{SOURCES}")
        return database

    def initialize(self, database: str, deadline: Deadline) -> None:
        """Make a database the live one, with all services down."""
        words = ("-b", "-t", milliseconds(deadline), "-c", database, "-l", live_directory(self.target))
        self.tools.succeed(deadline, "s6-rc-init", *words, "--", scan_directory(self.target))

    def update(self, deadline: Deadline) -> None:
        """Compile a new database, and switch the live state to it, without a restart of running services."""
        database = self.compile(deadline)
        self.tools.succeed(deadline, "s6-rc-update", "-b", "-l", live_directory(self.target), "--", database)
        number = int(database[-1])
        self.machine.files.remove(f"{database[:-1]}{3 - number}")
