"""What the documentation shows works: its models, its tests, its output, its commands and its links."""

from __future__ import annotations

import configparser
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from pytest_nixproc._cli import main
from pytest_nixproc._registry import Registry
from pytest_nixproc.checks.output import as_json, finding_from
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.api import Manager

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
RECORDS: Final = ROOT / "docs" / "adr"
FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED: Final = re.compile(r"# (\S+\.(?:py|yaml))\n")
FAULTY: Final = "conflict.py"
"""The model of the README that is shown for what is wrong with it."""

REGISTRY: Final = Registry()
MANAGERS: Final = list(REGISTRY.managers.values())
PRESENT: Final = [manager for manager in MANAGERS if not manager.unavailable_reason(Host)]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language."""
    return [text for kind, text in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def files(page: Path) -> dict[str, str]:
    """Return the blocks of a page that are files, by the names in their first lines."""
    named = {}
    for text in (*blocks(page, "python"), *blocks(page, "yaml")):
        if name := NAMED.match(text):
            named[name[1]] = text
    return named


def pages_with(what: str) -> list[Path]:
    """Return the pages that hold a file in whose text there is ``what``."""
    return [page for page in PAGES if any(what in text for text in files(page).values())]


def page_id(page: Path) -> str:
    """Return how a page is called in a test's id."""
    return page.relative_to(ROOT).as_posix()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses at this moment."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def port_arguments(model: str) -> Iterator[str]:
    """Yield the options that give a model ports which are free here, in place of those that a reader has."""
    names = re.findall(r"(\w*port)=\d+", model.split("def processes(", maxsplit=1)[1].split(")", maxsplit=1)[0])
    for name, port in zip(names, free_ports(len(names)), strict=True):
        yield f"--nixproc-param={name}={port}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_python_block_is_a_file(page: Path) -> None:
    """A Python block names its file, so that these tests execute it, and holds no syntax error."""
    for text in blocks(page, "python"):
        name = NAMED.match(text)
        assert name, f"a block without a file's name: {text[:80]!r}"
        compile(text, name[1], "exec")


@pytest.mark.parametrize("page", pages_with("processes"), ids=page_id)
def test_models_can_be_deployed(page: Path, pytester: pytest.Pytester) -> None:
    """Each model of a page is read, has no conflicts, and every manager has files for it."""
    pytester.makepyfile("def test_system(nixproc_system): pass")
    for name, text in files(page).items():
        (pytester.path / name).write_text(text, encoding="utf-8")
        if name != FAULTY and ("def processes(" in text or "\nprocesses:\n" in text):
            arguments = ["--nixproc-plan", "--nixproc-manager=all", f"--nixproc-model={name}"]
            result = pytester.runpytest(*arguments, "test_models_can_be_deployed.py")
            for manager in MANAGERS:
                result.stdout.fnmatch_lines([f"{manager.name}: *{name}, in *", "  1. start *", "         writes *"])
            assert " error: " not in result.stdout.str()


def pages_on_managers() -> list[Any]:
    """Return each page with one manager, in turn; and with the others, which is only tried at length."""
    return [
        pytest.param(
            page,
            manager,
            id=f"{page_id(page)}-{manager.name}",
            marks=() if place == number % len(PRESENT) else pytest.mark.long,
        )
        for number, page in enumerate(pages_with("def test_"))
        for place, manager in enumerate(PRESENT)
    ]


@pytest.mark.parametrize(("page", "manager"), pages_on_managers())
def test_tests_pass(page: Path, manager: Manager, pytester: pytest.Pytester) -> None:
    """The tests of a page pass, run with its model and nothing else, but those that show a failure."""
    shown = files(page)
    for name, text in shown.items():
        (pytester.path / name).write_text(text, encoding="utf-8")
    (pytester.path / "test_broken.py").unlink(missing_ok=True)
    # A page without a model has tests that bring their own.
    arguments = port_arguments(shown.get("processes.py", "def processes()"))
    result = pytester.runpytest_subprocess(f"--nixproc-manager={manager.name}", *arguments)
    expected = sum(text.count("\ndef test_") for name, text in shown.items() if name != "test_broken.py")
    result.assert_outcomes(passed=expected)


