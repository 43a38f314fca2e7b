"""The boot of a throwaway machine: the arguments of systemd-nspawn and systemd, and the files that they read."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import Final

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.nspawn.control_groups import scope
from pytest_nixproc.machines.nspawn.showing import OWN_SYSTEM, SHARED, VIEW, Showing, interpreter, show_argv
from pytest_nixproc.machines.package import places_of_packages, python_program
from pytest_nixproc.machines.parts import Files
from pytest_nixproc.machines.software import ESSENTIAL
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.machine import Facts, MachineSpec

OWN: Final = "machine"
"""Name of the directory for files that a machine needs for itself, inside the one that it shares with this host."""

SEEN_AT: Final = "/run/nixproc"
"""Where the machine sees that directory, whatever its path is."""

ITS_OWN: Final = frozenset(
    {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "lost+found", "proc", "run", "sbin", "sys"}
    | {"tmp", "usr", "var"}
)
"""Top-level directories that a machine has itself; of all others, it sees the host's."""

ETC: Final = (
    *(path for path in ESSENTIAL if path.startswith("/etc/")),
    *("/etc/pam.d", "/etc/security", "/etc/login.defs", "/etc/default/useradd", "/etc/shells", "/etc/skel"),
)
"""Files that programs of the host's ``/usr`` read, and cannot do their work without."""

HOSTS: Final = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"

UNIT: Final = f"""\
[Unit]
Description=Agent of pytest-nixproc
Requires=basic.target
After=basic.target
FailureAction=exit-force

[Service]
Type=exec
ExecStart=/bin/sh {SEEN_AT}/agent
Delegate=yes
KillMode=process
TasksMax=infinity
LimitNOFILE=%d:%d
"""
"""``KillMode``: processes that a test run wants to keep live on when the agent has ended.

``FailureAction``: a machine without its agent is of no use, and its end is noticed at once.
"""

LAUNCH: Final = """
while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs"; shift; done; shift
mount --make-rprivate /
mount -t tmpfs -o mode=0755 nixproc /run
mkdir -p /run/systemd/system
while [ "$1" != -- ]; do mkdir -p "/run/upper$1"; shift; done; shift
exec "$@"
"""
"""Enters control groups, and has a ``/run`` of its own: nothing of nspawn's is left on the host, whoever kills it.

nspawn looks there for signs that the host was booted by systemd, which it need not be for what it is to do here.
"""

BOOT_OPTIONS: Final = (
    *("systemd.unit=basic.target", "systemd.wants=nixproc-agent.service"),
    # Its machine-id is given, and bound over the file: there is none to keep.
    "systemd.mask=systemd-machine-id-commit.service",
    # The cache of libraries is the host's, and read-only.
    "systemd.mask=ldconfig.service",
    *("systemd.journald.forward_to_console=1", "systemd.log_color=no", "systemd.show_status=error"),
)


class Boot:
    """One boot of a machine as it is specified, with the software of this host."""

    def __init__(self, spec: MachineSpec, facts: Facts, showing: Showing) -> None:
        self.spec = spec
        self.facts = facts
        self.showing = showing

    def write(self, files: Files, groups: Iterable[str]) -> None:
        """Write the files that the machine reads, and those that tell about it when it is gone."""
        shown = self.showing.words([*interpreter(), *self.spec.needed])
        show = f"{shlex.join(show_argv(self.facts.shell, shown))} || exit 1\n" if shown else ""
        agent = python_program("machines.nspawn.agent", searched=places_of_packages())
        words = (sys.executable, "-I", "-c", agent, f"{SEEN_AT}/agent.socket")
        log = shlex.quote(self.own("agent.log"))
        contents = {
            "agent": f"exec 2> {log}\n{show}exec {shlex.join(words)}\n",
            "agent.log": "",
            "unit": UNIT % (self.facts.open_files, self.facts.most_open_files),
            "hosts": HOSTS,
            # A machine that has one is not at its first boot, and does not enable all that is installed.
            "machine-id": f"{secrets.token_hex(16)}\n",
            "cgroups": "\n".join(groups),
            "console": "",
        }
        # What the machine prints may be secret, and whoever could call in the agent's place would be believed.
        files.make_directory(self.own(""), 0o700)
        for name, content in contents.items():
            files.write(self.own(name), content)
        files.remove(self.own("agent.socket"))

    def own(self, name: str) -> str:
        """Return the path of a file that the machine needs for itself."""
        return own_file(self.spec.directory, name)

    def command(self, groups: Iterable[str]) -> Spawn:
        """Return the command that boots the machine, in control groups that exist."""
        argv = (*scope(), "unshare", "--mount", "sh", "-ec", LAUNCH, "sh", *groups, "--", *self._words())
        # The machine has the unified hierarchy of control groups, whichever the host has.
        tag, _, value = self.spec.tag.partition("=")
        environment = {"PATH": self.facts.path_variable, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", tag: value}
        return Spawn(program(argv), environment, self.own("console"))

    def _words(self) -> Iterator[str]:
        """Yield directories to be overlaid, and the command line of systemd-nspawn."""
        overlaid = self.showing.overlaid
        yield from (*overlaid, "--", "systemd-nspawn", "--quiet", "--directory=/", "--volatile=yes")
        yield from ("--register=no", "--keep-unit", "--console=read-only", f"--machine=nixproc-{secrets.token_hex(4)}")
        yield from (f"--overlay={path}:/run/upper{path}:{path}" for path in overlaid)
        yield from (f"--bind-ro={path}" for path in ETC if os.path.exists(path))
        yield from (f"--bind-ro={self.own(name)}:/etc/{name}" for name in ("hosts", "machine-id"))
        yield f"--bind-ro={self.own('unit')}:/run/systemd/system/nixproc-agent.service"
        yield from (f"--bind-ro={self.own('')}:{SEEN_AT}", f"--bind={self.spec.directory}")
        yield from (f"--tmpfs={VIEW}:mode=0700", f"--bind={self.spec.directory}:{SHARED}")
        yield from (f"--bind-ro={path}:{VIEW}{path}" for path in (*OWN_SYSTEM, *overlaid))
        yield f"--setenv={self.spec.tag}"
        yield from ["--private-network"] if self.spec.private_network else []
        yield from ("--boot", "--", *BOOT_OPTIONS)


def own_file(directory: str, name: str) -> str:
    """Return the path of a file that a machine needs for itself, inside the directory that it shares with this host."""
    return f"{directory}/{OWN}/{name}"


def refuse_directory(machine: str, directory: str) -> None:
    """Raise for a directory whose path cannot be given to nspawn."""
    if not set(directory).isdisjoint(":\\\n") or directory.startswith("/run/"):
        brief = f"machine {machine} cannot have its directory at {directory!r}"
        raise MachineError(brief, remedy="let --nixproc-state-root be outside /run, without colons and backslashes")


def directories_with_software() -> Iterator[str]:
    """Yield the host's top-level directories that a machine would not have, and that hold anything."""
    for name in sorted(set(os.listdir("/")) - ITS_OWN):
        path = f"/{name}"
        with contextlib.suppress(OSError):
            if os.path.isdir(path) and not os.path.islink(path) and os.listdir(path):
                yield path


def program(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command line with the full path of its program."""
    return (shutil.which(argv[0]) or argv[0], *argv[1:])
