"""The conformance suite: tests that every process manager has to pass, including those of third-party packages.

    pytest --pyargs pytest_nixproc.testing.conformance --nixproc-manager=NAME

runs the suite for any managers that are registered, from any directory. In a project's own tests, a class does it:

    from pytest_nixproc.testing.conformance import ManagerConformance

    class TestMine(ManagerConformance):
        manager = "mine"

Managers are found through the registry, like by a user's tests. Where one cannot run, a single test is skipped, with
the reason, and the others are left out. Fixtures can be overridden.
"""

from __future__ import annotations

from pytest_nixproc.testing.conformance.answering import Answering
from pytest_nixproc.testing.conformance.bench import (
    Bench,
    Build,
    Received,
    clean,
    driver_at,
    http_body,
    load,
    one,
    own_number,
    read_text,
    received,
    received_in,
    remains,
    seconds_of,
    write_text,
)
from pytest_nixproc.testing.conformance.declarations import Declarations
from pytest_nixproc.testing.conformance.fixtures import MODES, Fixtures, in_both_modes
from pytest_nixproc.testing.conformance.hostile import (
    AWKWARD_NAMES,
    HOSTILE,
    HOSTILE_FILE_NAME,
    HOSTILE_NAMES,
    OTHER_STATE_ROOTS,
    SPECIAL_NAMES,
)
from pytest_nixproc.testing.conformance.living import Living
from pytest_nixproc.testing.conformance.pid_files import PidFiles
from pytest_nixproc.testing.conformance.starting import Starting
from pytest_nixproc.testing.conformance.stopping import Stopping
from pytest_nixproc.testing.conformance.surroundings import Surroundings

__all__ = [
    "AWKWARD_NAMES",
    "HOSTILE",
    "HOSTILE_FILE_NAME",
    "HOSTILE_NAMES",
    "MODES",
    "OTHER_STATE_ROOTS",
    "SPECIAL_NAMES",
    "Answering",
    "Bench",
    "Build",
    "Declarations",
    "Fixtures",
    "Living",
    "ManagerConformance",
    "PidFiles",
    "Received",
    "Starting",
    "Stopping",
    "Surroundings",
    "clean",
    "driver_at",
    "http_body",
    "in_both_modes",
    "load",
    "one",
    "own_number",
    "read_text",
    "received",
    "received_in",
    "remains",
    "seconds_of",
    "write_text",
]


class ManagerConformance(Declarations, Surroundings, Starting, Answering, PidFiles, Stopping, Living):
    """The conformance tests that create no accounts; set ``manager`` to its name, or let the options choose."""
