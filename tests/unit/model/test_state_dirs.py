"""The state directories."""

from __future__ import annotations

import pytest

from pytest_nixproc.values.state import StateDirs


def test_default_layout_is_the_systems() -> None:
    """Without a place, the directories are those of the machine, with the temporary one outside of /var."""
    state = StateDirs.under()
    assert (state.state_dir, state.runtime_dir, state.tmp_dir) == ("/var", "/var/run", "/tmp")


def test_layout_below_a_place() -> None:
    """All directories lie below any other place; the state directory comes first."""
    names = ("", "/run", "/log", "/cache", "/spool", "/lock", "/lib", "/tmp")
    assert StateDirs.under("/srv").all() == tuple(f"/srv{name}" for name in names)


def test_single_directories_can_be_moved() -> None:
    """A directory given by name is taken from there, the others stay."""
    state = StateDirs.under("/srv", log_dir="/logs")
    assert (state.log_dir, state.runtime_dir) == ("/logs", "/srv/run")


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/srv", True),
        ("/srv/run/x", True),
        ("/logs/a/b", True),
        ("/srv2/x", False),
        ("/", False),
        ("/logs2", False),
    ],
)
def test_contains(path: str, inside: bool) -> None:  # noqa: FBT001
    """A path is inside when it is a state directory or lies below one, not when its name only begins alike."""
    assert StateDirs.under("/srv", log_dir="/logs").contains(path) is inside
