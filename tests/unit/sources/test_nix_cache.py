"""Entries that several processes keep at once, and entries that cannot be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from pytest_nixproc.sources.nix.cache import EvaluationCache

WORKER: Final = """
import sys
from pytest_nixproc.sources.nix.cache import EvaluationCache

cache, result = EvaluationCache(sys.argv[1], "model.nix"), ["x" * 100] * 200
for _ in range(300):
    cache.keep(["key"], {}, result)
    assert cache.recall("key") == result
"""


def test_kept_by_several_at_once(tmp_path: Path) -> None:
    """Workers that keep the same entry at the same time all do so, and each reads a whole one."""
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [worker.communicate()[1] for worker in workers] == ["", "", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["key.json"]


def test_broken_entry(tmp_path: Path) -> None:
    """An entry that is not whole, as after a crash of the machine, is as good as none, and is replaced."""
    cache = EvaluationCache(str(tmp_path), "model.nix")
    (tmp_path / "key.json").write_text('{"inputs": {}, "resu')
    assert cache.recall("key") is None
    cache.keep(["key"], {}, "found")
    assert cache.recall("key") == "found"
