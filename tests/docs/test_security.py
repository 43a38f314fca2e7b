"""Places of the package at which security hangs: each is on the list of ``docs/security.md``, with why it is safe.

They are found in the source by what they call: what removes, changes whom a file is open to, executes, signals, opens a
socket, or unpacks what others may have written.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest_nixproc

PACKAGE: Final = Path(pytest_nixproc.__file__).parent
PAGE: Final = PACKAGE.parent / "docs" / "security.md"
NOT_LISTED: Final = ("testing/",)
"""What only tests run."""

ACTS: Final = {
    "removes": {
        *(
            "os.remove",
            "os.unlink",
            "os.rmdir",
            "os.removedirs",
            "os.rename",
            "os.renames",
            "os.replace",
            "os.truncate",
        ),
        *("os.ftruncate", "shutil.rmtree", "shutil.move"),
    },
    "opens to others": {
        *("os.chmod", "os.fchmod", "os.lchmod", "os.chown", "os.fchown", "os.lchown", "os.umask", "os.setxattr"),
        *("os.symlink", "os.link", "os.mkfifo", "shutil.chown", "shutil.copymode"),
    },
    "makes": {"os.mkdir", "os.makedirs"},
    "follows": {"os.open", "os.walk", "os.fwalk", "os.scandir", "tarfile.open", "shutil.copytree", "shutil.copy"},
    "executes": {
        *(
            "os.system",
            "os.popen",
            "os.fork",
            "os.forkpty",
            "os.posix_spawn",
            "os.posix_spawnp",
            "os.execv",
            "os.execve",
        ),
        *("os.execvp", "os.execvpe", "os.execl", "os.execle", "os.execlp", "subprocess.run", "subprocess.Popen"),
        *("subprocess.call", "subprocess.check_call", "subprocess.check_output", "exec", "eval", "compile"),
        *("runpy.run_path", "runpy.run_module", "importlib.import_module", "importlib.util.module_from_spec"),
    },
    "signals": {"os.kill", "os.killpg", "signal.pidfd_send_signal"},
    "speaks": {
        *("socket.socket", "socket.socketpair", "socket.create_server", "socket.create_connection", "socket.fromfd"),
        *("multiprocessing.connection.Connection", "multiprocessing.connection.Listener"),
        *("multiprocessing.connection.Client", "multiprocessing.reduction.recv_handle"),
        *("multiprocessing.reduction.send_handle", "xmlrpc.client.ServerProxy"),
    },
    "unpacks": {"pickle.load", "pickle.loads", "marshal.loads", "yaml.load", "shelve.open"},
}
"""What is looked for, by what it does to the machine; the names are those of Python's modules."""

KINDS: Final = {name: kind for kind, names in ACTS.items() for name in names}
METHODS: Final = {
    "bind": "speaks",
    "extractall": "unpacks",
    "unlink": "removes",
    "rmdir": "removes",
    "chmod": "opens to others",
}
"""Methods that do the same whatever they are called on, except on modules."""

PARTS: Final = {
    "files.remove": "removes",
    "files.write": "writes",
    "files.unpack": "unpacks",
    "processes.signal": "signals",
    "processes.spawn": "executes",
    "processes.run": "executes",
    "processes.capture": "executes",
}
"""Verbs of a machine's parts, on which everything above them relies."""

ROW: Final = re.compile(r"^\| `([^`|]+)` \| ([^|]+) \| (.+) \|$", re.MULTILINE)


def names_imported(tree: ast.Module) -> dict[str, str]:
    """Return what local names stand for: ``{"sleep": "time.sleep"}``."""
    names = {}
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if isinstance(node, ast.ImportFrom):
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif alias.asname:
                names[alias.asname] = alias.name
            else:
                top = alias.name.partition(".")[0]
                names[top] = top
    return names


