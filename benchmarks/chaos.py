"""Chaos with all of its scenarios; ``--help`` tells its options.

It is the same program as the short one of the tests, which is where it lies: ``tests/crash/chaos.py``.
"""

from __future__ import annotations

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "tests" / "crash" / "chaos.py"), run_name="__main__")
