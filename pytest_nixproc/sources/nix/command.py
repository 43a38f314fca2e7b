"""Command lines of Nix, and the part of our environment that its programs get."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_nixproc.errors import SourceError
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.value import Value

HERE: Final = os.path.dirname(os.path.abspath(__file__))
EVALUATE: Final = f"{HERE}/evaluate.nix"
REQUEST: Final = "NIXPROC_REQUEST"
"""The variable that holds what is asked of it, as JSON."""

LIBRARY: Final = f"{HERE}/library"

PASSED_ON: Final = ("HOME", "USER", "LOGNAME", "PATH", "LANG", "SSL_CERT_FILE", "GIT_SSL_CAINFO")
PASSED_ON_PREFIXES: Final = ("NIX_", "NIXPKGS_", "XDG_", "LC_")
PROXIES: Final = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")

NOWHERE: Final = "http://127.0.0.1:9"
"""A proxy that nobody answers for (the port of the discard protocol): a request for a page fails at once."""

OFFLINE: Final = (
    *("--option", "substitute", "false"),
    *("--option", "download-attempts", "1"),
    *("--option", "tarball-ttl", "4294967295"),
)

RESULT: Final = '{"! nixproc result":true'
"""How the result of an evaluation begins: as JSON it is sorted by names, and holds this text nowhere else unescaped."""

LOG_LINES: Final = "30"
END_SECONDS: Final = 10.0
TIMED_OUT: Final = (None, 124, 137)
"""How a build ends that was given too little time (timeout(1))."""

NO_FUNCTIONS: Final = "cannot convert a function to JSON"
"""What Nix says when a configuration that upstream's functions write has an override that is a function."""

FLAKES: Final = ("--option", "extra-experimental-features", "flakes")


class ProcessesExpression(Value):
    """The location of a processes expression: a file or a flake, and an attribute in it."""

    path: str
    """A file, or the directory of a flake."""

    is_flake: bool
    attribute: tuple[str, ...] = ()
    """Names that lead to the expression in the file or flake."""

    @property
    def origin(self) -> str:
        """The name of the expression, for messages."""
        return f"{self.path}#{'.'.join(self.attribute)}" if self.attribute else self.path


def expression_at(reference: str) -> ProcessesExpression:
    """Read ``FILE.nix``, ``FILE.nix#ATTRIBUTE`` or ``FLAKE#ATTRIBUTE``; a flake is the directory of a ``flake.nix``."""
    path, hash_sign, attribute = (reference, "", "") if os.path.isfile(reference) else reference.partition("#")
    path = os.path.abspath(path)
    is_flake = os.path.isdir(path)
    if is_flake and not os.path.isfile(f"{path}/flake.nix"):
        raise SourceError(
            f"{path} is no flake: it has no flake.nix", remedy="give FILE.nix, or the directory of a flake"
        )
    if hash_sign and not all(attribute.split(".")):
        raise SourceError(f"{reference} names no attribute", remedy="write PATH#NAME, or PATH#NAME.NAME")
    return ProcessesExpression(path, is_flake, tuple(attribute.split(".")) if attribute else ())


def program(name: str) -> str:
    """Return the path of one of Nix's programs; raises :class:`~pytest_nixproc.errors.SourceError` without Nix."""
    found = shutil.which(name)
    if found is None:
        remedy = "install it: apt install nix-bin, or https://nixos.org/download"
        raise SourceError(f"models in Nix need Nix, and there is no {name} in PATH", remedy=remedy)
    return found


def environment(*, may_download: bool) -> dict[str, str]:
    """Return the environment of Nix's programs: variables that configure Nix, and none of the test session's own."""
    chosen = {
        name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    if may_download:
        return chosen | {name: os.environ[name] for name in os.environ if name.lower() in PROXIES}
    return chosen | {name: NOWHERE for name in PROXIES if name != "no_proxy"}


def evaluation(request: Mapping[str, Any], *, may_download: bool) -> Spawn:
    """Return the command that evaluates an expression; its result begins with :data:`RESULT`."""
    words = [program("nix-instantiate"), "--eval", "--strict", "--json", "--read-write-mode", "--show-trace", "-vv"]
    words += ["-I", f"pytest-nixproc={LIBRARY}", *(() if may_download else OFFLINE)]
    # Everybody can read command lines, and its arguments may be secret.
    words += [*(FLAKES if request["isFlake"] else ()), "--arg", "request", f'builtins.getEnv "{REQUEST}"', EVALUATE]
    return Spawn(tuple(words), environment(may_download=may_download) | {REQUEST: json.dumps(request)})


def build(wanted: Sequence[str], directory: str, seconds: float, *, may_download: bool) -> Spawn:
    """Return the command that builds derivations; links in a directory keep the results from the garbage collector."""
    words = [program("nix-store"), "--realise", "--add-root", f"{directory}/nix-root", "--indirect"]
    # The log of a builder is wanted when it fails, and its end then.
    words += ["--no-build-output", "--option", "log-lines", LOG_LINES, *(() if may_download else OFFLINE), *wanted]
    # Asked to end, Nix ends its builders and removes their directories; killed, it could not.
    limit = ["timeout", f"--kill-after={END_SECONDS:g}", f"{seconds:g}"] if shutil.which("timeout") else []
    places = {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}
    return Spawn(("/usr/bin/env", *limit, *words), environment(may_download=may_download) | places)


def identity() -> list[object]:
    """Return facts that identify the installed Nix and our evaluation code, as parts of keys of the cache."""
    nix = os.path.realpath(program("nix-instantiate"))
    files = (nix, EVALUATE, *(entry.path for entry in sorted(os.scandir(LIBRARY), key=lambda entry: entry.name)))
    return [(path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in files]
