"""What different versions of Nix say, as it becomes one error."""

from __future__ import annotations

from typing import Final

import pytest

from pytest_nixproc.sources.nix.command import EVALUATE, ProcessesExpression
from pytest_nixproc.sources.nix.errors import build_error, evaluation_error

EXPRESSION: Final = ProcessesExpression("/home/me/processes.nix", is_flake=False)

OLD: Final = f"""\
evaluating file '/home/me/web.nix'
warning: something else
error: the port
       is taken

       … while evaluating the attribute 'port'

       at /home/me/web.nix:3:5:

            2|   name = "web";
            3|     port = throw "the port\\nis taken";

       … while evaluating the file

       at {EVALUATE}:4:2:
"""
NEW: Final = f"""\
error:
       … while evaluating the file

         at {EVALUATE}:4:2:

       … while evaluating the attribute 'web'
         at /home/me/processes.nix:9:5:
            9|     web = import ./web.nix;

       … while calling the 'throw' builtin
         at /home/me/web.nix:3:12:

       error: the port
              is taken
"""
NEW_IN_LINE: Final = NEW.replace("              is taken", "       is taken")
NEW_WITH_PLACE: Final = """\
error:
       … while evaluating the attribute 'web'
         at /home/me/processes.nix:9:5:

       error: attribute 'zz' missing
       at /home/me/web.nix:3:12:
          2|   name = "web";
          3|   port = x.zz;
"""
IN_NIXPKGS: Final = """\
error: attribute 'zz' missing

       at /nix/store/abc-nixpkgs/lib/lists.nix:1:1:

       … while calling something

       at /home/me/web.nix:7:3:
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (OLD, "/home/me/web.nix:3:5: the port is taken"),
        (NEW, "/home/me/web.nix:3:12: the port is taken"),
        (NEW_IN_LINE, "/home/me/web.nix:3:12: the port is taken"),
        (NEW_WITH_PLACE, "/home/me/web.nix:3:12: attribute 'zz' missing"),
        (IN_NIXPKGS, "/home/me/web.nix:7:3: attribute 'zz' missing"),
        ("\x1b[31;1merror:\x1b[0m no colours", "/home/me/processes.nix: no colours"),
        ("", "/home/me/processes.nix: nix-instantiate ended with status 1"),
    ],
)
def test_evaluation(said: str, expected: str) -> None:
    """The error is the innermost one, at the innermost place that is the user's own."""
    error = evaluation_error(EXPRESSION, 1, said, 600)
    assert error.brief == expected
    assert "sources/nix" not in error.details


def test_trace_without_our_part() -> None:
    """The details are Nix's own trace, without its talk and without our files."""
    details = evaluation_error(EXPRESSION, 1, OLD, 600).details
    assert details.startswith("error: the port")
    assert "while evaluating the attribute 'port'" in details
    assert "while evaluating the file" not in details
    assert "warning" not in details


DERIVATION: Final = f"/nix/store/{'a' * 32}-web-app-1.0.drv"


OLD_BUILD: Final = f"""\
error: builder for '{DERIVATION}' failed with exit code 2;
       last 2 log lines:
       > one
       > two
"""
NEW_BUILD: Final = f"""\
error: Cannot build '{DERIVATION}'.
       Reason: builder failed with exit code 2.
       Output paths:
         /nix/store/x
       Last 2 log lines:
       > one
       > two
"""


@pytest.mark.parametrize("said", [OLD_BUILD, NEW_BUILD], ids=["old", "new"])
def test_build(said: str) -> None:
    """A failing build is told by the name of the derivation, with the end of its log."""
    error = build_error("processes.nix", 1, f"{said}error: 1 dependencies of derivation 'x' failed to build\n", 600)
    assert error.brief == "processes.nix: building web-app-1.0 failed with exit code 2"
    assert error.details == "one\ntwo"


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("error: the group 'nixbld' specified in 'build-users-group' does not exist", "NIX_CONFIG"),
        ("error: file 'nixpkgs' was not found in the Nix search path (add it using $NIX_PATH or -I)", "NIX_PATH"),
        ("error: unable to download 'https://x': Couldn't connect to server (7)", "--nixproc-download"),
    ],
)
def test_remedies(said: str, remedy: str) -> None:
    """What one can do about usual problems is said."""
    assert remedy in evaluation_error(EXPRESSION, 1, said, 600).remedy
    assert remedy in build_error("processes.nix", 1, said, 600).remedy
