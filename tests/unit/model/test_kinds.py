"""Kinds of parameter: what each reader accepts, and what it says about the rest."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from pytest_nixproc.errors import Fault
from pytest_nixproc.model import kinds
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.kinds import Kind
from pytest_nixproc.model.process import create_managed_process

HOSTILE = "ä \"'%$\\\n;`"
A_DATE = dt.date(2020, 1, 1)
WEB = create_managed_process(name="web", process="/bin/web")

GOOD: list[tuple[Kind, object, object]] = [
    (kinds.TEXT, "", ""),
    (kinds.TEXT, HOSTILE, HOSTILE),
    (kinds.SCALAR, 5000, "5000"),
    (kinds.SCALAR, 1.5, "1.5"),
    (kinds.SCALAR, True, "1"),
    (kinds.SCALAR, False, ""),
    (kinds.SCALAR, Path("/bin/sh"), "/bin/sh"),
    (kinds.SCALAR, "\udcff", "\udcff"),
    (kinds.PATH, "/bin/sh", "/bin/sh"),
    (kinds.PATH, Path("/bin/sh"), "/bin/sh"),
    (kinds.PATH, "/a b/ü%$", "/a b/ü%$"),
    (kinds.UMASK, "0022", "0022"),
    (kinds.UMASK, "7", "7"),
    (kinds.NICE, -20, -20),
    (kinds.NICE, "19", 19),
    (kinds.NICE, "+5", 5),
    (kinds.NAME, "web-1.local_ä", "web-1.local_ä"),
    (kinds.SCALARS, ["-p", 80, Path("/x"), ""], ("-p", "80", "/x", "")),
    (kinds.SCALARS, (), ()),
    (kinds.PATHS, iter(["/usr", "/opt"]), ("/usr", "/opt")),
    (kinds.ENVIRONMENT, {"PORT": 80, "E": "", "_X": HOSTILE}, {"PORT": "80", "E": "", "_X": HOSTILE}),
    (kinds.ENVIRONMENT, {"YES": True, "NO": False}, {"YES": "1", "NO": ""}),
    (kinds.ENVIRONMENT, OrderedDict(A="1"), {"A": "1"}),
    (kinds.ENVIRONMENT, MappingProxyType({"A": "1"}), {"A": "1"}),
    (kinds.OVERRIDES, {"sysvinit": {"runlevels": [3]}}, {"sysvinit": {"runlevels": [3]}}),
    (kinds.OVERRIDES, {"sysvinit": dict}, {"sysvinit": dict}),
    (kinds.OVERRIDES, MappingProxyType({"sysvinit": {}}), {"sysvinit": {}}),
    (kinds.DEPENDENCIES, ["web", WEB, Instance(WEB)], ("web", WEB, WEB)),
]

BAD: list[tuple[Kind, object, str, str]] = [
    (kinds.TEXT, "a\0b", "here", "NUL"),
    (kinds.TEXT, 5, "here", "is 5, which is not a string"),
    (kinds.TEXT, "\ud800", "here", "cannot be encoded"),
    (kinds.SCALAR, None, "here", "is None, which is neither"),
    (kinds.SCALAR, ["a"], "here", "is ['a'], which is neither"),
    (kinds.SCALAR, b"bytes", "here", "is b'bytes', which is neither"),
    (kinds.SCALAR, A_DATE, "here", "datetime.date(2020, 1, 1)"),
    (kinds.SCALAR, "\0", "here", "NUL"),
    (kinds.PATH, "bin/sh", "here", "is 'bin/sh', which is not an absolute path (shutil.which() finds programs)"),
    (kinds.PATH, Path("sh"), "here", "is 'sh', which is not an absolute path"),
    (kinds.PATH, 5, "here", "is 5, which is not a string"),
    (kinds.PATH, "/a\0b", "here", "NUL"),
    (kinds.UMASK, 18, "here", "is 18, which is no umask (write octal digits in quotes: '0022')"),
    (kinds.UMASK, "0028", "here", "is '0028'"),
    (kinds.UMASK, "00022", "here", "is '00022'"),
    (kinds.UMASK, "22\n", "here", r"is '22\n'"),
    (kinds.NICE, 20, "here", "is 20, which is no nice level (use a whole number from -20 to 19)"),
    (kinds.NICE, "-21", "here", "is '-21'"),
    (kinds.NICE, 1.0, "here", "is 1.0"),
    (kinds.NICE, True, "here", "is True"),
    (kinds.NAME, "", "here", "cannot name a file"),
    (kinds.NAME, "a/b", "here", "is 'a/b', which cannot name a file"),
    (kinds.NAME, ".hidden", "here", "cannot name a file"),
    (kinds.NAME, "-rf", "here", "cannot name a file"),
    (kinds.NAME, "a\nb", "here", "cannot name a file"),
    (kinds.NAME, 5, "here", "is 5, which is not a string"),
    (kinds.SCALARS, "-D", "here", "is '-D', which is not a list"),
    (kinds.SCALARS, {"a": 1}, "here", "which is not a list"),
    (kinds.SCALARS, 5, "here", "is 5, which is not a list"),
    (kinds.SCALARS, ["a", None], "here[1]", "is None"),
    (kinds.PATHS, ["/usr", "opt"], "here[1]", "not an absolute path"),
    (kinds.ENVIRONMENT, [("A", 1)], "here", "which is not a mapping"),
    (kinds.ENVIRONMENT, {"1A": "x"}, "here", "has the name '1A'"),
    (kinds.ENVIRONMENT, {"A-B": "x"}, "here", "has the name 'A-B'"),
    (kinds.ENVIRONMENT, {"Ä": "x"}, "here", "has the name 'Ä'"),
    (kinds.ENVIRONMENT, {True: "x"}, "here", "has the name True"),
    (kinds.ENVIRONMENT, {"PWD": "/x"}, "here.PWD", "shells set for themselves"),
    (kinds.ENVIRONMENT, {"UID": 5}, "here.UID", "shells set for themselves"),
    (kinds.ENVIRONMENT, {"A": None}, "here.A", "is None"),
    (kinds.ENVIRONMENT, {"A": "\0"}, "here.A", "NUL"),
    (kinds.OVERRIDES, {"sysvinit": "runlevels"}, "here.sysvinit", "neither a mapping nor a function"),
    (kinds.OVERRIDES, ["sysvinit"], "here", "which is not a mapping"),
    (kinds.DEPENDENCIES, "web", "here", "which is not a list"),
    (kinds.DEPENDENCIES, [5], "here[0]", "is 5, which is neither a process, an instance nor a name"),
]


@pytest.mark.parametrize(("kind", "value", "read"), GOOD)
def test_good_value_is_read(kind: Kind, value: object, read: object) -> None:
    """A value that the kind allows is read, in its one form, without a fault."""
    faults: list[Fault] = []
    assert (kind.read(value, "here", faults), faults) == (read, [])


@pytest.mark.parametrize(("kind", "value", "path", "words"), BAD)
def test_bad_value_is_one_fault(kind: Kind, value: Any, path: str, words: str) -> None:
    """A value that the kind refuses is exactly one fault, which has its path and shows the value; nothing is raised."""
    faults: list[Fault] = []
    kind.read(value, "here", faults)
    assert [fault.path for fault in faults] == [path]
    assert words in str(faults[0])


def test_faults_of_a_mapping_come_together() -> None:
    """All that is wrong with a mapping is reported, and what is right with it is read."""
    faults: list[Fault] = []
    read = kinds.ENVIRONMENT.read({"A": 1, "B": None, "C D": 1, "IFS": ""}, "here", faults)
    assert read == {"A": "1", "B": ""}
    assert [fault.path for fault in faults] == ["here.B", "here", "here.IFS"]
