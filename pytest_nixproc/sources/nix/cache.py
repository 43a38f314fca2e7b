"""Results of evaluations, kept for as long as neither their arguments nor the files that they have read change.

Nix does not tell what an evaluation reads. But a file can only be read that a path in some evaluated file leads to, or
an argument. So the evaluated files, which Nix names, are read for paths: files that these lead to are part of what a
result depends on, with their content, and directories with all that is in them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from pytest_nixproc.errors import SourceError
from pytest_nixproc.values.value import Value

EVALUATED: Final = re.compile(r"^evaluating file '(.*)'$", re.MULTILINE)
COPIED: Final = re.compile(r"^copied source '(.*)' -> '.*'$", re.MULTILINE)
PATH_LITERAL: Final = re.compile(r"[\w.+~-]*/[\w.+/-]*")
NOT_LOOKED_INTO: Final = frozenset(
    {".git", ".hg", ".direnv", ".tox", ".venv", ".hypothesis", "__pycache__", "node_modules"}
    | {".pytest_cache", ".mypy_cache", ".ruff_cache"}
)
MOST_FILES: Final = 5000
MOST_ENTRIES: Final = 200
SETTLED_NS: Final = 2_000_000_000
"""How much older than an entry a file has to be, for its time to tell whether it has changed since."""

LOCK_SECONDS: Final = 30.0
"""How much longer than an evaluation may take one waits for another worker's."""

Stamp = list[Any] | None

kept: dict[str, str] = {}
"""Entries by key, where there is no directory for them."""


class EvaluationCache(Value):
    """The entries of one expression, in a directory that test workers share."""

    directory: str | None
    """Where the entries are kept; None to keep them in this process."""

    expression: str

    def key(self, *facts: object) -> str:
        """Return the name of an entry for facts that can be written as JSON."""
        text = json.dumps([self.expression, *facts], sort_keys=True, default=str)
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]

    @contextlib.contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Let one worker at a time evaluate the expression.

        Raises :class:`~pytest_nixproc.errors.SourceError` when another one has not ended long after it should have.
        """
        if self.directory is None:
            yield
            return
        from filelock import FileLock, Timeout

        os.makedirs(self.directory, exist_ok=True)
        lock = FileLock(f"{self.directory}/{self.key()}.lock", timeout=seconds + LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout as error:
            brief = f"{self.expression}: another process has been evaluating it for {seconds + LOCK_SECONDS:g} s"
            raise SourceError(brief, remedy=f"end it; it holds {lock.lock_file}") from error
        try:
            yield
        finally:
            lock.release()

    def recall(self, key: str) -> Any | None:
        """Return the result that is kept under a key, if all that it depends on is as it was; else None."""
        text, written = self._read(key)
        try:
            entry = json.loads(text or "")
        except ValueError:
            return None
        unchanged = all(is_unchanged(path, stamp, written) for path, stamp in entry["inputs"].items())
        return entry["result"] if unchanged else None

    def keep(self, keys: Iterable[str], inputs: dict[str, Stamp], result: object) -> None:
        """Keep a result under each of the keys."""
        text = json.dumps({"inputs": inputs, "result": result})
        for key in keys:
            if self.directory is None:
                kept[key] = text
            else:
                path = f"{self.directory}/{key}.json"
                # Workers may keep the same entry at once: builds are under no lock.
                temporary = f"{path}.{os.getpid()}.new"
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                with open(temporary, "x", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(text)
                os.replace(temporary, path)
        if self.directory is not None:
            self._forget_oldest(self.directory)

    def _read(self, key: str) -> tuple[str | None, int]:
        if self.directory is None:
            return kept.get(key), 0
        try:
            with open(f"{self.directory}/{key}.json", encoding="utf-8", errors="surrogateescape") as file:
                return file.read(), os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None, 0

    def _forget_oldest(self, directory: str) -> None:
        """Keep the number of entries within bounds: those that name a deployment's directory are of no more use."""
        with contextlib.suppress(OSError):
            entries = [entry for entry in os.scandir(directory) if entry.name.endswith((".json", ".new"))]
            entries.sort(key=lambda entry: entry.stat().st_mtime_ns)
            for entry in entries[:-MOST_ENTRIES]:
                os.unlink(entry.path)


def inputs_of(said: str, first: str, fixed: tuple[str, ...], shallow: tuple[str, ...]) -> dict[str, Stamp] | None:
    """Return stamps of all files that an evaluation may have read; None when they are too many to look at.

    ``said`` is what Nix has logged, ``first`` the file that it does not name. What lies below one of ``fixed`` cannot
    change, or is seen to elsewhere. Files below one of ``shallow`` are not read for paths: those are large collections
    of expressions, like nixpkgs, of which the evaluated files count.
    """
    evaluated = [path for path in dict.fromkeys((first, *EVALUATED.findall(said))) if not path.startswith(fixed)]
    stamps: dict[str, Stamp] = {}
    for file in evaluated:
        stamps[file] = stamp_of(file)
        for path, deep in literals_of(file) if not file.startswith(shallow) else ():
            if path not in stamps and not path.startswith(fixed):
                add_stamps(path, stamps, deep=deep)
    for path in COPIED.findall(said):
        add_stamps(path, stamps, deep=True)
    return stamps if len(stamps) <= MOST_FILES else None


def literals_of(file: str) -> Iterator[tuple[str, bool]]:
    """Yield the absolute path of each text that looks like a path in a file, and whether it was a relative one.

    More than what really is one does no harm.
    """
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as opened:
            text = opened.read()
    except OSError:
        return
    for literal in set(PATH_LITERAL.findall(text)):
        path = os.path.normpath(os.path.join(os.path.dirname(file), os.path.expanduser(literal)))
        yield path, not literal.startswith("/")


def add_stamps(path: str, stamps: dict[str, Stamp], *, deep: bool) -> None:
    """Add the stamp of a path; of a directory also those of all that is in it, if wanted and not beyond bounds."""
    if len(stamps) > MOST_FILES:
        return
    stamps[path] = stamp_of(path)
    if deep and os.path.isdir(path):
        for name in names_in(path):
            if f"{path}/{name}" not in stamps:
                add_stamps(f"{path}/{name}", stamps, deep=not os.path.islink(f"{path}/{name}"))


def names_in(directory: str) -> list[str]:
    """Return the names in a directory, but for those that tools keep there for themselves."""
    try:
        return sorted(set(os.listdir(directory)) - NOT_LOOKED_INTO)
    except OSError:
        return []


def stamp_of(path: str) -> Stamp:
    """Return a stamp that changes with a file's content or a directory's names; None for a path that is not there."""
    try:
        if os.path.isdir(path):
            return ["directory", hashlib.sha256("\0".join(names_in(path)).encode(errors="surrogateescape")).hexdigest()]
        facts = os.stat(path)
        if not os.path.isfile(path):
            return ["special"]
        with open(path, "rb") as file:
            return [facts.st_size, facts.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
    except FileNotFoundError:
        return None
    except OSError as error:
        return ["unreadable", error.errno]


def is_unchanged(path: str, stamp: Stamp, written: int) -> bool:
    """Tell whether a path still has its stamp; time and size are enough for a file older than the entry."""
    if stamp is not None and len(stamp) == 3:
        try:
            facts = os.stat(path)
        except OSError:
            return False
        if [facts.st_size, facts.st_mtime_ns] == stamp[:2] and facts.st_mtime_ns < written - SETTLED_NS:
            return True
        now = stamp_of(path)
        return now is not None and len(now) == 3 and now[2] == stamp[2]
    return stamp_of(path) == stamp
