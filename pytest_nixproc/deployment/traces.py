"""What instances have written, and closed again, where all programs write; as far as it can be told whose it is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pytest_nixproc.checks.api import Trace
from pytest_nixproc.checks.claims import mentions
from pytest_nixproc.machines.api import Account, Machine, Sight
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.system import ProcessesModel

PLACES: Final = ("/tmp", "/var/tmp", "/var/log", "~")  # noqa: S108 - looked at, and not used
PATH: Final = re.compile(rb"/(?<![\w./~-]/)(?:tmp|var/tmp|var/log)/[\w.@+/-]*\w")
"""A path in one of these places, within a text or a program."""

NUMBER: Final = re.compile(r"(?<!\d)\d{3,}(?!\d)")
PROGRAM_BYTES: Final = 1 << 21
"""How large a program may be that is searched for paths."""


class Traces:
    """Knows which paths the programs of a model name; made once for a deployment, because it reads the programs."""

    def __init__(self, model: ProcessesModel, machine: Machine) -> None:
        self.machine = machine
        self.named: dict[str, dict[str, str]] = defaultdict(dict)
        """The clue by which each instance is known to name a path, by path and instance."""

        self._programs: dict[str, set[str]] = {}
        for name, instance in model.items():
            for clue, path in self._paths_of(instance.pkg):
                self.named[path].setdefault(name, clue)

    def _paths_of(self, process: ManagedProcess) -> Iterator[tuple[str, str]]:
        told = [mention.value for mention in mentions("", process)]
        for text in (*told, process.initialize):
            yield from (("named in what it is told", path) for path in paths_in(text.encode(errors="replace")))
        for program in (process.process, process.foreground_process, process.daemon, *told):
            if program and program.startswith("/"):
                yield from ((f"named in {program}", path) for path in self._paths_in_program(program))

    def _paths_in_program(self, program: str) -> set[str]:
        if program not in self._programs:
            self._programs[program] = paths_in(self._content(program))
        return self._programs[program]

    def _content(self, program: str) -> bytes:
        """Return what a program holds; nothing for large ones, and for what is closed to us or no file."""
        try:
            is_small = 0 < self.machine.size(program) <= PROGRAM_BYTES
            return (self.machine.read(program) or b"") if is_small else b""
        except OSError:
            return b""

    def found(
        self,
        sights: Iterable[tuple[str, Sight]],
        accounts: Mapping[str, Account],
        own_places: Iterable[str],
        reference: str,
    ) -> list[Trace]:
        """Return what has changed since a file has, outside the places of the deployment, with whose it seems to be."""
        own = tuple(f"{place}/" for place in own_places)
        seen = [(name, sight) for name, sight in sights if sight.shares_files]
        worked_in = {f"{sight.directory}/" for _, sight in seen if sight.directory not in ("", "/")}
        places = [*PLACES, *sorted(place.rstrip("/") for place in worked_in if not place.startswith(own))]
        pids = {str(sight.pid): name for name, sight in seen}
        caller = self.machine.facts.account.uid
        users = owners_of_accounts(accounts, caller)
        found: list[Trace] = []
        for path, uid in dict(self.machine.appeared(places, list(self.named), reference)).items():
            if path.startswith(own):
                continue
            named = self.named.get(path, {})
            found += [
                Trace(name, path, clue) for name, clue in named.items() if uid in (caller, uid_of(name, accounts))
            ]
            found += clued(path, users.get(uid, ""), pids) if not named else ()
        return found


def paths_in(text: bytes) -> set[str]:
    """Return the paths in a text that lie where all programs write."""
    return {found.decode() for found in PATH.findall(text) if b"//" not in found} if b"/" in text else set()


def uid_of(name: str, accounts: Mapping[str, Account]) -> int | None:
    """Return the number of the user that an instance is switched to, if any."""
    return accounts[name].uid if name in accounts else None


def owners_of_accounts(accounts: Mapping[str, Account], caller: int) -> dict[int, str]:
    """Return the users that belong to one instance alone, by number; the caller's own are everybody's."""
    names = defaultdict(list)
    for name, account in accounts.items():
        names[account.uid].append(name)
    return {uid: found[0] for uid, found in names.items() if len(found) == 1 and uid != caller}


def clued(path: str, owner: str, pids: Mapping[str, str]) -> Iterator[Trace]:
    """Yield whose a path is, if its user or a number in its name say so."""
    if owner:
        yield Trace(owner, path, "it belongs to its user")
        return
    for number in NUMBER.findall(path.rpartition("/")[2]):
        if number in pids:
            yield Trace(pids[number], path, f"its name has the number of process {number}")
