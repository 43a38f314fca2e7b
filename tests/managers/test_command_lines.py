"""Everybody can read the command line of every process: what a model says in confidence is on none of ours."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

import pytest

from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.conformance import Bench, Fixtures
from pytest_nixproc.values.state import StateDirs

LOOK: Final = "grep -l -s -F -f {0}/wanted /proc/[0-9]*/cmdline > {0}/found"
"""Finds the command lines that hold a line of a file."""


@pytest.fixture(autouse=True)
def agrees_with_the_record() -> None:
    """Compare with nothing: this is no part of the suite that other managers are held against."""


class TestCommandLines(Fixtures):
    """For every manager that can run here."""

    manager = "all"

    def test_texts_and_variables_of_a_model(self, bench: Bench) -> None:
        """Shell text that runs before a program, or in its files, and its variables are on no command line meanwhile.

        The text sees nothing of how it has come there.
        """
        wanted = [secrets.token_hex() for _ in range(3)]
        program = bench.machine.files.which("sleep")

        def build(state: StateDirs) -> ProcessesModel:
            write = "cat > {0}/wanted <<'END'\n" + "\n".join(wanted) + "\nEND\n"
            texts = [write.format(place) + f"{LOOK.format(place)} || true\n" for place in (state.lib_dir, "$out")]
            told = f'echo "$PASSWORD ${{NIXPROC_TEXT-none}} $0 $#" > {state.lib_dir}/seen'
            process = create_managed_process(
                name="it",
                foreground_process=program,
                args=["60"],
                environment={"PASSWORD": wanted[0]},
                initialize=texts[0] + told,
                post_install=texts[1],
            )
            return ProcessesModel({"it": Instance(process)})

        with bench.deploy(build) as system:
            lib = Path(system.state.lib_dir)
            assert (lib / "seen").read_text() == f"{wanted[0]} none it 0\n"
            assert (lib / "wanted").read_text().split() == wanted
            assert (lib / "found").read_text() == ""
            assert Path(system.root, "profile", "found").read_text() == ""
