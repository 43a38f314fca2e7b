"""``python -m pytest_nixproc``."""

from __future__ import annotations

from pytest_nixproc.cli import main

raise SystemExit(main())
