"""Protection of earlier build results from Nix's garbage collector, without a run of Nix.

Symbolic links below ``gcroots`` of Nix's state directory are what the collector starts from, and it follows them
through links elsewhere (nix-store(1), ``--gc``). While it collects, it holds a lock on ``gc.lock``: who shares that
lock knows that what is there stays. Where the state directory is not ours to write, as with a daemon, nothing is done.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence


def protect(outputs: Sequence[str], directory: str) -> bool:
    """Protect outputs by links in a directory, for as long as that exists; tell whether they are all there and safe."""
    store = os.path.dirname(outputs[0])
    state = os.environ.get("NIX_STATE_DIR") or f"{os.path.dirname(store)}/var/nix"
    try:
        with open(f"{state}/gc.lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            for number, output in enumerate(outputs, 1):
                root = f"{directory}/nix-root-{number}"
                link(root, output)
                # The name is one that nobody else gives to a link.
                digest = hashlib.sha256(f"{directory}/{number}".encode(errors="surrogateescape")).hexdigest()
                link(f"{state}/gcroots/auto/nixproc-{digest[:32]}", root)
            return all(is_complete(output) for output in outputs)
    except OSError:
        return False


def is_complete(output: str) -> bool:
    """Tell whether a build output exists, and is not being rebuilt at the moment."""
    return os.path.lexists(output) and not os.path.lexists(f"{output}.lock")


def link(path: str, target: str) -> None:
    """Make a symbolic link; one that is there is replaced."""
    if os.path.islink(path):
        os.unlink(path)
    os.symlink(target, path)


def outputs_in(directory: str) -> list[str]:
    """Return the outputs that the links of a build in a directory lead to."""
    names = sorted(name for name in os.listdir(directory) if name.startswith("nix-root"))
    return list(dict.fromkeys(os.readlink(f"{directory}/{name}") for name in names))
