"""The host's paths that are mounted into a throwaway machine's own directories: software and projects."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from pytest_nixproc.machines.package import PACKAGE_ROOT
from pytest_nixproc.machines.software import Software

VIEW: Final = "/run/nixproc-host"
"""Where the machine has this host's top-level directories as they are here: for its root alone, read-only."""

OWN_SYSTEM: Final = ("/tmp", "/var")  # noqa: S108
"""Directories that a machine has itself, and in which people keep software and projects all the same."""

SHARED: Final = f"{VIEW}/.shared"
"""Where the machine has once more the directory that it shares with this host, which must not be covered."""

SHOW: Final = f"""
shared=$1
shift
while [ "$#" -gt 0 ]; do
    real=$1 place=$2
    shift 2
    source={VIEW}$real
    [ "$place" = "$real" ] || source=$real
    if [ -d "$source" ]; then
        mkdir -p -- "$place"
    else
        mkdir -p -- "${{place%/*}}"
        : >> "$place"
    fi
    if [ "$place" = "$real" ] && [ -d "$source" ]; then
        own=$(mktemp -d /run/nixproc-upper.XXXXXX)
        mkdir "$own/upper" "$own/work"
        chown --reference="$source" "$own/upper"
        chmod --reference="$source" "$own/upper"
        cd -- "$source"
        # No path of any name has to be quoted in these options.
        mount -t overlay -o "lowerdir=.,upperdir=$own/upper,workdir=$own/work" nixproc "$place"
        cd /
    else
        mount --bind -- "$source" "$place"
    fi
    case $shared in
        "$place"/*) mount --bind {SHARED} "$shared" ;;
    esac
done
"""
"""Gets the shared directory, then pairs: a path without links, and the path at which it is to be seen.

What the machine changes in a directory it keeps for itself, as in other directories of this host; a file it cannot
change.
"""


class Showing:
    """The host's paths that are mounted into one machine; all else in the machine's directories stays its own."""

    def __init__(self, overlaid: Sequence[str], shared: str) -> None:
        self.overlaid = tuple(overlaid)
        self.shared = shared
        self._software = Software()
        self._seen = [shared]

    def words(self, paths: Iterable[str]) -> list[str]:
        """Return the arguments of the mount script for paths and all that they load; empty if all are mounted."""
        places = self._software.needed_by(paths)
        real = {place: os.path.realpath(place) for place in places}
        pairs = [*((path, path) for path in sorted({*real.values()})), *((real[place], place) for place in places)]
        found = [pair for pair in pairs if self._take(pair[1])]
        return [self.shared, *(word for pair in found for word in pair)] if found else []

    def _take(self, path: str) -> bool:
        """Tell whether a path has still to be mounted into the machine, and note it as mounted."""
        is_seen = any(f"{path}/".startswith(f"{seen}/") for seen in self._seen)
        if is_seen or not (os.path.isdir(path) or os.path.isfile(path)):
            return False
        # An overlay shows no file system that is mounted below it.
        is_hidden = path.startswith(tuple(f"{top}/" for top in OWN_SYSTEM)) or (
            path.startswith(tuple(f"{top}/" for top in self.overlaid)) and any(map(os.path.ismount, within(path)))
        )
        self._seen += [path] if is_hidden else []
        return is_hidden


def show_argv(shell: str, words: Iterable[str]) -> tuple[str, ...]:
    """Return the command line that mounts the paths of :meth:`Showing.words` when it is run on a machine."""
    return (shell, "-ec", SHOW, "sh", *words)


def within(path: str) -> Iterator[str]:
    """Yield a path and the directories that it lies in, but for the top-level one."""
    while path.count("/") > 1:
        yield path
        path = os.path.dirname(path)


def interpreter() -> Iterator[str]:
    """Yield the files and directories that the interpreter of the tests is made of."""
    yield from (sys.executable, sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, PACKAGE_ROOT)
    yield from filter(os.path.isabs, sys.path)
