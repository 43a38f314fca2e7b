"""Text of unit files: names, words and paths, and the values that they cannot hold.

The rules are those of systemd.syntax(7), systemd.unit(5), "Command lines" in systemd.service(5), and systemd.exec(5).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

BARE: Final = re.compile(r"[A-Za-z0-9_@/.,:=+-]+")
"""Words that mean themselves without quotes."""

UNCARRIED: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufdd0-\ufdef]")
"""Characters that variables and arguments cannot hold: most control characters, and no UTF-8 as systemd sees it."""

NO_PATH: Final = re.compile(r"[\t\n]|[ \\]\Z")
"""Characters that would end the line, or be taken off its end: paths are written without quotes."""

NO_PROGRAM: Final = re.compile(r"[\t\n\"'\\$]")
"""Characters that systemd refuses in the path of a program, or reads there in another way than it passes them on."""

ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "%": "%%"}

NAME_BYTES: Final = 255
"""The longest unit name (UNIT_NAME_MAX, less the final NUL)."""


def escaped(text: str) -> str:
    """Return text escaped for a part of a unit's name, as systemd-escape(1) does, whose ``--unescape`` reverses it.

    Colons are escaped too: systemd-analyze(1) would take what follows one for another name of the unit.
    """
    plain = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
    encoded = text.encode(errors="surrogateescape")
    return "".join(
        chr(byte) if byte in plain or (byte == ord(".") and number) else f"\\x{byte:02x}"
        for number, byte in enumerate(encoded)
    )


def carries(value: str) -> bool:
    """Tell whether a quoted word can hold a value."""
    return not UNCARRIED.search(value) and all(ord(character) & 0xFFFE != 0xFFFE for character in value)


def word(value: str) -> str:
    """Return a value as one word of an assignment or a list; ``%`` is doubled, else it would be a specifier."""
    if BARE.fullmatch(value):
        return value
    return f'"{"".join(ESCAPES.get(character, character) for character in value)}"'


def command_line(argv: Iterable[str]) -> str:
    """Return a command line; ``$`` is doubled, else it would name a variable."""
    program, *arguments = map(word, argv)
    return " ".join([program, *(argument.replace("$", "$$") for argument in arguments)])


def is_program(path: str) -> bool:
    """Tell whether a command line can begin with a path, which the program then sees unchanged."""
    return is_path(path) and not NO_PROGRAM.search(path)


def is_path(path: str) -> bool:
    """Tell whether a path can be written in a directive without quotes, and systemd leaves it unchanged."""
    return carries(path) and not NO_PATH.search(path) and posixpath.normpath(path) == path


def path_value(path: str) -> str:
    """Return a path as the value of a directive."""
    return path.replace("%", "%%")


def text_value(text: str) -> str:
    """Return human-readable text as a directive's value: one line, without a backslash at its end to continue it."""
    line = "".join(character if carries(character) else "?" for character in re.sub(r"\s+", " ", text))
    return line.replace("%", "%%").rstrip("\\ ")


def unit_file(sections: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Yield the lines of a unit file; a list of values is a directive that is repeated."""
    for section, directives in sections.items():
        yield f"[{section}]"
        for name, value in directives.items():
            for item in value if isinstance(value, list | tuple) else (value,):
                yield f"{name}={str(item).lower() if isinstance(item, bool) else item}"
        yield ""
