"""What is kept of evaluations: for how many deployments one is enough, and when another one is needed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_nixproc.errors import SourceError
from pytest_nixproc.sources.nix import cache
from pytest_nixproc.values.state import StateDirs

if TYPE_CHECKING:
    from tests.nix.conftest import Bench

WEB = """
    {{ stateDir, runtimeDir, processManager, greeting ? "hi" }}:
    {{ web.pkg = createManagedProcess {{
      name = "web"; process = {process}; args = [ "${{runtimeDir}}/x" greeting ]; }}; }}
"""
PLAIN = WEB.format(process='"/bin/web"')
BAKED = WEB.format(
    process="""derivation {
      name = "web"; system = builtins.currentSystem; builder = "/bin/sh";
      args = [ "-c" "echo ${stateDir} > $out" ]; }"""
)
HERE, THERE = StateDirs.under("/run/np/11111111/var"), StateDirs.under("/run/np/22222222/var")


def evaluations(bench: Bench) -> int:
    """Return how often Nix has evaluated."""
    return bench.commands.count("nix-instantiate")


def test_evaluated_once(bench: Bench) -> None:
    """The same expression is evaluated once, and yields each deployment's own paths."""
    for state in (HERE, HERE, THERE):
        assert bench.read(PLAIN, state=state)["web"].pkg.args[0] == f"{state.runtime_dir}/x"
    assert evaluations(bench) == 1


def test_derivation_with_a_path(bench: Bench) -> None:
    """A derivation that names the deployment's directory is another one for each deployment."""
    programs = [bench.read(BAKED, state=state)["web"].pkg.process for state in (HERE, THERE, HERE)]
    assert programs[0] == programs[2] != programs[1]
    assert evaluations(bench) == 2


def test_file_with_a_path(bench: Bench) -> None:
    """So is a file that is written to the store."""
    text = WEB.format(process='builtins.toFile "web" "${stateDir}"')
    assert bench.read(text, state=HERE)["web"].pkg.process != bench.read(text, state=THERE)["web"].pkg.process


def test_length_of_a_path(bench: Bench) -> None:
    """Programs can ask how long a path is: a deployment at a longer one has an evaluation of its own."""
    text = WEB.format(process='"/bin/${toString (builtins.stringLength stateDir)}"')
    for state in (HERE, THERE, StateDirs.under("/somewhere/else/33333333/var")):
        assert bench.read(text, state=state)["web"].pkg.process == f"/bin/{len(state.state_dir)}"
    assert evaluations(bench) == 2


@pytest.mark.parametrize(
    "change", [{"process_manager": "docker"}, {"params": {"greeting": "ho"}}, {"calling_user": "x"}]
)
def test_other_arguments(bench: Bench, change: dict[str, object]) -> None:
    """Other arguments are another evaluation."""
    bench.read(PLAIN)
    bench.read(PLAIN, **change)
    assert evaluations(bench) == 2


READ = {
    "imported": ("import ./part.nix", '"/bin/web"', '"/bin/other"'),
    "read": ('"/bin/${builtins.readFile ./part.nix}"', "web", "other"),
    "computed name": ('"/bin/${builtins.readFile (./. + "/part.${"nix"}")}"', "web", "other"),
    "copied": ("./part.nix", "web", "other"),
    "made": ('if builtins.pathExists ./part.nix then "/bin/there" else "/bin/absent"', None, "there"),
    "listed": ('"/bin/${toString (builtins.attrNames (builtins.readDir ./.))}"', None, "there"),
    "removed": ('if builtins.pathExists ./part.nix then "/bin/there" else "/bin/absent"', "there", None),
}


@pytest.mark.parametrize("how", READ)
def test_changed_file(bench: Bench, how: str) -> None:
    """When a file has changed that is read in whatever way, it is evaluated again; the size may be the same."""
    process, *contents = READ[how]
    part, seen = Path(bench.directory, "part.nix"), []
    for content in contents:
        if content is None:
            part.unlink(missing_ok=True)
        else:
            part.write_text(content)
        seen += [bench.read(WEB.format(process=process))["web"].pkg.process for _ in range(2)]
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert evaluations(bench) == 2


