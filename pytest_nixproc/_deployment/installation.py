"""The installation of a deployment, before anything is started: its directory, generated files, and accounts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pytest_nixproc._deployment.accounts import AccountProvisioner, change_files
from pytest_nixproc._persistence.directory import PASSABLE, DeploymentDirectory
from pytest_nixproc._persistence.journal import Journal, begin
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._planning.other_deployments import note_claims
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc._planning.steps import UnitSet
from pytest_nixproc.errors import DeploymentError, Unremovable
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.values.commands import OUTPUT_TAIL, RUN_TEXT, TEXT, Spawn, describe_status
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

POST_INSTALL_SECONDS: Final = 60.0
PRIVATE: Final = 0o600


class Installation:
    """The files and accounts of one deployment, in its directory."""

    def __init__(self, machine: Machine, directory: DeploymentDirectory, leases: Leases) -> None:
        self.machine = machine
        self.directory = directory
        self.accounts = AccountProvisioner(machine, leases, directory.root)
        self.rest = ""
        """What cannot be removed, once that is known."""

        self._journal: Journal | None = None

    @property
    def journal(self) -> Journal:
        """The journal of the deployment."""
        assert self._journal is not None, "there is no journal before there is a directory"
        return self._journal

    def join(self) -> None:
        """Use the directory that another process has made."""
        self._journal = Journal(self.directory.journal)

    def make_root(self, target: Target) -> None:
        """Make the directory, and the journal in it; others pass through where processes may become others."""
        # What lies above the directory that a throwaway machine shares with the host is none of the machine's.
        shared = self.machine.spec.directory
        within = None if target.force_disable_user_change else os.path.dirname(shared) if shared else "/"
        self.directory.make(for_others=target.serves_others, within=within)
        try:
            self._journal = Journal(self.directory.journal)
        except BaseException:
            # Without one, nobody would take the directory for a deployment's.
            self.directory.remove()
            raise

    def announce(self, plan: Plan, manager: str, assigned: Mapping[str, Any]) -> None:
        """Write the beginning of the journal: manager, machine, assigned ids and ports, and claims of the plan."""
        begin(self.journal, manager, self.machine.name, plan.target)
        self.journal.write("assigned", facts=assigned)
        self.note(plan)

    def note(self, plan: Plan) -> None:
        """Write the claims of a plan into the journal for other deployments, before any of it exists."""
        note_claims(self.journal, plan)

    def make_directories(self, plan: Plan) -> None:
        """Make the directories of the state, and that of the generated files."""
        for directory, mode in directory_modes(plan.target).items():
            self.machine.files.make_directory(directory, mode)

    def provide(self, plan: Plan) -> None:
        """Make the accounts that a model names, and show the machine the paths of this host that it names."""
        own = (f"{plan.target.state.state_dir}/", f"{plan.directory.root}/")
        processes = (instance.pkg for instance in plan.model.values())
        # Most machines see everything, and do not look for paths in all the texts of a model.
        paths = (path for each in processes for path in each.named_paths(*each.commands))
        self.machine.files.show(path for path in paths if not f"{path}/".startswith(own))
        self.accounts.provide(plan.model, plan.target)

    def write(self, plan: Plan, before: Plan | None = None) -> None:
        """Write the generated files, and run the ``post_install`` of all instances that are new or have changed."""
        fresh = [name for name in plan.model if not (before and is_as_before(name, plan, before))]
        own = {file.path for name in fresh for file in plan.unit_set.units[name].files}
        kept = set(before.files) if before else set()
        groups: dict[str, list[str]] = {}
        for file in plan.files:
            if file not in kept or file.path in own:
                self.machine.files.write(f"{plan.target.directory}/{file.path}", file.content, file.mode)
                groups.setdefault(file.group, []).append(f"{plan.target.directory}/{file.path}")
        for group, paths in groups.items():
            if group:
                change_files(self.machine, ("chgrp", "--", group, *paths), f"chgrp to {group!r}")
        for link in plan.links:
            self.machine.files.link(f"{plan.target.directory}/{link.path}", link.target)
        self._provide_state(plan, [plan.unit_set.units[name] for name in fresh], before)
        self._make_logs(plan, fresh)
        for name in fresh:
            if text := plan.model[name].pkg.post_install:
                self._post_install(name, text, plan.target)

    def _provide_state(self, plan: Plan, units: Sequence[Unit], before: Plan | None) -> None:
        """Make the directories and files that programs find in the state, and remove those of an earlier plan."""
        directories = [entry for unit in units for entry in unit.state_directories]
        files = [entry for unit in units for entry in unit.state_files]
        obsolete = state_files_of(before) - state_files_of(plan) if before else set()
        self.machine.files.provide(plan.target.state.state_dir, directories, files, sorted(obsolete))

    def _make_logs(self, plan: Plan, names: Iterable[str]) -> None:
        """Make logs that their managers would make for everybody to read, where others can come that far."""
        if not (plan.target.serves_others and plan.target.force_disable_user_change):
            return
        for log_file in (plan.unit_set.units[name].log_file for name in names):
            if plan.target.state.contains(log_file) and not self.machine.files.exists(log_file):
                self.machine.files.write(log_file, "", PRIVATE)

    def _post_install(self, name: str, text: str, target: Target) -> None:
        environment = {"PATH": self.machine.facts.path_variable, "out": target.directory, TEXT: text}
        # Only users that the model names have a reason to read what it makes.
        privately = "umask 077\n" if target.force_disable_user_change else ""
        command = Spawn((self.machine.facts.shell, "-ec", privately + RUN_TEXT), environment)
        status, output = self.machine.processes.capture(command, self.machine.deadline(POST_INSTALL_SECONDS))
        if status != 0:
            ending = "was killed at its time limit" if status is None else describe_status(status)
            raise DeploymentError(f"post_install of {name} {ending}", details=output[-OUTPUT_TAIL:])

    def clean(self, old: UnitSet, new: UnitSet) -> None:
        """Remove the generated files that a new profile does not have."""
        for path in old.paths() - new.paths():
            self.machine.files.remove(f"{self.directory.profile}/{path}")

    def remove(self) -> list[str]:
        """Remove the directory; return what stays of it."""
        try:
            if self.machine.lifecycle.is_up:
                self.machine.files.remove(self.directory.root)
            else:
                self.directory.remove()
        except Unremovable as error:
            self.rest = str(error)
        return [self.rest] if self.rest else []


def state_files_of(plan: Plan) -> set[str]:
    """Return the paths of all files that a plan has in the state."""
    return {file.path for unit in plan.unit_set.units.values() for file in unit.state_files}


def directory_modes(target: Target) -> Mapping[str, int]:
    """Return the directories to make, in this order, each with its mode."""
    state = target.state
    if target.force_disable_user_change:
        # A server that drops root by itself passes through to what it owns, and nobody looks around.
        return dict.fromkeys((*state.all(), target.directory), PASSABLE)
    # The modes that the original gives them where users are changed.
    return {**dict.fromkeys((*state.all(), target.directory), 0o755), state.tmp_dir: 0o1777}


def is_as_before(name: str, plan: Plan, before: Plan) -> bool:
    """Tell whether an instance has the files that it had in another plan, and adds the same to them."""
    if before.unit_set.units.get(name) != plan.unit_set.units[name]:
        return False
    return before.model[name].pkg.post_install == plan.model[name].pkg.post_install
