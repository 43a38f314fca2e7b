"""How interpreters that we start import this package: from where it is, and with nothing of the tests in the way."""

from __future__ import annotations

import os
import sys

# Not imported from typing: bare interpreters import this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

PACKAGE_ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""The directory that holds this package."""

FINDER: Final = """\
import sys
from importlib.machinery import PathFinder
class Ours:
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [{root!r}]) if name == "pytest_nixproc" else None
sys.meta_path.insert(0, Ours)
"""
"""Has this very package imported, though the directory around it is not searched.

What lies beside it, in a checkout or in the tests' own tree, may have any name: also one of the standard library's.
"""

SEARCH: Final = """\
import site
for path in {paths!r}:
    if path not in sys.path:
        site.addsitedir(path)
"""
"""Has packages found that are installed where the interpreter does not look by itself, after all others."""

KNOWN: Final[dict[str, bool]] = {}
"""Whether packages are installed in directories, of those that were looked at."""


def python_program(module: str, *arguments: object, searched: Iterable[str] = ()) -> str:
    """Return the program of an isolated interpreter that is the ``main`` of a module of this package.

    What that imports is of the standard library, this package, the interpreter's own packages, or ``searched``.
    """
    search = SEARCH.format(paths=[*searched]) if searched else ""
    main = f"from pytest_nixproc.{module} import main\nsys.exit(main({', '.join(map(repr, arguments))}))\n"
    return f"{FINDER.format(root=PACKAGE_ROOT)}{search}{main}"


def places_of_packages() -> list[str]:
    """Return the places where packages are installed, of those where this process looks for modules.

    Directories of tests are not among them: what lies there is not for the processes that take everything down.
    """
    for path in sys.path:
        # Each deployment asks twice, and to read the directories takes longer than all else of that.
        if path not in KNOWN:
            KNOWN[path] = bool(path) and has_packages(path)
    return [path for path in sys.path if KNOWN[path]]


def has_packages(path: str) -> bool:
    """Tell whether packages are installed in a directory, as pip does it, or in an archive."""
    try:
        return any(name.endswith(".dist-info") for name in os.listdir(path))
    except NotADirectoryError:
        return True
    except OSError:
        return False
