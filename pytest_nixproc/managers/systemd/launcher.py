"""The script that execs a private systemd, and the few units without which a private systemd does not work.

It needs no systemd that has booted the machine: in a mount namespace of its own there is the directory by which
systemd tells that one has (sd_booted(3)). Nothing else is hidden, and PIDs, network and files are the machine's.
"""

from __future__ import annotations

from typing import Final

from pytest_nixproc.managers import shell
from pytest_nixproc.managers.systemd.syntax import escaped
from pytest_nixproc.values.target import Target

LAUNCHER: Final = "libexec/.systemd"
"""No process has a name with a leading dot."""

PRIVATE_UNITS: Final = "etc/systemd/private"
BARE_UNITS: Final = dict.fromkeys(("basic.target", "shutdown.target"), "[Unit]\nDefaultDependencies=no\n")
"""The units that every service needs of a user's manager, by name."""

VARIABLES: Final = ("SYSTEMD_UNIT_PATH", "SYSTEMD_GENERATOR_PATH", "SYSTEMD_ENVIRONMENT_GENERATOR_PATH")
"""Variables for systemd alone: with them, it has our units and no others, and none of the machine's generators."""

PROGRAMS: Final = (
    "/usr/lib/systemd/systemd",
    "/lib/systemd/systemd",
    "/run/current-system/systemd/lib/systemd/systemd",
)

CGROUP_MOUNTS: Final = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
"""Where control groups of version 2 are: alone, or beside those of version 1."""

TEXT: Final = r"""
set -eu

# Becomes a member of a control group of its own, and goes on as "inside" in new namespaces.
enter() {
    mkdir "$1"
    echo $$ > "$1/cgroup.procs"
    if [ "$(id -u)" = 0 ]; then
        exec unshare --mount --propagation private -- "$shell" "$0" inside
    fi
    exec unshare --user --map-current-user --keep-caps --mount --propagation private -- "$shell" "$0" inside
}

# Makes /run another directory with the same content, in which one can be made. Without -n, newer versions of mount make
# /run/mount for a table of their own: in the machine's /run, and in this one before its turn has come.
replace_run() {
    old=$(mktemp -d)
    mount -n --rbind /run "$old"
    mount -n -t tmpfs -o mode=755 tmpfs /run
    for entry in "$old"/* "$old"/.[!.]*; do
        name=/run/${entry##*/}
        if [ -L "$entry" ]; then
            cp -P "$entry" "$name"
        elif [ -d "$entry" ]; then
            mkdir "$name"
            mount -n --rbind "$entry" "$name"
        elif [ -e "$entry" ]; then
            : > "$name"
            mount -n --bind "$entry" "$name"
        fi
    done
    umount -n -l "$old"
    rmdir "$old"
    mkdir /run/systemd
}

inside() {
    if [ ! -d /run/systemd/system ]; then
        if [ -d /run/systemd ]; then mount -n -t tmpfs -o mode=755 tmpfs /run/systemd; else replace_run; fi
        mkdir /run/systemd/system
    fi
    # Where there are control groups of both versions, systemd would use both.
    [ -e /sys/fs/cgroup/cgroup.procs ] || mount -n --bind /sys/fs/cgroup/unified /sys/fs/cgroup
    set -- --user "--unit=$unit" --log-target=null
    for systemd in $programs; do
        [ -x "$systemd" ] || continue
        [ "$(id -u)" != 0 ] || exec "$systemd" "$@"
        # The capabilities were for mounting.
        exec setpriv --ambient-caps=-all --inh-caps=-all -- "$systemd" "$@"
    done
    echo "there is no systemd" >&2
    exit 1
}

"$@"
"""


def launcher(target: Target) -> str:
    """Return the script that execs a private systemd; its arguments are ``enter`` and the control group to make."""
    return "\n".join(
        (
            f"#!{target.facts.shell}",
            f"shell={shell.quote(target.facts.shell)}",
            f"unit={shell.quote(f'nixproc-{escaped(target.identity)}.target')}",
            f"programs={shell.quote(' '.join(PROGRAMS))}",
            TEXT.lstrip("\n"),
        )
    )
