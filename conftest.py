"""What all tests share: a place of their own for everything that is deployed, and the proof that nothing is left in it.

Everything that a test session deploys lies below one directory, which the tests take for the machine's ``/tmp``. So
what is left there, and what still runs with a tag that names it, is ours: other sessions on the machine, and the other
workers of pytest-xdist, have directories of their own.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_nixproc._plugin import options, session_in_use
from pytest_nixproc.machines.process_table import command_line, environment_of, parents
from pytest_nixproc.testing.pace import slowness
from pytest_nixproc.values.tags import DEPLOYMENT

if TYPE_CHECKING:
    # The tree that an ordinary user gets has examples only.
    from tests.forked_sessions import SessionForker

pytest_plugins = ["pytester"]

PLACE: Final = pytest.StashKey[str]()

QUICKER: Final = "-p no:hypothesispytest"
"""What sessions that tests start are told: that plugin imports all of hypothesis, in a third of a session's time."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give the session its own temporary directory, short because socket paths are, and the time that it needs here."""
    heed_signals()
    if config.getoption("timeout", None) is None and (seconds := config.getini("timeout")):
        config.option.timeout = float(seconds) * slowness()
    if options.read(config, "keep") != "never":
        return
    # A worker of pytest-xdist has its place beside the controller's, not in it: paths stay short.
    usual = os.environ.get("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    place = config.stash[PLACE] = tempfile.mkdtemp(prefix="np-", dir=usual)
    # Others may pass through it: tests of an ordinary user keep their files below it.
    Path(place).chmod(0o711)
    # pytest's own temporary files stay where people look for them.
    move_temporary_files(place, usual)
    config.add_cleanup(lambda: shutil.rmtree(place))
    config.add_cleanup(lambda: move_temporary_files(usual, None))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Share the work out where directories of tests are run; a few files are done before workers have started."""
    tests = config.rootpath / "tests"
    chosen = [config.invocation_params.dir / argument for argument in config.args]
    if not any(path.is_dir() and path.is_relative_to(tests) for path in chosen):
        return 0
    # Deployments wait more than they compute.
    return (os.cpu_count() or 1) + 1


def heed_signals() -> None:
    """Undo what a shell does to what it runs in the background (sh(1), "Asynchronous AND-OR Lists").

    Tests interrupt sessions that they start, which would inherit that they ignore it.
    """
    for number, action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, action)


def move_temporary_files(directory: str, root_of_pytest: str | None) -> None:
    """Have this process and its children make temporary files elsewhere."""
    os.environ["TMPDIR"] = tempfile.tempdir = directory
    if root_of_pytest is not None:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = root_of_pytest


@pytest.fixture(scope="session", autouse=True)
def quicker_sessions() -> Iterator[None]:
    """Have the sessions that tests start be quick to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_ADDOPTS", QUICKER)
        yield


@pytest.fixture(scope="session")
def forker() -> Iterator[SessionForker]:
    """Return what forks sessions for tests."""
    from tests.forked_sessions import SessionForker

    forker = SessionForker()
    yield forker
    forker.close()


@pytest.fixture
def pytester(pytester: pytest.Pytester, forker: SessionForker, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return pytest's own one, whose sessions are forked; it has forgotten the options of the environment."""
    monkeypatch.setenv("PYTEST_ADDOPTS", QUICKER)
    monkeypatch.setattr(pytester, "popen", forker.popen(pytester.popen))
    return pytester


@pytest.fixture(scope="session", autouse=True)
def nothing_left_by_session(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail at the end of the session if a process or a file of a deployment is left."""
    yield
    if (place := pytestconfig.stash.get(PLACE, None)) is not None:
        left = [f"process {pid}: {command}" for pid, command in tagged_processes(place).items()]
        left += sorted(os.listdir(place))
        assert not left, f"the session left in {place}: {left}"


@pytest.fixture(scope="module", autouse=True)
def nothing_left_by_module(pytestconfig: pytest.Config, nothing_left_by_session: None) -> Iterator[None]:  # noqa: ARG001 - torn down after this
    """Fail at the end of a module if a process runs whose deployment is not in use any more."""
    yield
    if (place := pytestconfig.stash.get(PLACE, None)) is not None:
        used = roots_in_use(pytestconfig)
        tagged = tagged_processes(place)
        left = {pid: command for pid, command in tagged.items() if deployment_of(pid) not in used}
        assert not left, f"the module left processes: {left}"


@pytest.fixture(autouse=True)
def nothing_left_by_test(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail after a test that leaves a deployment's directory which no fixture uses."""
    place = pytestconfig.stash.get(PLACE, None)
    before = deployments(place)
    yield
    left = deployments(place) - before - roots_in_use(pytestconfig)
    assert not left, f"the test left deployments: {sorted(left)}"


@pytest.fixture(autouse=True)
def no_options_for_inner_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep this session's environment variables away from the pytest sessions that tests start."""
    if "pytester" in request.fixturenames:
        for option in options.OPTIONS:
            monkeypatch.delenv(option.variable, raising=False)


@pytest.fixture(scope="session")
def nix() -> Iterator[str]:
    """Return the directory of a store for this session alone, in which Nix evaluates and builds, without a sandbox.

    The machine's own store is not touched, whatever is configured for it: tests remove things from this one. Without
    Nix, skip, or fail where ``NIXPROC_TEST_REQUIRE`` names it.
    """
    if shutil.which("nix-instantiate") is None:
        problem = "there is no nix-instantiate in PATH: apt install nix-bin"
        if "nix" in os.environ.get("NIXPROC_TEST_REQUIRE", "").split(","):
            pytest.fail(problem, pytrace=False)
        pytest.skip(problem)
    # Resolved: Nix refuses a store below a symbolic link.
    place = os.path.realpath(tempfile.mkdtemp(prefix="np-nix-"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NIX_CONFIG", "build-users-group =\nsubstitute = false\nsandbox = false")
        for name in ("STORE", "STATE", "LOG", "CONF", "LOCALSTATE"):
            environment.setenv(f"NIX_{name}_DIR", f"{place}/{name.lower()}")
        environment.setenv("XDG_CACHE_HOME", f"{place}/cache")
        # A daemon would have a store of its own.
        environment.delenv("NIX_REMOTE", raising=False)
        yield f"{place}/store"
    remove_store(place)


def remove_store(place: str) -> None:
    """Remove a store, whose directories only root could remove files from."""
    for directory, _, _ in os.walk(place):
        os.chmod(directory, 0o700)
    shutil.rmtree(place)


def deployments(place: str | None) -> set[str]:
    """Return the directories of deployments in the session's place."""
    return set(glob(f"{place}/nixproc-*/*")) if place else set()


def roots_in_use(config: pytest.Config) -> set[str]:
    """Return the directories of the systems that fixtures hold."""
    used = session_in_use(config)
    return {system.root for system in used.live} if used else set()


def tagged_processes(place: str) -> dict[int, str]:
    """Return the command lines of processes whose tag names a deployment in the session's place."""
    return {pid: command_line(pid) for pid in parents() if deployment_of(pid).startswith(f"{place}/")}


def deployment_of(pid: int) -> str:
    """Return the deployment that a process belongs to; empty when it has just ended."""
    entries = os.fsdecode(environment_of(pid)).split("\0")
    return next((entry.partition("=")[2] for entry in entries if entry.startswith(f"{DEPLOYMENT}=")), "")