def full_name(node: ast.expr, known: dict[str, str]) -> str:
    """Return the full name of what an expression refers to; empty for what is no name of a module or builtin."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id if node.id in KINDS else "")
    if isinstance(node, ast.Attribute):
        owner = full_name(node.value, known)
        return owner and f"{owner}.{node.attr}"
    return ""


def kind_of(node: ast.AST, known: dict[str, str]) -> str:
    """Return what a part of the source does to the machine; empty if that is nothing of the kind."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
        return "writes" if any(map(is_writing, node.args[1:2])) else ""
    if not isinstance(node, ast.Name | ast.Attribute):
        return ""
    if name := full_name(node, known):
        return KINDS.get(name, "")
    if isinstance(node, ast.Attribute):
        owner = node.value.attr if isinstance(node.value, ast.Attribute) else ""
        return METHODS.get(node.attr, "") or PARTS.get(f"{owner}.{node.attr}", "")
    return ""


def is_writing(mode: ast.expr) -> bool:
    """Tell whether the mode of a call of ``open`` has files made or changed."""
    return isinstance(mode, ast.Constant) and bool(set("wax+") & set(str(mode.value)))


def acts_in(node: ast.AST, function: str, known: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each function of a tree, by its qualified name, with what it does; what is only a type does nothing."""
    types = {getattr(node, name, None) for name in ("annotation", "returns")}
    for child in ast.iter_child_nodes(node):
        if child in types:
            continue
        inside = function
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{function}.{child.name}" if function else child.name
        if kind := kind_of(child, known):
            yield inside or "(module)", kind
        yield from acts_in(child, inside, known)


def found() -> dict[str, set[str]]:
    """Return the places of the package, each with what is done there."""
    places: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = str(path.relative_to(PACKAGE))
        if not module.startswith(NOT_LISTED):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for function, kind in acts_in(tree, "", names_imported(tree)):
                places.setdefault(f"{module}:{function}", set()).add(kind)
    return places


def row(place: str, kinds: set[str], reason: str) -> str:
    """Return a row of the list."""
    return f"| `{place}` | {', '.join(sorted(kinds))} | {reason} |"


def test_every_place_is_on_the_list() -> None:
    """No place is missing from the list; none is on it that does not exist, does something else, or has no reason."""
    listed = {place: (set(kinds.split(", ")), reason.strip()) for place, kinds, reason in ROW.findall(PAGE.read_text())}
    places = found()
    missing = [row(place, kinds, "WHY IT IS SAFE") for place, kinds in places.items() if place not in listed]
    changed = [
        f"{row(place, kinds, reason)}\n  in place of {row(place, listed[place][0], reason)}"
        for place, kinds in places.items()
        if place in listed and listed[place][0] != kinds and (reason := listed[place][1])
    ]
    gone = [row(place, kinds, reason) for place, (kinds, reason) in listed.items() if place not in places]
    advice = {f"rows to add to {PAGE.name}": missing, "rows that have changed": changed, "rows to remove": gone}
    text = "\n".join(line for title, lines in advice.items() if lines for line in (f"{title}:", *lines))
    assert not text, text
    assert [place for place, (_, reason) in listed.items() if len(reason) < len("it is ours")] == []
    assert list(listed) == sorted(listed)


def test_places_are_found() -> None:
    """Names count however they were imported, also where nobody calls them; what is only called alike does not."""
    source = """
import os, subprocess as sp
from socket import socket as S
import xmlrpc.client

class A:
    def f(self):
        os.unlink("x"); map(os.kill, [])

    def g(self):
        def h():
            return S()
        sp.run([])

def i(p: S) -> S:
    p.unlink()
    open("x"), open("x", "rb"), open("x", "w")
    p.machine.files.remove("x")
    re.compile("x")
    xmlrpc.client.ServerProxy("x")
"""
    tree = ast.parse(source)
    places: dict[str, set[str]] = {}
    for function, kind in acts_in(tree, "", names_imported(tree)):
        places.setdefault(function, set()).add(kind)
    assert places == {
        "A.f": {"removes", "signals"},
        "A.g": {"executes"},
        "A.g.h": {"speaks"},
        "i": {"removes", "speaks", "writes"},
    }
