"""The manager bsdrc conforms, with a stand-in for what FreeBSD has and other systems have not.

The scripts are the generated ones, run by the driver as on FreeBSD; only what they read and call is ours.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.managers.bsdrc import BsdrcGenerator, RcSystem
from pytest_nixproc.testing.conformance import ManagerConformance
from pytest_nixproc.values.units import Mode

STAND_INS = Path(__file__).parent / "stand_ins"
SYSTEM = RcSystem(rc_subr=str(STAND_INS / "rc.subr"), daemon=str(STAND_INS / "daemon"))


class TestBsdrcOnAStandIn(ManagerConformance):
    """All of it."""

    usual_mode: ClassVar[Mode] = "daemon"

    @pytest.fixture(scope="class")
    @classmethod
    def tested_manager(cls) -> Manager:
        """Return the manager, whose scripts find the stand-in in place of rc.subr."""
        return replace(Registry().manager("bsdrc"), generator=partial(BsdrcGenerator, SYSTEM))
