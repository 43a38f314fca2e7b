"""The leases of one user on one machine: the deployments that there are, their owners, and their ports.

They are files in a directory of the user's own, always the same one: sessions with other temporary directories must
see them too. Only tests of the clean-up itself name another one, so that they meet nobody. A deployment's lease is a
file of its own, written before anything is done for it; ports are in one file, under a file lock. A lease whose owner
is gone counts no more, once its deployment's directory is gone too.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import chain, islice
from typing import Any, Final, Literal, Self

from pytest_nixproc._persistence.files import remove, replace_file, temporary_for
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc._persistence.trust import open_own, stranger_on_the_way
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.values.system_errors import remedy_of
from pytest_nixproc.values.value import Value

LOCK_SECONDS: Final = 30.0
LOCK_POLL_SECONDS: Final = 0.002
TRIES: Final = 50
FREE_PORTS: Final = range(20000, 32768)
"""Ports for ``free_port``: below those that Linux gives to outgoing connections (ip_local_port_range)."""

VARIABLE: Final = "NIXPROC_LEASES"
"""The environment variable that names another directory; the guardian, without an environment, has an argument."""

Phase = Literal["starting", "ready", "stopping"]


class DeploymentLease(Value):
    """The lease of one deployment."""

    root: str
    """Directory of the deployment."""

    users: tuple[ProcessIdentity, ...]
    """Processes that use the deployment; of a shared one, the process that starts or stops it."""

    guardian: ProcessIdentity | None = None
    """Process that takes the deployment down when its users are gone; None if no process does."""

    kept: bool = False
    """Whether the deployment is to live on without users and guardian."""

    run: str = ""
    """Test run that a shared deployment belongs to; empty for others."""

    phase: Phase = "ready"
    rest: str = ""
    """What cannot be removed of the deployment, and why: all else of it is gone. Empty as long as nothing is known."""

    told: bool = False
    """Whether somebody has been told of the rest."""

    @property
    def is_abandoned(self) -> bool:
        """Tell whether nobody will take the deployment down any more."""
        return not self.kept and not any(owner.is_alive for owner in (*self.users, self.guardian) if owner)

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Self:
        """Return a lease from the data of :meth:`facts`."""
        guardian = facts["guardian"] and ProcessIdentity.read(facts["guardian"])
        users = tuple(map(ProcessIdentity.read, facts["users"]))
        root, kept, run = str(facts["root"]), bool(facts["kept"]), str(facts["run"])
        # Earlier versions know of no rest.
        rest, told = str(facts.get("rest", "")), bool(facts.get("told"))
        return cls(root, users, guardian, kept, run, facts["phase"], rest, told)

    def facts(self) -> dict[str, Any]:
        """Return the lease as data, for :meth:`read`."""
        return asdict(self)


class Leases:
    """The directory of leases."""

    def __init__(self, directory: str | None = None) -> None:
        usual = f"/tmp/nixproc-{os.getuid()}/leases"  # noqa: S108 - checked to be ours below
        self.directory = directory or os.environ.get(VARIABLE) or usual
        self.ports_file = f"{self.directory}/ports.json"

    def save(self, lease: DeploymentLease) -> None:
        """Write the lease of a deployment."""
        self._in_directory(lambda: replace_file(self._file_of(lease.root), json.dumps(lease.facts())))

    def _in_directory(self, action: Callable[[], object]) -> None:
        """Do something in the directory; another session may remove it, when empty, between our steps."""
        for _ in range(TRIES):
            try:
                self._make_directory()
                action()
            except FileNotFoundError:
                continue
            except TimeoutError:
                raise  # nobody's disk is full: the lock is held
            except OSError as error:
                brief = f"cannot write leases in {self.directory}: {error.strerror}"
                raise NixprocError(brief, remedy=remedy_of(error, "see to its permissions")) from error
            return
        raise NixprocError(f"{self.directory} vanishes again and again", remedy="find out who removes it")

    def remove(self, root: str) -> None:
        """Remove the leases of a deployment's ports, and then its own; the last one removes the directory.

        In this order: whoever goes on in the place of a process that was killed looks for the deployment's own.
        """
        try:
            if os.path.exists(self.ports_file) or os.path.exists(temporary_for(self.ports_file)):
                with self.locked() as ports:
                    ports.release(root)
        finally:
            remove(self._file_of(root))
            remove(temporary_for(self._file_of(root)))
        self.leave()

    def leave_rest(self, root: str, rest: str, *, told: bool) -> None:
        """Let the lease of a deployment say only what cannot be removed of it; its ports are for others now."""
        if os.path.exists(self.ports_file):
            with self.locked() as ports:
                ports.release(root)
        self.save(DeploymentLease(root, (), rest=rest, told=told))

    def leave(self) -> None:
        """Remove the directory, and the state root around it, once they are empty."""
        with suppress(OSError):
            if os.listdir(self.directory) == ["lock"]:
                # Somebody was killed with the lock in hand.
                with self.exclusively():
                    pass
            os.rmdir(self.directory)
            os.rmdir(os.path.dirname(self.directory))

    def _file_of(self, root: str) -> str:
        return f"{self.directory}/{os.path.basename(root)}.json"

    def all(self) -> list[DeploymentLease]:
        """Return the leases of all deployments; unreadable ones are left out, :meth:`corrupt` names them."""
        return [lease for _, lease in self._entries() if lease is not None]

    def corrupt(self) -> list[str]:
        """Return the files of deployments' leases that cannot be read."""
        return [path for path, lease in self._entries() if lease is None]

    def lease_of(self, root: str) -> DeploymentLease | None:
        """Return the lease of one deployment."""
        return next((lease for lease in self.all() if lease.root == root), None)

    def names(self) -> list[str]:
        """Return the names of all files; raise if others could have written them, as we remove paths that they name."""
        try:
            self._refuse_foreign()
            return os.listdir(self.directory)
        except FileNotFoundError:
            return []

    def _entries(self) -> Iterator[tuple[str, DeploymentLease | None]]:
        for name in sorted(self.names()):
            path = f"{self.directory}/{name}"
            if name.endswith(".json") and path != self.ports_file:
                try:
                    with open(path, encoding="utf-8", opener=open_own) as file:
                        yield path, DeploymentLease.read(json.load(file))
                except FileNotFoundError:
                    continue
                except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                    yield path, None

    def _make_directory(self) -> None:
        """Make the directory for us alone; one that is not ours, or open to others, is an error."""
        for path in (os.path.dirname(self.directory), self.directory):
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
        self._refuse_foreign()

    def _refuse_foreign(self) -> None:
        """Raise if others could write the directory or the one around it, or put others in their place."""
        for path in (os.path.dirname(self.directory), self.directory):
            found = os.lstat(path)
            if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
                owner = "others can write it" if found.st_uid == os.getuid() else f"it belongs to user {found.st_uid}"
                brief = f"{path} cannot be trusted with leases: {owner}"
                raise NixprocError(brief, remedy="have it removed by its owner, or its mode set to 0700")
        if stranger := stranger_on_the_way(self.directory):
            brief = f"{self.directory} cannot be trusted with leases: {stranger}"
            raise NixprocError(brief, remedy=f"leave {VARIABLE} out, or let it be where only you and root can write")

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the file lock."""
        from filelock import FileLock, Timeout

        lock = FileLock(f"{self.directory}/lock", timeout=LOCK_SECONDS, mode=0o600)
        try:
            self._in_directory(lambda: lock.acquire(poll_interval=LOCK_POLL_SECONDS))
        except Timeout as error:
            brief = f"{lock.lock_file} is locked by somebody for more than {LOCK_SECONDS:g} s"
            raise NixprocError(brief, remedy="find out which process holds it") from error
        try:
            yield
        finally:
            if not os.path.exists(self.ports_file):
                # filelock notices that the file it has locked is no longer the one of that name, and tries again.
                remove(lock.lock_file)
            lock.release()

    @contextmanager
    def locked(self) -> Iterator[PortLeases]:
        """Hold the file lock, for reading and changing the leases of ports."""
        with self.exclusively():
            ports = PortLeases.read(self.ports_file)
            yield ports
            self._in_directory(lambda: ports.write(self.ports_file))


class PortLeases:
    """The leases of ports, read under the lock."""

    def __init__(self, leases: dict[int, tuple[str, ProcessIdentity]], last: int) -> None:
        self.leases = leases
        self.last = last

    @classmethod
    def read(cls, path: str) -> Self:
        """Read the leases of a file, less those that have expired."""
        try:
            with open(path, encoding="utf-8", opener=open_own) as file:
                facts = json.load(file)
            leases = {
                int(port): (str(root), ProcessIdentity.read(owner)) for port, (root, owner) in facts["ports"].items()
            }
            last = int(facts["last"])
        except FileNotFoundError:
            # Anywhere, rather than always the same: others may like round numbers too.
            return cls({}, FREE_PORTS.start + secrets.randbelow(len(FREE_PORTS)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            brief = f"the leases of ports in {path} cannot be read: {error}"
            raise NixprocError(brief, remedy="remove the file when no test runs") from error
        alive = {owner: owner.is_alive for owner in {owner for _, owner in leases.values()}}
        valid = {port: lease for port, lease in leases.items() if alive[lease[1]] or os.path.isdir(lease[0])}
        return cls(valid, last)

    def write(self, path: str) -> None:
        """Write the file anew, or remove it when there are no leases."""
        if not self.leases:
            remove(path)
            remove(temporary_for(path))
            return
        facts = {owner: owner.facts() for owner in {owner for _, owner in self.leases.values()}}
        ports = {str(port): [root, facts[owner]] for port, (root, owner) in self.leases.items()}
        replace_file(path, json.dumps({"ports": ports, "last": self.last}))

    def lease(self, root: str, owner: ProcessIdentity, ports: Iterable[int]) -> None:
        """Lease ports for a deployment."""
        self.leases |= dict.fromkeys(ports, (root, owner))

    def is_leased(self, port: int, but_for: str) -> bool:
        """Tell whether another deployment has a port."""
        return port in self.leases and self.leases[port][0] != but_for

    def lease_next(self, root: str, owner: ProcessIdentity, is_free: Callable[[int], bool], most: int) -> list[int]:
        """Lease the next ports that nobody has, and on which a server could listen now: one at least."""
        begin = max(self.last + 1 - FREE_PORTS.start, 0) % len(FREE_PORTS)
        following = chain(FREE_PORTS[begin:], FREE_PORTS[:begin])
        found = list(islice((port for port in following if port not in self.leases and is_free(port)), most))
        if not found:
            raise NixprocError(f"no port from {FREE_PORTS.start} to {FREE_PORTS.stop - 1} is free")
        self.lease(root, owner, found)
        self.last = found[-1]
        return found

    def give_back(self, ports: Iterable[int]) -> None:
        """Give back single ports."""
        for port in ports:
            self.leases.pop(port, None)

    def release(self, root: str) -> None:
        """Give back all ports of a deployment."""
        self.leases = {port: lease for port, lease in self.leases.items() if lease[0] != root}
