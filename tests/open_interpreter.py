"""An interpreter that others than root can execute, for tests that run programs as other users."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

USER: Final = 65534
VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"


def open_interpreter() -> str | None:
    """Return an interpreter of our version that the user can execute: ours may lie below a closed home directory."""
    candidates = (os.path.realpath(sys.executable), f"/usr/local/bin/python{VERSION}", f"/usr/bin/python{VERSION}")
    program = f"import sys, venv; assert '%d.%d' % sys.version_info[:2] == '{VERSION}'"
    for candidate in candidates:
        try:
            run = as_user([candidate, "-c", program], directory=Path("/"), environment={})
        except OSError:
            continue
        if run.returncode == 0:
            return candidate
    return None


def as_user(
    command: list[str | Path], *, directory: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command as the ordinary user, with no group of ours."""
    return subprocess.run(
        command,
        user=USER,
        group=USER,
        extra_groups=[],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