def test_readme_shows_a_real_failure(pytester: pytest.Pytester) -> None:
    """What the README shows of a failing test is what pytest prints, but for numbers and dates."""
    shown = files(ROOT / "README.md")
    for name, text in shown.items():
        (pytester.path / name).write_text(text, encoding="utf-8")
    result = pytester.runpytest_subprocess("test_broken.py", *port_arguments(shown["processes.py"]))
    result.assert_outcomes(failed=1)
    assert_shown(blocks(ROOT / "README.md", "text")[0], result.outlines)


def test_readme_shows_a_real_refusal(pytester: pytest.Pytester) -> None:
    """What the README shows of a model with a conflict is what pytest prints about that model."""
    pytester.makepyfile(conflict=files(ROOT / "README.md")[FAULTY])
    assert_error_shown(1, FAULTY, pytester)


def test_readme_shows_a_real_death(pytester: pytest.Pytester) -> None:
    """What the README shows of a program that dies at its start is what pytest prints."""
    pytester.makepyfile(
        processes="""
        from pytest_nixproc import Instance, create_managed_process

        def processes(port):
            text = "echo cannot read the settings; exit 3"
            web = create_managed_process(name="web", foreground_process="/bin/sh", args=["-c", text])
            return {"web": Instance(web, port=port)}
        """
    )
    assert_error_shown(2, "processes.py", pytester)


def assert_error_shown(number: int, model: str, pytester: pytest.Pytester) -> None:
    """Fail unless one of the README's texts is the error of a model."""
    pytester.makepyfile("def test_web(nixproc_system): pass")
    (port,) = free_ports(1)
    result = pytester.runpytest_subprocess(f"--nixproc-model={model}", f"--nixproc-param=port={port}")
    result.assert_outcomes(errors=1)
    assert_shown(blocks(ROOT / "README.md", "text")[number], result.outlines)


def test_readme_shows_a_matrix() -> None:
    """What the README shows of a test with all managers names those that there are, in their order."""
    (shown,) = [text for text in blocks(ROOT / "README.md", "console") if "--nixproc-manager=all" in text]
    names = re.findall(r"\[([\w-]+)\] (?:PASSED|SKIPPED)", shown)
    assert names == [name for name in REGISTRY.managers if name in names]


def test_model_page_shows_real_faults(pytester: pytest.Pytester) -> None:
    """What the page about models shows of a faulty one is what pytest prints."""
    pytester.makepyfile("def test_system(nixproc_system): pass")
    (pytester.path / "processes.yaml").write_text(
        "processes:\n  database: {pkg: {name: database, process: /bin/db}}\n"
        "  web: {pkg: {name: web, process: /bin/web, umask: 22, dependencies: [database1]}}\n"
    )
    result = pytester.runpytest("--nixproc-model=processes.yaml")
    result.assert_outcomes(errors=1)
    printed = [line.replace(f"{pytester.path}/", "") for line in result.outlines]
    assert_shown(blocks(ROOT / "docs" / "model.md", "text")[0], printed)


def test_nix_page_shows_the_example() -> None:
    """The test definition that the page about Nix shows is that of the example, which its tests run."""
    (shown,) = [text for text in blocks(ROOT / "docs" / "nix.md", "nix") if "testService {" in text]
    assert shown == (ROOT / "examples" / "webapps-nix" / "suite.nix").read_text(encoding="utf-8")


def test_checks_page_shows_real_json() -> None:
    """What the page about checks shows of a finding as JSON is what is written of such a finding."""
    (text,) = blocks(ROOT / "docs" / "checks.md", "json")
    shown = json.loads(text)
    rules = [rule for rule in REGISTRY.rules if rule.code == "NP101"]
    assert shown == json.loads(as_json([finding_from(facts) for facts in shown["findings"]], rules))


