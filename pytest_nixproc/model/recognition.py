"""Recognition of ports, paths, sockets and PID files by the names of parameters and variables, and inside texts."""

from __future__ import annotations

import re
from functools import cache
from typing import Final, Literal

Kind = Literal["pid file", "log file", "socket", "directory", "port", ""]

KINDS: Final[tuple[tuple[Kind, re.Pattern[str]], ...]] = (
    ("pid file", re.compile(r"(.*_)?pid_?file")),
    ("log file", re.compile(r"(.*_)?(log_?file|error_log|access_log)|log")),
    ("socket", re.compile(r"(listen_|unix_?)?socket(_file|_path)?|(.*_)socket_file")),
    ("directory", re.compile(r"(.*_)?(data|state|cache|spool|log|lib|work|run|runtime)_?dir(ectory)?|pgdata|dbpath")),
    ("port", re.compile(r"(listen_|bind_)?port")),
)
"""The names that claim each kind of resource; as attributes, names that end in ``socket`` claim one too."""

FOR_ONE: Final = re.compile(r"(.*_)?data_?dir(ectory)?|pgdata|dbpath")
"""Directories that nobody can share, even where they are one of the state directories, which all others share."""

PATH_ENDINGS: Final = ("_dir", "_directory", "_path", "_file", "_root", "socket")
"""Of parameters that are paths."""

NAME_ENDINGS: Final = ("instance_name", "suffix")
"""Endings of the names of parameters from which the names of an instance are derived."""

STATE_ROOTS: Final = ("/var/", "/run/", "/tmp/", "/dev/shm/")  # noqa: S108 - looked for in models, to be reported
"""Where programs keep state unless they are given another directory."""

PID_PATH: Final = re.compile(r"(?<![\w./-])(?!//)/[^\s'\"`;,|&<>(){}\[\]:=]*\.pid(?![\w./-])")
"""A path within a text that is called like a PID file."""

WORD_PATH: Final = re.compile(r"(?<![\w./~-])/[^\s'\"`;,|&<>(){}\[\]:=]+")
"""Any path within a text."""

CONFIGURATION: Final = (
    *(".conf", ".cfg", ".cnf", ".ini", ".json", ".yaml", ".yml", ".toml", ".xml", ".properties", ".env", ".config"),
)
"""How the names of configuration files end."""

OPTION: Final = re.compile(r"--?(?:c|f|settings|conf\w*|config[\w-]*|[\w-]*-file)")
"""An option that is followed by the path of one."""

LOCAL_ADDRESS: Final = re.compile(r"(?:\b127\.0\.0\.1|\blocalhost|\[::1\]):(\d{1,5})\b")
"""A loopback address with a port, which names a listener on this host."""

NUMBER: Final = r"(?<![\w.])(\d{1,5})(?![\w.]*\d)"
HOST: Final = r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[\da-fA-F:]*\]|(?<![\w*])\*)"
AFTER_HOST: Final = re.compile(rf"{HOST}:(\d{{1,5}})\b")
"""A port of any host."""

PORT_WORD: Final = r"(?:(?:\b|_)(?:port|PORT|Port|listen|LISTEN|Listen)|[a-z]Port)\b"
AFTER_WORD: Final = re.compile(rf"{PORT_WORD}[\"']?\s*[=:\s]\s*[\"']?(?:{HOST}:)?(\d{{1,5}})\b")
"""A number behind a word that says that it is a port."""

PORT_OPTION: Final = re.compile(r"-p|-{1,2}[\w.-]*(?:port|listen|bind)[\w.-]*", re.IGNORECASE)
"""An option that is followed by a port."""


@cache
def kind_of(name: str) -> Kind:
    """Return the kind of resource that a name claims; an empty text for most names."""
    return next((kind for kind, pattern in KINDS if pattern.fullmatch(name)), "")


@cache
def is_for_one(name: str) -> bool:
    """Tell whether a name means a directory that instances cannot share."""
    return FOR_ONE.fullmatch(name) is not None


def is_port_name(name: str) -> bool:
    """Tell whether an attribute of this name declares a port."""
    return name == "port" or name.endswith("_port") or name.startswith(("ports.", "udp_ports."))


def is_udp_name(name: str) -> bool:
    """Tell whether an attribute of this name declares a UDP port."""
    return name == "udp_port" or name.endswith("_udp_port") or name.startswith("udp_ports.")
