"""The facts about this machine that generated files may rely on."""

from __future__ import annotations

import os
import resource
import shutil
import sys

from pytest_nixproc.machines import process_table
from pytest_nixproc.machines.host.accounts import local_groups, local_users, own_account
from pytest_nixproc.machines.package import PACKAGE_ROOT
from pytest_nixproc.values.machine import Facts


def own_facts() -> Facts:
    """Return the facts about this machine, and the account of this process."""
    usual = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/current-system/sw/bin")
    present = tuple(path for path in usual if os.path.isdir(path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Facts(
        python=sys.executable,
        package_root=PACKAGE_ROOT,
        nice=shutil.which("nice") or Facts.nice,
        setpriv=shutil.which("setpriv") or "",
        base_path=present,
        account=own_account(),
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
        users=local_users(),
        groups=local_groups(),
        shared_memory=shared_memory(),
        open_files=soft,
        most_open_files=hard,
        first_unprivileged_port=first_unprivileged_port(),
        client_ports=client_ports(),
    )


def shared_memory() -> int:
    """Return the size of the file system for shared memory (shm_overview(7)); 0 without one."""
    try:
        facts = os.statvfs("/dev/shm")  # noqa: S108 - looked at, and not used
    except OSError:
        return 0
    return facts.f_blocks * facts.f_frsize


def first_unprivileged_port() -> int:
    """Return the lowest unprivileged port, from the kernel; where it does not say, the traditional one."""
    text = process_table.read_facts("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return int(text) if text.strip() else Facts.first_unprivileged_port


def client_ports() -> range:
    """Return the kernel's ephemeral port range, or Linux's default range where the kernel does not tell."""
    bounds = process_table.read_facts("/proc/sys/net/ipv4/ip_local_port_range").split()
    return range(int(bounds[0]), int(bounds[1]) + 1) if len(bounds) == 2 else Facts.client_ports
