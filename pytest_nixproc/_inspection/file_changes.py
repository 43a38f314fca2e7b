"""Files that instances have written and closed where all programs write, as far as clues show whose they are."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Final

from pytest_nixproc.checks.api import FileChange
from pytest_nixproc.checks.claims import passed_values
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.machine import Account, ProcessInfo

PLACES: Final = ("/tmp", "/var/tmp", "/var/log", "~")  # noqa: S108 - looked at, and not used
PATH: Final = re.compile(rb"/(?<![\w./~-]/)(?:tmp|var/tmp|var/log)/[\w.@+/-]*\w")
"""A path in one of these places, within a text or a program."""

NUMBER: Final = re.compile(r"(?<!\d)\d{3,}(?!\d)")
PROGRAM_BYTES: Final = 1 << 21
"""How large a program may be that is searched for paths."""


class FileChanges:
    """The paths that the programs of a model name; made once for a deployment, because the programs are read."""

    def __init__(self, model: ProcessesModel, machine: Machine) -> None:
        self.machine = machine
        self.named: dict[str, dict[str, str]] = defaultdict(dict)
        """The clue by which each instance is known to name a path, by path and instance."""

        self._paths_in_program = cache(lambda program: paths_in(self._content(program)))
        for name, instance in model.items():
            for clue, path in self._paths_of(instance.pkg):
                self.named[path].setdefault(name, clue)

    def _paths_of(self, process: ManagedProcess) -> Iterator[tuple[str, str]]:
        told = [mention.value for mention in passed_values("", process)]
        for text in (*told, process.initialize):
            yield from (("named in what it is told", path) for path in paths_in(text.encode(errors="replace")))
        for program in (process.process, process.foreground_process, process.daemon, *told):
            if program and program.startswith("/"):
                yield from ((f"named in {program}", path) for path in self._paths_in_program(program))

    def _content(self, program: str) -> bytes:
        """Return the content of a program; empty for a large one, and for one that is closed to us or no file."""
        try:
            is_small = 0 < self.machine.files.size(program) <= PROGRAM_BYTES
            return (self.machine.files.read(program) or b"") if is_small else b""
        except OSError:
            return b""

    def found(
        self,
        processes: Iterable[tuple[str, ProcessInfo]],
        accounts: Mapping[str, Account],
        own_places: Iterable[str],
        reference: str,
    ) -> list[FileChange]:
        """Return files outside the deployment that have changed since ``reference``, each with a suspected instance."""
        own = tuple(f"{place}/" for place in own_places)
        seen = [(name, process) for name, process in processes if process.shares_files]
        worked_in = {f"{process.directory}/" for _, process in seen if process.directory not in ("", "/")}
        places = [*PLACES, *sorted(place.rstrip("/") for place in worked_in if not place.startswith(own))]
        pids = {str(process.pid): name for name, process in seen}
        caller = self.machine.facts.account.uid
        uids = {name: account.uid for name, account in accounts.items()}
        counts = Counter(uids.values())
        # Only a user that belongs to one instance tells whose something is; the caller's own are everybody's.
        users = {uid: name for name, uid in uids.items() if counts[uid] == 1 and uid != caller}
        found: list[FileChange] = []
        for path, uid in dict(self.machine.files.created_since(places, list(self.named), reference)).items():
            if path.startswith(own):
                continue
            named = self.named.get(path, {})
            found += [FileChange(name, path, clue) for name, clue in named.items() if uid in (caller, uids.get(name))]
            found += clued(path, users.get(uid, ""), pids) if not named else ()
        return found


def paths_in(text: bytes) -> set[str]:
    """Return the paths in a text that lie where all programs write."""
    return {found.decode() for found in PATH.findall(text) if b"//" not in found} if b"/" in text else set()


def clued(path: str, owner: str, pids: Mapping[str, str]) -> Iterator[FileChange]:
    """Yield a change for the instance that a path belongs to, if its user or a number in its name tell."""
    if owner:
        yield FileChange(owner, path, "it belongs to its user")
        return
    for number in NUMBER.findall(path.rpartition("/")[2]):
        if number in pids:
            yield FileChange(pids[number], path, f"its name has the number of process {number}")
