"""The pytest plugin: options, fixtures, the matrix, and reports.

pytest imports this module in every session of its users, so it imports nothing but options; the rest is imported when
a test uses it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# The first one changes how those behind it are imported.
from pytest_nixproc._plugin import imports, options
from pytest_nixproc._plugin.fixtures import (
    nixproc_constructor,
    nixproc_deploy,
    nixproc_machine,
    nixproc_manager,
    nixproc_model,
    nixproc_point,
    nixproc_profile,
    nixproc_state,
    nixproc_system,
)
from pytest_nixproc._plugin.modules import is_test_module

if TYPE_CHECKING:
    from pytest_nixproc._plugin.session import Session

__all__ = [
    "nixproc_constructor",
    "nixproc_deploy",
    "nixproc_machine",
    "nixproc_manager",
    "nixproc_model",
    "nixproc_point",
    "nixproc_profile",
    "nixproc_state",
    "nixproc_system",
]

# Before anything imports the suites: their assertions are to show values, like those of any test.
pytest.register_assert_rewrite(*imports.REWRITTEN)

MARKERS = (
    "nixproc(model, managers, profile, params): how the nixproc fixtures deploy for this test",
    "nixproc_item(manager, instance, check): an item of a model file",
    "nixproc_vary(NAME=[VALUE, ...], ...): what the instances of nixproc_constructor get for a parameter",
    "nixproc_disturbs: an item of a model file that stops instances",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers; refuse options that cannot be fulfilled before anything runs."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    collect_constructors(config)
    for option in options.OPTIONS:
        if option.choices:
            options.read(config, option.name)
    if any(options.given(config, name) for name in ("manager", "require", "machine", "network", "profile")):
        session_of(config).matrix.refuse_missing()
    if options.read_flag(config, "share"):
        if options.read_scope(config) != "session":
            raise pytest.UsageError("--nixproc-share needs --nixproc-scope=session")
        if session_of(config).matrix.machine.throwaway:
            raise pytest.UsageError("--nixproc-share needs --nixproc-machine=host: other machines are not shared")
        # Every worker becomes a member of the run before the first of them runs a test.
        session_of(config)
    if any(options.given(config, name) for name in ("param", "start-timeout", "stop-timeout", "build-timeout")):
        _ = session_of(config).settings
    if any(options.given(config, name) for name in ("select", "ignore", "findings")):
        prepare_findings(config)


def prepare_findings(config: pytest.Config) -> None:
    """Raise for unknown rules and for reports that cannot be written; have the report written at the end."""
    from pytest_nixproc._plugin.settings import rules_of

    _, path = options.read_findings(config)
    session = session_of(config)
    rules_of(session.registry, session.settings)
    if path and not hasattr(config, "workerinput"):
        options.refuse_missing_directory(path)
        config.add_cleanup(partial(write_findings, config))


def collect_constructors(config: pytest.Config) -> None:
    """Collect the files that hold the constructors to validate, in place of all others if pytest was given none."""
    if options.given(config, "vary"):
        options.read_params(config, "vary")
    lines = options.read(config, "constructor").splitlines()
    if files := dict.fromkeys(options.file_and_name(line)[0] for line in lines):
        is_given = config.args_source is pytest.Config.ArgsSource.ARGS
        given = {config.invocation_params.dir / argument.partition("::")[0] for argument in config.args}
        others = [file for file in files if config.invocation_params.dir / file not in given]
        config.args = [*config.args, *others] if is_given else list(files)


def session_of(config: pytest.Config) -> Session:
    """Return the session of this pytest process; the first call imports all that an unused plugin does not need."""
    from pytest_nixproc._plugin import session

    return session.session_of(config)


def session_in_use(config: pytest.Config) -> Session | None:
    """Return the session of this pytest process if it exists already, or None."""
    import sys

    module = sys.modules.get("pytest_nixproc._plugin.session")
    return config.stash.get(module.KEY, None) if module else None


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Print the managers, if ``--nixproc-list-managers`` asks for them."""
    if not options.read_flag(config, "list-managers"):
        return None
    from pytest_nixproc._plugin.reporting import manager_lines
    from pytest_nixproc.errors import NixprocError

    registry = session_of(config).registry
    try:
        machine = registry.machine(options.read(config, "machine"))
    except NixprocError as error:
        raise pytest.UsageError(str(error)) from None
    for line in manager_lines(list(registry.managers.values()), machine):
        print(line)
    return 0


