"""Text of service definitions: execline words, and names of services."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote as percent_encoded

BARE: Final = re.compile(r"[A-Za-z0-9_@/.,:=+%-]+")
"""Words that mean themselves without quotes."""

NAME_BYTES: Final = 255 - len("pipe:s6rc-w-") - len("-log")
"""The longest name of a service: with its logger's suffix, it is a part of the name of a pipe (S6_FDHOLDER_ID_SIZE)."""

TAKEN: Final = re.compile(r"\A(?=\.|s6rc-|s6-rc-|default\Z)(.)|-(?=(?:srv|log)\Z)", re.DOTALL)
"""Beginnings, ends and whole names that are taken by others ("Source format" of s6-rc-compile)."""


def quote(value: str) -> str:
    r"""Return a value as one word of execline.

    In double quotes, only the double quote and the backslash are special, and a backslash before either makes it stand
    for itself ("Syntax of scripts" of execlineb). Variables are substituted by commands alone that ask for it.
    """
    if BARE.fullmatch(value):
        return value
    return '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"'))


def words(values: Iterable[str]) -> str:
    """Return values as words of execline."""
    return " ".join(map(quote, values))


def service_name(name: str) -> str:
    """Return the name of a process's service, percent-encoded to differ from all reserved and derived service names."""
    encoded = percent_encoded(name, safe="", errors="surrogateescape")
    return TAKEN.sub(lambda match: f"%{ord(match[0]):02X}", encoded)