def assert_shown(block: str, lines: list[str]) -> None:
    """Fail unless the lines of a block are among ``lines``, in this order; numbers, ids and rulers may differ."""
    remaining = iter([normalised(line) for line in lines])
    for line in block.splitlines():
        assert normalised(line) in remaining, f"not printed, or not in this order: {line!r}"


def normalised(line: str) -> str:
    """Return a line without what differs from run to run."""
    line = re.sub(r"/\S*/nixproc-\d+/\w+", "SITE", line)
    line = re.sub(r"\d+/\w{3}/\d+", "DATE", line)
    line = re.sub(r"^[_-]+ (.*) [_-]+$", r"-- \1 --", line)
    return re.sub(r"\d+", "0", line).rstrip()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the project names one that exists, and a heading that it has."""
    for target in re.findall(r"\]\((?!\w+://)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(linked), f"{target}: no such heading"


def anchors(page: Path) -> set[str]:
    """Return the anchors that the headings of a page have."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_page_is_linked_from_the_readme() -> None:
    """Nobody has to guess that a page of the documentation exists; a folder's pages are linked from its own README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    records = (RECORDS / "README.md").read_text(encoding="utf-8")
    unlinked = [page for page in PAGES[1:] if page.parent != RECORDS and f"({page_id(page)})" not in readme]
    assert [*unlinked, *(page for page in RECORDS.glob("0*.md") if f"({page.name})" not in records)] == []


@pytest.mark.parametrize("record", sorted(RECORDS.glob("0*.md")), ids=page_id)
def test_records_have_one_form(record: Path) -> None:
    """A decision record has its number, its date, and a section for each question that a reader has."""
    text = record.read_text(encoding="utf-8")
    assert text.startswith(f"# {int(record.name[:4])}. ")
    assert re.search(r"^Accepted on \d{4}-\d\d-\d\d(, amended on \d{4}-\d\d-\d\d)?\.$", text, re.MULTILINE)
    sections = ["Context", "Decision", "Alternatives", "Consequences"]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == sections


def test_help_is_the_documented_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The page on commands shows the help of ``nixproc`` as it is printed."""
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        main(["--help"])
    (shown,) = blocks(ROOT / "docs" / "commands.md", "console")
    assert shown.splitlines() == ["$ nixproc --help", *capsys.readouterr().out.splitlines()]


def test_readme_has_the_command_that_ci_runs() -> None:
    """The README's second command is the one by which ``.ci/run`` runs the suite."""
    first, second = [line for line in blocks(ROOT / "README.md", "sh")[0].splitlines() if line.startswith("python3")]
    assert second in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert first == f"{second} examples/first"


def test_contributing_has_the_packages_that_ci_installs() -> None:
    """Who installs what CONTRIBUTING names has what ``.ci/packages`` installs."""
    (command,) = [text for text in blocks(ROOT / "CONTRIBUTING.md", "sh") if text.startswith("apt-get install")]
    script = (ROOT / ".ci" / "packages").read_text(encoding="utf-8")
    packages = re.search(r"^readonly PACKAGES=\((.*?)^\)$", script, re.DOTALL | re.MULTILINE)
    assert packages
    assert command.replace("\\", "").split()[2:] == packages[1].split()


def test_readme_shows_a_matrix_of_ci() -> None:
    """The managers in the README's snippet are those of our own continuous integration that usual runners have."""
    snippet = next(yaml.safe_load(text) for text in blocks(ROOT / "README.md", "yaml"))
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    matrices = {name: job["strategy"]["matrix"] for name, job in workflow["jobs"].items() if "strategy" in job}
    assert snippet["strategy"]["matrix"]["manager"] == matrices["conformance"]["manager"]


def test_contributing_has_the_commands_of_tox() -> None:
    """Each environment of tox that CONTRIBUTING names exists, and each that exists is named."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    sections = {name.removeprefix("testenv:") for name in tox.sections() if name.startswith("testenv:")}
    named = set(re.findall(r"tox -e (\w+)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert sections <= named
    assert all(name in sections or name in tox["tox"]["env_list"] or re.fullmatch(r"py\d+", name) for name in named)
