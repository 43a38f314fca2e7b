"""The recognition of pytest's own files by their names, without the imports that systems need."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest


def is_test_module(path: Path, config: pytest.Config) -> bool:
    """Tell whether a file is pytest's alone, as long as no option asks for models or constructors in it."""
    return path.suffix == ".py" and is_named_like_tests(path, config)


def is_named_like_tests(path: Path, config: pytest.Config) -> bool:
    """Tell whether pytest takes a file for a test module by its name; suffixes do not count."""
    name = f"{path.name.partition('.')[0]}.py"
    return name == "conftest.py" or any(fnmatchcase(name, pattern) for pattern in config.getini("python_files"))
