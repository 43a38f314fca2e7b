"""The fixtures of the plugin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from pytest_nixproc._plugin import options

if TYPE_CHECKING:
    from pytest_nixproc._plugin.matrix import Point
    from pytest_nixproc._plugin.session import Session
    from pytest_nixproc._system.deploying import Deploy, ValidateConstructor
    from pytest_nixproc._system.system import System
    from pytest_nixproc.machines.api import Machine
    from pytest_nixproc.managers.api import Manager
    from pytest_nixproc.model.constructors import ConstructorTrial
    from pytest_nixproc.sources.loader import ModelLike
    from pytest_nixproc.values.state import StateDirs

Result = TypeVar("Result")


def system_scope(fixture_name: str, config: pytest.Config) -> options.Scope:  # noqa: ARG001 - pytest passes it by name
    """Return the scope of systems that the options choose."""
    return options.read_scope(config)


@pytest.fixture(scope=system_scope)
def nixproc_point(request: pytest.FixtureRequest) -> Point:
    """Return the current point of the matrix: manager, machine, profile, and the marker's model and params."""
    # pytest parametrizes no test that only asks for it when it runs, nor those of unittest.
    point: Point = request.param if hasattr(request, "param") else only_point(request)
    return point


@pytest.fixture(scope=system_scope)
def nixproc_manager(nixproc_point: Point) -> Manager:
    """Return the process manager of the current point of the matrix."""
    return nixproc_point.manager


@pytest.fixture(scope=system_scope)
def nixproc_profile(nixproc_point: Point) -> str:
    """Return the profile of the current point of the matrix."""
    return nixproc_point.profile


@pytest.fixture(scope=system_scope)
def nixproc_machine(request: pytest.FixtureRequest, nixproc_point: Point) -> Iterator[Machine]:
    """Return the machine of the current point of the matrix; a throwaway one is booted, and gone at the end."""
    from pytest_nixproc._plugin.session import session_of

    with ExitStack() as stack:
        with as_failure():
            machine = stack.enter_context(session_of(request.config).machine_at(nixproc_point))
        yield machine
        with as_failure(request.config):
            stack.close()


@pytest.fixture(scope=system_scope)
def nixproc_model(request: pytest.FixtureRequest, nixproc_point: Point) -> ModelLike | None:
    """Return the model to deploy: the marker's, else that of ``--nixproc-model``. Override it to choose another.

    A path, a function like ``processes()``, a ProcessesModel, or a mapping of names to instances. An override needs a
    scope at least as wide as that of ``nixproc_system``.
    """
    if nixproc_point.model is not None:
        return nixproc_point.model
    path = options.read(request.config, "model")
    return str(request.config.invocation_params.dir / path) if path else None


@pytest.fixture(scope=system_scope)
def nixproc_system(
    request: pytest.FixtureRequest,
    nixproc_point: Point,
    nixproc_machine: Machine,
    nixproc_model: ModelLike | None,
) -> Iterator[System]:
    """Deploy the model, hand out the running system, and take it down with nothing left."""
    from pytest_nixproc._plugin.deployer import deployer_of

    deployer = deployer_of(request.config)
    with ExitStack() as stack:
        with as_failure():
            used = deployer.used(nixproc_point, nixproc_machine, nixproc_model, directory_of(request))
            system = stack.enter_context(used)
        yield system
        with as_failure(request.config):
            stack.close()


@pytest.fixture(scope=system_scope)
def nixproc_state(nixproc_system: System) -> StateDirs:
    """Return the state directories of the deployed system."""
    return nixproc_system.state


@pytest.fixture
def nixproc_deploy(
    request: pytest.FixtureRequest,
    nixproc_point: Point,
    nixproc_machine: Machine,
    nixproc_model: ModelLike | None,
) -> Deploy:
    """Return a function that deploys a model for the time of a ``with`` block.

    ``with nixproc_deploy(model, params={...}) as system``: errors of the deployment are raised as they are. Without a
    model it is that of ``nixproc_model``.
    """
    from pytest_nixproc._plugin.deployer import deployer_of

    deployer, directory = deployer_of(request.config), directory_of(request)

    def deploy(
        model: ModelLike | None = None, *, params: Mapping[str, object] | None = None
    ) -> AbstractContextManager[System]:
        __tracebackhide__ = True
        load = deployer.load(nixproc_model if model is None else model, directory)
        return in_use(deployer.session, deployer.deployed(nixproc_point, nixproc_machine, load, params, directory))

    return deploy


