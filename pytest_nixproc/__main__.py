"""The command ``python -m pytest_nixproc``."""

from __future__ import annotations

from pytest_nixproc._cli import main

raise SystemExit(main())