def test_same_content(bench: Bench) -> None:
    """A file that was written again, with the content that it had, is no reason to evaluate again."""
    bench.read(PLAIN)
    path = bench.directory / "processes.nix"
    os.utime(path, (1, 1))
    bench.read_file(str(path))
    assert evaluations(bench) == 1


def test_collected_derivation(bench: Bench, nix: str) -> None:
    """When the garbage collector has taken what was to be built, it is evaluated again."""
    first = bench.read(BAKED)["web"].pkg.process
    assert nix.startswith(os.environ["NIX_STORE_DIR"]), "only the session's own store may be damaged"
    for name in os.listdir(nix):
        if name.endswith(".drv"):
            os.unlink(f"{nix}/{name}")
    assert bench.read(BAKED)["web"].pkg.process == first
    assert evaluations(bench) == 2


def test_endless_neighbour(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker's evaluation is waited for, but not for ever."""
    monkeypatch.setattr(cache, "LOCK_SECONDS", 0.0)
    bench.context = replace(bench.context, tools=replace(bench.context.tools, seconds=0.1))
    path = bench.write(PLAIN)
    assert bench.context.tools.cache is not None
    neighbour = cache.EvaluationCache(bench.context.tools.cache, path)
    with neighbour.locked(1), pytest.raises(SourceError, match=r"processes\.nix: another process has been evaluating"):
        bench.read_file(path)


def test_without_directory(bench: Bench) -> None:
    """Where nothing can be kept in files, this process keeps it."""
    bench.context = replace(bench.context, tools=replace(bench.context.tools, cache=None))
    for _ in range(2):
        bench.read(PLAIN)
    assert evaluations(bench) == 1


def test_workers(pytester: pytest.Pytester, nix: str) -> None:  # noqa: ARG001 - sets the environment
    """All tests of a session and all workers of pytest-xdist have one evaluation."""
    pytester.path.joinpath("processes.nix").write_text(
        'builtins.trace "evaluated now" { web.pkg = (import <pytest-nixproc> { }).createManagedProcess {\n'
        '  name = "web"; foregroundProcess = "/bin/sleep"; args = [ 60 ]; }; }\n'
    )
    pytester.makepyfile("""
        import os, pytest
        from pytest_nixproc.sources.nix import evaluation

        run = evaluation.Evaluator._run

        def counted(self, apply):
            with open("runs", "a") as file:
                file.write(f"{os.environ['PYTEST_XDIST_WORKER']}\\\\n")
            return run(self, apply)

        evaluation.Evaluator._run = counted

        @pytest.mark.parametrize("number", range(4))
        @pytest.mark.nixproc(model="processes.nix")
        def test_deployed(nixproc_deploy, number):
            with nixproc_deploy() as system:
                assert system["web"].is_running
    """)
    result = pytester.runpytest_subprocess("-n2", "-p", "xdist")
    result.assert_outcomes(passed=4)
    assert len(pytester.path.joinpath("runs").read_text().split()) == 1


def test_unusable_cache(pytester: pytest.Pytester, nix: str) -> None:  # noqa: ARG001 - sets the environment
    """Where pytest's cache cannot be written, models are read all the same."""
    pytester.path.joinpath("processes.nix").write_text(
        "{ web.pkg = (import <pytest-nixproc> { }).createManagedProcess {\n"
        '  name = "web"; foregroundProcess = "/bin/sleep"; args = [ 60 ]; }; }\n'
    )
    pytester.makepyfile("def test_deployed(nixproc_system): assert nixproc_system['web'].is_running")
    context = ("--nixproc-model=processes.nix", "-o", "cache_dir=/dev/null/cache", "-W", "ignore")
    pytester.runpytest_subprocess(*context).assert_outcomes(passed=1)
