"""Secrets of instances: masked in every text for people, however it is quoted there, and never asked for in vain."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixproc import generated_files
from pytest_nixproc._plugin.findings_log import FindingsLog
from pytest_nixproc._plugin.secrets import SessionSecrets
from pytest_nixproc.errors import ModelError, NixprocError
from pytest_nixproc.managers.launch import environment_of
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.findings import Finding, Origin
from pytest_nixproc.values.masking import MASK, Secrets
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.tags import SECRETS
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import File

NASTY = 'aa1bb \'zz9z "xx8x" %(vv7v)s $UU6U \\tt5t <&> é'
"""Quoted differently by every syntax, and by most in more than one way."""

KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n'kqhkiG9w0B%AQE'\n-----END KEY-----\n"


def server(environment: dict[str, Any], **attributes: object) -> Instance:
    """Return an instance with an environment."""
    return Instance(create_managed_process(name="web", process="/bin/web", environment=environment), **attributes)


@pytest.mark.parametrize(
    ("secret", "parts"),
    [
        (NASTY, ["aa1bb", "zz9z", "xx8x", "vv7v", "UU6U", "tt5t"]),
        (KEY, ["MIIEvQIB", "kqhkiG9w0B"]),
        ("plain-secret", ["plain-secret"]),
    ],
)
def test_no_generated_file_shows_a_secret(secret: str, parts: list[str]) -> None:
    """Whatever a manager's syntax makes of a value, a mask is over it where the file is shown."""
    model = ProcessesModel({"web": server({"PASSWORD": secret, "OTHER": "shown"}, secrets=["PASSWORD"])})
    secrets = Secrets(model.secrets)
    for manager, files in generated_files(lambda: model).items():
        whole = "\n".join(file.content for file in files if isinstance(file, File))
        assert all(part in whole for part in parts), manager
        shown = secrets.masked(whole)
        assert "shown" in shown, manager
        assert not [part for part in parts if part in shown], manager


def test_longest_is_masked_first() -> None:
    """A secret that holds another one does not show the rest; a short line of one is in every text, and stays."""
    secrets = Secrets(frozenset({"secret", "secret-and-more", "a\nbcde"}))
    assert secrets.masked("say secret-and-more, secret, a, bcde") == f"say {MASK}, {MASK}, a, {MASK}"
    assert Secrets().masked("secret") == "secret"


def test_instance_is_shown_without_its_secrets() -> None:
    """The representation of an instance masks a value that an attribute repeats."""
    instance = server({"PASSWORD": "hunter22"}, secrets=["PASSWORD"], url="http://me:hunter22@localhost")
    assert repr(instance) == (
        f"Instance(<ManagedProcess 'web'>, secrets=['PASSWORD'], url='http://me:{MASK}@localhost')"
    )
    assert instance.url == "http://me:hunter22@localhost"


@pytest.mark.parametrize(
    ("secrets", "text"),
    [
        (["PASS_WORD"], "processes.web.secrets: holds 'PASS_WORD', which is no variable of its process"),
        ([7], "processes.web.secrets: holds 7, which is no variable of its process"),
        (7, "processes.web.secrets: is 7, which is not a list"),
    ],
)
def test_secret_that_is_none_is_refused(secrets: object, text: str) -> None:
    """A name that is not in the environment is an error: what it was meant for would be shown."""
    with pytest.raises(ModelError) as caught:
        ProcessesModel({"web": server({"PASSWORD": "hunter22"}, secrets=secrets)})
    assert text in str(caught.value)


def test_value_that_is_refused_is_not_shown() -> None:
    """The error about the value of a secret says what is wrong with it, and not what it is."""
    with pytest.raises(ModelError) as caught:
        ProcessesModel({"web": server({"PASSWORD": ["hunter22"]}, secrets=["PASSWORD"])})
    assert f"environment.PASSWORD: is {MASK}, which is" in str(caught.value)
    assert "hunter22" not in str(caught.value)


def test_processes_know_which_of_their_variables_are_secret() -> None:
    """The environment names them, so that whoever describes a process later needs no model; others have no mark."""
    process = server({"A": "1", "B": "2"}).pkg
    target = Target(StateDirs.under("/srv/var"), "/srv/profile")
    assert environment_of(process, "web", target, ("B", "A"))[SECRETS] == "A,B"
    assert SECRETS not in environment_of(process, "web", target)


def test_reports_are_masked() -> None:
    """The error of a test, its chain, its local variables and the captured output go nowhere with a secret in them."""
    secrets = SessionSecrets()
    secrets.confide({"hunter22"})
    report = report_of_failure()
    report.sections.append(("Captured stdout call", "it said hunter22\n"))
    before = report.longreprtext
    assert before.count("hunter22") >= 3
    secrets.pytest_runtest_logreport(report)
    assert report.longreprtext == before.replace("hunter22", MASK)
    assert report.sections == [("Captured stdout call", f"it said {MASK}\n")]


def report_of_failure() -> pytest.TestReport:
    """Return the report of a test that has failed with an error about an error."""
    try:
        try:
            int("hunter22")
        except ValueError as error:
            value = "hunter22"
            raise NixprocError(f"got {value}", details="hunter22 it was") from error
    except NixprocError as error:
        found = pytest.ExceptionInfo.from_exception(error)
    longrepr = found.getrepr(showlocals=True)
    return pytest.TestReport("test_it", ("test_it.py", 1, "test_it"), {}, "failed", longrepr, "call")


def test_findings_are_noted_without_secrets() -> None:
    """Problem, origins, remedy and warnings of a session are masked before anybody formats them."""
    log = FindingsLog()
    log.secrets.confide({"hunter22"})
    origins = (Origin("processes.web.url", "http://hunter22@x"), "said hunter22", Origin("processes.web.port", 80))
    log.note([Finding("NP101", "error", "hunter22 is bad", ("web",), origins, "not hunter22", "path /hunter22")])
    log.tell("warned of hunter22")
    (finding,) = log.found.values()
    assert "hunter22" not in str(finding) + finding.resource + "".join(log.warnings)
    assert finding.origins[2] == Origin("processes.web.port", 80)