@pytest.fixture
def nixproc_constructor(
    request: pytest.FixtureRequest, nixproc_point: Point, nixproc_machine: Machine
) -> ValidateConstructor:
    """Return a function that validates a constructor: instances of it are compared, deployed and restarted.

    ``with nixproc_constructor(webapp) as system``: at its beginning, what instances with different parameters have in
    common is an error, and they are deployed together; at its end, each is stopped and started alone. ``vary`` has the
    values of a parameter, one for each instance, as has the marker ``nixproc_vary``; ``shared`` the values that all
    instances get, as a mapping, or a function that is called like a model's and returns one.
    """
    from pytest_nixproc._plugin.constructor_trials import check_constructor, constructor_at, trial_of
    from pytest_nixproc._plugin.deployer import deployer_of

    deployer, directory = deployer_of(request.config), directory_of(request)
    marks = request.node.iter_markers("nixproc_vary")
    marked = {name: values for mark in marks for name, values in mark.kwargs.items()}

    @contextmanager
    def validated(
        constructor: str | Callable[..., Any],
        *,
        vary: Mapping[str, Sequence[object]] | None = None,
        shared: Mapping[str, object] | Callable[..., Mapping[str, object]] | None = None,
    ) -> Iterator[System]:
        __tracebackhide__ = True

        def compared() -> ConstructorTrial:
            made = constructor_at(deployer, nixproc_point, constructor, directory)
            trial = trial_of(made, {**marked, **(vary or {})}, shared)
            check_constructor(deployer, nixproc_point, trial)
            return trial

        load = without_our_frames(compared).load
        deployed = deployer.deployed(nixproc_point, nixproc_machine, load, directory=directory)
        with in_use(deployer.session, deployed) as system:
            yield system
            for name in system:
                without_our_frames(partial(system.assert_stops_alone, name))
            without_our_frames(system.assert_no_conflicts)

    return validated


@contextmanager
def in_use(session: Session, deployed: AbstractContextManager[System]) -> Iterator[System]:
    """Deploy a system for the time of a ``with`` block in a test.

    It is gone before the report of a test that has failed is made: what is to be told of it is noted before that.
    """
    from pytest_nixproc._plugin.reporting import note_failure

    __tracebackhide__ = True
    stack = ExitStack()
    system = without_our_frames(lambda: stack.enter_context(deployed))
    try:
        yield system
    except (Exception, pytest.fail.Exception):
        note_failure(session, system)
        raise
    finally:
        without_our_frames(stack.close)


def without_our_frames(action: Callable[[], Result]) -> Result:
    """Run an action; our errors lose our stack frames, and a teardown's error is chained to the test's own failure."""
    from pytest_nixproc._plugin.deployer import Planned
    from pytest_nixproc.errors import NixprocError, TeardownError

    __tracebackhide__ = True
    own_failure = sys.exc_info()[1]
    try:
        return action()
    except TeardownError as error:
        raise error.with_traceback(None) from own_failure
    except NixprocError as error:
        raise error.with_traceback(None) from None
    except Planned:
        pytest.skip("planned only")


def only_point(request: pytest.FixtureRequest) -> Point:
    """Return the one point of a test that pytest has not parametrized; fail it where the options choose several."""
    from pytest_nixproc._plugin.session import session_of

    item = request._pyfuncitem  # noqa: SLF001 - in a wider scope, there is no other way to the test
    with as_failure():
        found = session_of(request.config).matrix.parameters(item.get_closest_marker("nixproc"), item.path.parent)
    if len(found) != 1:
        chosen = f"{len(found)} points of the matrix ({', '.join(str(each.id) for each in found) or 'none'})"
        cause = "request.getfixturevalue and unittest.TestCase can have one system alone"
        remedy = "choose one manager, or let a test function name nixproc_system among its arguments"
        pytest.fail(f"this test is for {chosen}, and {cause}\nfix: {remedy}", pytrace=False)
    for mark in found[0].marks:
        pytest.skip(mark.kwargs["reason"])
    point: Point = found[0].values[0]
    return point


def directory_of(request: pytest.FixtureRequest) -> Path:
    """Return the directory that paths of models are relative to: that of the test, or the root for a whole session."""
    path: Path = request.node.path
    return path if path.is_dir() else path.parent


@contextmanager
def as_failure(config: pytest.Config | None = None) -> Iterator[None]:
    """Turn our errors into failures that show their text and no traceback of ours.

    When the session of ``config`` runs no test any more, nobody would report a failure: the problem is told at the end.
    """
    from pytest_nixproc._plugin.deployer import Planned
    from pytest_nixproc._plugin.session import session_of
    from pytest_nixproc.errors import NixprocError

    problem = ""
    try:
        yield
    except NixprocError as error:
        problem = "\n".join([str(error), *getattr(error, "__notes__", ())])
    except Planned:
        pytest.skip("planned only")
    if problem and config is not None and session_of(config).is_over:
        session_of(config).problems.append(problem)
    elif problem:
        raise pytest.fail.Exception(problem, pytrace=False) from None