def pytest_report_header(config: pytest.Config) -> str:
    """Return the line of the report's header that names the chosen manager, machine, profile and model."""
    values = {name: options.read(config, name) for name in ("manager", "machine", "profile", "model")}
    return "nixproc: " + ", ".join(f"{name} {value}" for name, value in values.items() if value)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Collect model files as test modules."""
    others = yield
    is_given = parent.session.isinitpath(file_path) and not is_test_module(file_path, parent.config)
    if not is_given and not names_files(parent.config):
        return others
    from pytest_nixproc._plugin.suites import collected

    return collected(file_path, parent, others)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that uses a system at all points of the matrix."""
    if "nixproc_point" not in metafunc.fixturenames:
        return
    from pytest_nixproc.errors import NixprocError

    marker = metafunc.definition.get_closest_marker("nixproc")
    try:
        parameters = session_of(metafunc.config).matrix.parameters(marker, metafunc.definition.path.parent)
    except NixprocError as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {error}") from error
    scope = options.read_scope(metafunc.config)
    metafunc.parametrize("nixproc_point", parameters, indirect=True, scope=scope)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin with what a selected test will need; a worker of pytest-xdist is not told which tests it will run."""
    if (used := session_in_use(session.config)) and not hasattr(session.config, "workerinput"):
        from pytest_nixproc._plugin.warming import warm_up

        warm_up(used, session.items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Remember the sizes of all logs when a test begins."""
    if used := session_in_use(item.config):
        for system in used.live:
            used.live[system] = system.log_sizes()
    return (yield)


def watched(item: pytest.Item) -> Generator[None, object, object]:
    """Look at the end of a phase of a test whether an instance has ended that nobody stopped."""
    try:
        result = yield
    except (KeyboardInterrupt, pytest.exit.Exception):
        raise
    except BaseException as error:
        look_for_ends(item, has_failed=True)
        if sentence := scope_problem(str(error)):
            raise pytest.fail.Exception(sentence, pytrace=False) from None
        raise
    look_for_ends(item, has_failed=False)
    return result


def scope_problem(text: str) -> str:
    """Return in one sentence what pytest says of a fixture of the user that would outlive one of ours, or nothing."""
    found = re.match(r"ScopeMismatch: .*? the (\w+) scoped fixture (nixproc_\w+) with a (\w+) scoped request", text)
    if found is None:
        return ""
    own, name, wider = found.groups()
    return f"{name} lives for a {own}, and a fixture of scope {wider} asks for it\nfix: let --nixproc-scope be {wider}"


def look_for_ends(item: pytest.Item, *, has_failed: bool) -> None:
    """Fail a test for instances that have ended, unless it has failed already; that takes no time without a system."""
    used = session_in_use(item.config)
    if used is not None:
        used.test = item.nodeid
    if used is not None and used.live:
        from pytest_nixproc._plugin.ends import fail_for_ends

        fail_for_ends(used, item, has_failed=has_failed)


pytest_runtest_setup = pytest.hookimpl(wrapper=True)(watched)
pytest_runtest_call = pytest.hookimpl(wrapper=True)(watched)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: Any) -> None:
    """Remember the point for which fixtures are set up."""
    if fixturedef.argname == "nixproc_point":
        from pytest_nixproc._plugin.active_point import KEY, ActivePoint

        request.config.stash[KEY] = ActivePoint(fixturedef, request)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, None]:
    """Look for ends, and end what was set up for a point with its last test."""
    try:
        yield from watched(item)
    except (Exception, pytest.fail.Exception) as error:
        try:
            end_point(item, nextitem)
        except (Exception, pytest.fail.Exception) as other:  # noqa: BLE001 - both are raised
            raise BaseExceptionGroup("errors during test teardown", [error, other]) from None
        raise
    end_point(item, nextitem)


