"""Values about machines: sockets, processes, accounts, facts, and the specification of a throwaway machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from pytest_nixproc.values.value import Value

Protocol = Literal["tcp", "udp"]


class Listener(Value):
    """A listening TCP socket, or an unconnected UDP socket."""

    host: str
    port: int
    pid: int | None
    """Process that holds the socket; None where it cannot be seen."""

    protocol: Protocol = "tcp"


class ProcessInfo(Value):
    """A process as it is seen from outside, as far as the platform shows it."""

    pid: int
    main: int | None
    """Main process that it descends from, or is itself; None for a process that has escaped."""

    instance: str = ""
    """Instance that an escaped process names in its environment; empty for all others."""

    umask: str = ""
    """Umask in octal digits; empty where it is not known."""

    directory: str = ""
    """Working directory; empty where it is not known."""

    written: tuple[str, ...] = ()
    """Files, FIFOs and sockets that the process has open for writing."""

    is_zombie: bool = False
    shares_files: bool = True
    """Whether the process sees the machine's own files, and not a container's.

    Not looked at, and True, where ``written`` is empty.
    """

    bound: tuple[str, ...] = ()
    """Those of ``written`` that are sockets."""

    listening: tuple[Listener, ...] = ()
    """Sockets of the process that listen on the machine's network."""


class Account(Value):
    """A user and its primary group, by name and number."""

    user: str = "root"
    uid: int = 0
    group: str = "root"
    gid: int = 0


class Accounts(Value):
    """The accounts that a machine has, of those that were asked for."""

    users: Mapping[str, Account] = field(default_factory=dict)
    """Users by name."""

    groups: Mapping[str, int] = field(default_factory=dict)
    """Gid of every group that was asked for, or that one of ``users`` belongs to, by name."""

    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Groups that a user belongs to besides its primary one, by user."""

    are_known: bool = True
    """Whether the machine was asked for its accounts; False while it does not run.

    Also False where processes do not switch users, because nobody asks then.
    """


class UserEntry(Value):
    """A user in the machine's own database, without the password (passwd(5))."""

    name: str
    uid: int
    gid: int
    home: str = "/"
    shell: str = "/bin/sh"


class GroupEntry(Value):
    """A group in the machine's own database, without the password (group(5))."""

    name: str
    gid: int
    members: tuple[str, ...] = ()
    """Users that belong to it besides those whose primary group it is."""


class Facts(Value):
    """Facts about a machine that generated files may rely on, such as the paths of the software that they call."""

    shell: str = "/bin/sh"
    python: str = "/usr/bin/python3"
    package_root: str = "/usr/lib/python3/dist-packages"
    """Directory that holds this package on the machine."""

    nice: str = "/usr/bin/nice"
    setpriv: str = "/usr/bin/setpriv"
    """Path of setpriv(1); empty where there is none."""

    base_path: tuple[str, ...] = ("/usr/local/bin", "/usr/bin", "/bin")
    """Directories of the machine's own programs."""

    account: Account = field(default_factory=Account)
    """Account that processes run as when users are not changed."""

    open_files: int = 256
    """Soft limit on the number of files that a process may have open (RLIMIT_NOFILE): that of the tests."""

    most_open_files: int = 4096
    """Hard limit on it, up to which a process may raise its own."""

    niceness: int = 0
    """Nice level of the tests."""

    users: tuple[UserEntry, ...] = ()
    """Users of the machine's own files, which servers name that drop root by themselves; none of a directory server."""

    groups: tuple[GroupEntry, ...] = ()
    """Groups of the machine's own files."""

    shared_memory: int = 0
    """Bytes that ``/dev/shm`` can hold; 0 where there is none, or where it has no limit."""

    first_unprivileged_port: int = 1024
    """Lowest port that users other than root can listen on."""

    client_ports: range = range(32768, 61000)
    """The ephemeral port range, from which the kernel gives ports to clients (ip(7))."""

    @property
    def path_variable(self) -> str:
        """The value of ``PATH`` for the machine's own software."""
        return ":".join(self.base_path)


class MachineSpec(Value):
    """The specification of a throwaway machine: shared paths, process tag, and whether it has its own network."""

    directory: str = ""
    """The one directory that the machine and this host share, under the same path on both; deployments lie in it."""

    tag: str = ""
    """``NAME=VALUE`` in the environment of the machine's processes."""

    private_network: bool = False
    """Whether the machine has a network of its own."""

    needed: tuple[str, ...] = ()
    """Paths of this host that can be seen on the machine too, wherever they lie."""
