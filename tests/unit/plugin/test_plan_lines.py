"""The lines of a plan about the directories and files that a process has in the state."""

from __future__ import annotations

from dataclasses import replace

from pytest_nixproc import Instance, Manager, ProcessesModel, create_managed_process
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc._plugin.reporting import plan_lines
from pytest_nixproc.values.target import Target


def lines(manager: Manager, target: Target) -> list[str]:
    """Return the lines of a plan for a process with a directory and a secret file."""
    pkg = create_managed_process(
        name="web",
        process="/bin/web",
        user="web",
        credentials={"groups": {"log": {}, "web": {}}, "users": {"log": {"group": "log"}, "web": {"group": "web"}}},
        directories={f"{target.state.lib_dir}/web": {"mode": "0750", "user": "log", "group": "log"}},
        files={f"{target.state.lib_dir}/web/key": {"text": "correct horse", "secret": True}},
    )
    plan = Plan.generated(manager, DeploymentDirectory("/srv"), target, ProcessesModel({"web": Instance(pkg)}))
    return [line.strip() for line in plan_lines(manager, plan, whole=True)]


def test_owners_that_are_left_out_are_said(manager: Manager, target: Target) -> None:
    """Where users are not changed, a plan says which owner of the model is left out; a secret is masked."""
    told = lines(manager, target)
    assert "makes /srv/state/lib/web (mode 0750), which is of who deploys in this profile" in told
    assert "writes /srv/state/lib/web/key (mode 0600)" in told
    assert told[told.index("/srv/state/lib/web/key (mode 0600):") + 1] == "| ********"


def test_owners_are_said(manager: Manager, target: Target) -> None:
    """Where users are changed, a plan says whose everything will be."""
    told = lines(manager, replace(target, force_disable_user_change=False))
    assert "makes /srv/state/lib/web (mode 0750, of log:log)" in told
    assert "writes /srv/state/lib/web/key (mode 0600, of web:web)" in told