def end_point(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End what was set up for a point, if a test was its last one."""
    if session_in_use(item.config):
        from pytest_nixproc._plugin.active_point import KEY

        if active := item.config.stash.get(KEY, None):
            active.end_after(item, nextitem)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the systems' logs and statuses to the report of a failing test, of those too that are gone by now."""
    report = yield
    if used := session_in_use(item.config):
        if report.failed and (used.live or used.noted):
            from pytest_nixproc._plugin.reporting import note_failure

            for system in used.live:
                note_failure(used, system)
            report.sections += used.noted
        used.noted.clear()
    return report


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, None]:
    """Leave the systems that are shared with other workers, after all fixtures are torn down.

    After an interrupt, those are torn down only now: their problems are no test's, and told at the end.
    """
    used = session_in_use(session.config)
    if used:
        used.is_over = True
    yield
    if used and used.sharing:
        problems = used.leave_run()
        vars(session.config).get("workeroutput", {})["nixproc_problems"] = problems
    if used and hasattr(session.config, "workeroutput"):
        from pytest_nixproc.checks.output import facts_of

        facts = [facts_of(finding) for finding in used.findings.found.values()]
        session.config.workeroutput["nixproc_findings"] = json.dumps(facts)
        session.config.workeroutput["nixproc_warnings"] = list(used.findings.warnings)
    if used and used.problems and session.exitstatus != pytest.ExitCode.INTERRUPTED:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Make the controller a member of the run whose workers share systems, before its first worker is started."""
    if options.read_flag(node.config, "share"):
        session_of(node.config).control_run(node.workerinput["testrunuid"])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any | None:
    """Return a scheduler that gives all items of a model to one worker, or None where pytest-xdist's own will do."""
    from pytest_nixproc._plugin.distribution import SCOPES, ModelScheduling

    if config.getvalue("dist") not in SCOPES or not names_models(config):
        return None
    return ModelScheduling(config, log)


def names_models(config: pytest.Config) -> bool:
    """Tell whether the options or the arguments of pytest name model files."""
    if names_files(config):
        return True
    paths = [config.invocation_params.dir / argument.partition("::")[0] for argument in config.args]
    files = [path for path in paths if path.is_file() and not is_test_module(path, config)]
    if not files:
        return False
    from pytest_nixproc._plugin.suites import is_deployed

    return any(is_deployed(file, config, is_given=True) for file in files)


def names_files(config: pytest.Config) -> bool:
    """Tell whether options say which files hold models or constructors."""
    return any(options.given(config, name) for name in ("model-files", "constructor"))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add a worker's findings and teardown problems to those of the controller; with problems, the run has failed."""
    told = getattr(node, "workeroutput", {})
    if problems := told.get("nixproc_problems"):
        session_of(node.config).problems.extend(problems)
    if packed := told.get("nixproc_findings"):
        from pytest_nixproc.checks.output import finding_from

        session_of(node.config).findings.note(finding_from(facts) for facts in json.loads(packed))
    if warnings := told.get("nixproc_warnings"):
        session_of(node.config).findings.tell(*warnings)


def write_findings(config: pytest.Config) -> None:
    """Write the findings of the session into the file that was asked for."""
    from pytest_nixproc._plugin import reporting

    reporting.write_findings(session_of(config), *options.read_findings(config))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print plans, kept systems and findings."""
    if used := session_in_use(terminalreporter.config):
        from pytest_nixproc._plugin.reporting import summarize

        summarize(used, terminalreporter)
