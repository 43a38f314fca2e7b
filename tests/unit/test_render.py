"""Generated files without a deployment: for all managers from one call, and the same everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc import Instance, ProcessesModel, StateDirs, create_managed_process, generated_files
from pytest_nixproc._registry import Registry
from pytest_nixproc.errors import SourceError, UnknownName
from pytest_nixproc.values.units import File

MODEL = """
from pytest_nixproc import Instance, create_managed_process

def processes(state, process_manager, free_port, greeting="none"):
    environment = {"GREETING": greeting, "MANAGER": process_manager}
    web = create_managed_process(name="web", process="/usr/bin/web", directory=state.lib_dir, environment=environment)
    proxy = create_managed_process(name="proxy", foreground_process="/usr/bin/proxy", dependencies=[web])
    return {"web": Instance(web, port=free_port("web")), "proxy": Instance(proxy)}
"""

SCRIPT = """
import sys
from pytest_nixproc import generated_files
for manager, files in generated_files(sys.argv[1], params={"greeting": "it's 100%"}).items():
    for file in files:
        print(manager, ascii(file))
"""


def test_all_managers_from_one_call(tmp_path: Path) -> None:
    """One call gives the files of every registered manager, whether or not it can run here."""
    (tmp_path / "processes.py").write_text(MODEL)
    found = generated_files(tmp_path / "processes.py", params={"greeting": "hello"})
    assert found.keys() == Registry().managers.keys()
    for manager, files in found.items():
        text = "".join(file.path + file.content for file in files if isinstance(file, File))
        for value in ("hello", manager, "/srv/nixproc/var", "/usr/bin/web", "/usr/bin/proxy"):
            assert value in text


def test_profile_of_the_model_is_that_of_the_files() -> None:
    """A model that asks for the profile is told the one that its files are made for: nobody changes users."""
    seen = []

    def processes(force_disable_user_change: bool) -> dict[str, Instance]:  # noqa: FBT001 - it is asked for by name
        seen.append(force_disable_user_change)
        return {}

    generated_files(processes, managers=["sysvinit"])
    assert seen == [True]


def test_same_bytes_each_time(tmp_path: Path) -> None:
    """Neither hashes, nor the working directory, nor variables, nor the machine's software show in the files."""
    (tmp_path / "processes.py").write_text(MODEL)
    outputs = set()
    for seed, directory in (("1", "/"), ("2", str(tmp_path))):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PATH": f"{directory}:/nowhere", "HOME": directory}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "processes.py")]
        done = subprocess.run(command, cwd=directory, env=environment, stdout=subprocess.PIPE, check=True)
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert sys.executable.encode() not in outputs.pop()


@pytest.mark.parametrize("form", ["mapping", "model", "function"])
def test_forms_of_a_model(form: str) -> None:
    """A model is given in any of its forms; managers are chosen by name."""

    def processes(state: StateDirs) -> dict[str, Instance]:
        assert state.state_dir == "/there/var"
        return instances

    instances = {"web": Instance(create_managed_process(name="web", foreground_process="/usr/bin/web"))}
    models: dict[str, Any] = {"mapping": instances, "model": ProcessesModel(instances), "function": processes}
    found = generated_files(models[form], managers=["sysvinit"], root="/there")
    assert list(found) == ["sysvinit"]
    assert [file.path for file in found["sysvinit"]] == ["etc/rc.d/init.d/web", "etc/rc.d/rc3.d/S00web"]


def test_what_is_no_model() -> None:
    """Anything else is refused with the forms that there are."""
    model: Any = 5
    with pytest.raises(SourceError, match="5 is no model") as caught:
        generated_files(model)
    assert caught.value.remedy.startswith("give a path, a function")


def test_unknown_manager() -> None:
    """A manager that nobody has registered is named."""
    with pytest.raises(UnknownName, match="unknown process manager 'upstart'"):
        generated_files({}, managers=["upstart"])
