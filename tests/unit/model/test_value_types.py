"""Kinds of parameter: what each reader accepts, and what it says about the rest."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from pytest_nixproc.errors import Fault
from pytest_nixproc.model import value_types
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.value_types import ValueType

HOSTILE = "ä \"'%$\\\n;`"
A_DATE = dt.date(2020, 1, 1)
WEB = create_managed_process(name="web", process="/bin/web")

GOOD: list[tuple[ValueType, object, object]] = [
    (value_types.TEXT, "", ""),
    (value_types.TEXT, HOSTILE, HOSTILE),
    (value_types.SCALAR, 5000, "5000"),
    (value_types.SCALAR, 1.5, "1.5"),
    (value_types.SCALAR, True, "1"),
    (value_types.SCALAR, False, ""),
    (value_types.SCALAR, Path("/bin/sh"), "/bin/sh"),
    (value_types.SCALAR, "\udcff", "\udcff"),
    (value_types.PATH, "/bin/sh", "/bin/sh"),
    (value_types.PATH, Path("/bin/sh"), "/bin/sh"),
    (value_types.PATH, "/a b/ü%$", "/a b/ü%$"),
    (value_types.UMASK, "0022", "0022"),
    (value_types.UMASK, "7", "7"),
    (value_types.NICE, -20, -20),
    (value_types.NICE, "19", 19),
    (value_types.NICE, "+5", 5),
    (value_types.RESOURCE_LIMITS, {"openFiles": 0, "core_size": "unlimited"}, {"open_files": 0, "core_size": None}),
    (value_types.SIGNAL, "sigquit", "QUIT"),
    (value_types.SIGNAL, "USR1", "USR1"),
    (value_types.NAME, "web-1.local_ä", "web-1.local_ä"),
    (value_types.SCALARS, ["-p", 80, Path("/x"), ""], ("-p", "80", "/x", "")),
    (value_types.SCALARS, (), ()),
    (value_types.PATHS, iter(["/usr", "/opt"]), ("/usr", "/opt")),
    (value_types.ENVIRONMENT, {"PORT": 80, "E": "", "_X": HOSTILE}, {"PORT": "80", "E": "", "_X": HOSTILE}),
    (value_types.ENVIRONMENT, {"YES": True, "NO": False}, {"YES": "1", "NO": ""}),
    (value_types.ENVIRONMENT, OrderedDict(A="1"), {"A": "1"}),
    (value_types.ENVIRONMENT, MappingProxyType({"A": "1"}), {"A": "1"}),
    (value_types.OVERRIDES, {"sysvinit": {"runlevels": [3]}}, {"sysvinit": {"runlevels": [3]}}),
    (value_types.OVERRIDES, {"sysvinit": dict}, {"sysvinit": dict}),
    (value_types.OVERRIDES, MappingProxyType({"sysvinit": {}}), {"sysvinit": {}}),
    (value_types.DEPENDENCIES, ["web", WEB, Instance(WEB)], ("web", WEB, WEB)),
]

BAD: list[tuple[ValueType, object, str, str]] = [
    (value_types.TEXT, "a\0b", "here", "NUL"),
    (value_types.TEXT, 5, "here", "is 5, which is not a string"),
    (value_types.TEXT, "\ud800", "here", "cannot be encoded"),
    (value_types.SCALAR, None, "here", "is None, which is neither"),
    (value_types.SCALAR, ["a"], "here", "is ['a'], which is neither"),
    (value_types.SCALAR, b"bytes", "here", "is b'bytes', which is neither"),
    (value_types.SCALAR, A_DATE, "here", "datetime.date(2020, 1, 1)"),
    (value_types.SCALAR, "\0", "here", "NUL"),
    (value_types.PATH, "bin/sh", "here", "is 'bin/sh', which is not an absolute path (shutil.which() finds programs)"),
    (value_types.PATH, Path("sh"), "here", "is 'sh', which is not an absolute path"),
    (value_types.PATH, 5, "here", "is 5, which is not a string"),
    (value_types.PATH, "/a\0b", "here", "NUL"),
    (value_types.UMASK, 18, "here", "is 18, which is no umask (write octal digits in quotes: '0022')"),
    (value_types.UMASK, "0028", "here", "is '0028'"),
    (value_types.UMASK, "00022", "here", "is '00022'"),
    (value_types.UMASK, "22\n", "here", r"is '22\n'"),
    (value_types.NICE, 20, "here", "is 20, which is no nice level (use a whole number from -20 to 19)"),
    (value_types.NICE, "-21", "here", "is '-21'"),
    (value_types.NICE, 1.0, "here", "is 1.0"),
    (value_types.NICE, True, "here", "is True"),
    (value_types.RESOURCE_LIMITS, [], "here", "is [], which is not a mapping"),
    (value_types.RESOURCE_LIMITS, {"openfile": 1}, "here.openfile", "is no limit (did you mean 'open_files'?)"),
    (value_types.RESOURCE_LIMITS, {"x": 1}, "here.x", "is no limit (known are open_files, processes, core_size,"),
    (value_types.RESOURCE_LIMITS, {"openFiles": -1}, "here.openFiles", "is -1, which is no limit (use a whole number"),
    (value_types.RESOURCE_LIMITS, {"openFiles": True}, "here.openFiles", "is True, which is no limit"),
    (value_types.SIGNAL, 15, "here", "is 15, which asks no program for anything (use TERM, INT, QUIT, HUP"),
    (value_types.SIGNAL, "KILL", "here", "is 'KILL', which asks"),
    (value_types.NAME, "", "here", "cannot name a file"),
    (value_types.NAME, "a/b", "here", "is 'a/b', which cannot name a file"),
    (value_types.NAME, ".hidden", "here", "cannot name a file"),
    (value_types.NAME, "-rf", "here", "cannot name a file"),
    (value_types.NAME, "a\nb", "here", "cannot name a file"),
    (value_types.NAME, 5, "here", "is 5, which is not a string"),
    (value_types.SCALARS, "-D", "here", "is '-D', which is not a list"),
    (value_types.SCALARS, {"a": 1}, "here", "which is not a list"),
    (value_types.SCALARS, 5, "here", "is 5, which is not a list"),
    (value_types.SCALARS, ["a", None], "here[1]", "is None"),
    (value_types.PATHS, ["/usr", "opt"], "here[1]", "not an absolute path"),
    (value_types.ENVIRONMENT, [("A", 1)], "here", "which is not a mapping"),
    (value_types.ENVIRONMENT, {"1A": "x"}, "here", "has the name '1A'"),
    (value_types.ENVIRONMENT, {"A-B": "x"}, "here", "has the name 'A-B'"),
    (value_types.ENVIRONMENT, {"Ä": "x"}, "here", "has the name 'Ä'"),
    (value_types.ENVIRONMENT, {True: "x"}, "here", "has the name True"),
    (value_types.ENVIRONMENT, {"PWD": "/x"}, "here.PWD", "shells set for themselves"),
    (value_types.ENVIRONMENT, {"UID": 5}, "here.UID", "shells set for themselves"),
    (value_types.ENVIRONMENT, {"A": None}, "here.A", "is None"),
    (value_types.ENVIRONMENT, {"A": "\0"}, "here.A", "NUL"),
    (value_types.OVERRIDES, {"sysvinit": "runlevels"}, "here.sysvinit", "neither a mapping nor a function"),
    (value_types.OVERRIDES, ["sysvinit"], "here", "which is not a mapping"),
    (value_types.DEPENDENCIES, "web", "here", "which is not a list"),
    (value_types.DEPENDENCIES, [5], "here[0]", "is 5, which is neither a process, an instance nor a name"),
]


@pytest.mark.parametrize(("kind", "value", "read"), GOOD)
def test_good_value_is_read(kind: ValueType, value: object, read: object) -> None:
    """A value that the kind allows is read, in its one form, without a fault."""
    faults: list[Fault] = []
    assert (kind.read(value, "here", faults), faults) == (read, [])


@pytest.mark.parametrize(("kind", "value", "path", "words"), BAD)
def test_bad_value_is_one_fault(kind: ValueType, value: Any, path: str, words: str) -> None:
    """A value that the kind refuses is exactly one fault, which has its path and shows the value; nothing is raised."""
    faults: list[Fault] = []
    kind.read(value, "here", faults)
    assert [fault.path for fault in faults] == [path]
    assert words in str(faults[0])


def test_faults_of_a_mapping_come_together() -> None:
    """All that is wrong with a mapping is reported, and what is right with it is read."""
    faults: list[Fault] = []
    read = value_types.ENVIRONMENT.read({"A": 1, "B": None, "C D": 1, "IFS": ""}, "here", faults)
    assert read == {"A": "1", "B": ""}
    assert [fault.path for fault in faults] == ["here.B", "here", "here.IFS"]
