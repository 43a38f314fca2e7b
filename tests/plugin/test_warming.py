"""What begins at the end of collection: the guardian, and what a manager's own start needs."""

from __future__ import annotations

import pytest

LOOK = """
    import os
    import pytest
    from pytest_nixproc._registry import Registry
    from pytest_nixproc.machines.process_table import descendants, parents

    def test_look():
        expected = int(os.environ["EXPECTED"])
        seen = lambda: len(descendants([os.getpid()], parents()))
        # The guardian starts the template in its own time.
        Registry().machine("host")().deadline(10).until(lambda: seen() >= expected)
        assert seen() == expected

    @pytest.mark.nixproc({marker})
    def test_system(nixproc_system): ...
"""


@pytest.mark.parametrize(
    ("marker", "options", "count"),
    [
        pytest.param("managers=['supervisord']", (), 2, id="guardian and template"),
        pytest.param("managers=['sysvinit']", ("--nixproc-manager=supervisord,sysvinit",), 1, id="guardian alone"),
        pytest.param("", ("--deselect=test_it.py::test_system",), 0, id="deselected"),
        pytest.param("", ("--nixproc-plan",), 0, id="plan"),
        pytest.param("", ("--deselect=test_it.py::test_system", "test_it.py", "test_maybe.py"), 0, id="maybe"),
        pytest.param("", ("-n", "1"), 0, id="on a worker"),
    ],
)
def test_what_a_selected_test_needs_begins_before_it(
    project: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    marker: str,
    options: tuple[str, ...],
    count: int,
) -> None:
    """Before the first test, there is what the first deployment needs, if a selected test will deploy; else nothing."""
    monkeypatch.setenv("EXPECTED", str(count))
    project.makepyfile(test_it=LOOK.format(marker=marker), test_maybe="def test_it(nixproc_deploy): ...")
    result = project.runpytest_subprocess(*options)
    assert result.parseoutcomes().get("failed", 0) == 0
    assert result.parseoutcomes()["passed"] >= 1


def test_what_cannot_begin_is_told_by_the_deployment(project: pytest.Pytester) -> None:
    """What keeps the guardian from starting is an error of the test that needs it, and not the end of the session."""
    project.makepyfile(test_it="import sys\n\nsys.executable = '/nowhere'\n\ndef test_it(nixproc_system): ...")
    result = project.runpytest_subprocess("--nixproc-manager=sysvinit", "--nixproc-model=processes.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the guardian cannot be started: No such file or directory: /nowhere"])
