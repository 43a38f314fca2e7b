"""The arguments of models and the targets of generators, which describe the place of a deployment."""

from __future__ import annotations

import platform
import sys

from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.owners import own_text
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.model.accounts import named_groups, named_users
from pytest_nixproc.model.context import BuildTools, ModelContext
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.machine import Accounts
from pytest_nixproc.values.tags import DEPLOYMENT
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.value import Value


class Inputs(Value):
    """The maker of arguments and targets, from a machine, a manager and settings."""

    manager: str
    machine: Machine
    settings: Settings

    def context(self, directory: DeploymentDirectory) -> ModelContext:
        """Return the arguments that models can ask for."""
        return ModelContext(
            state=directory.state,
            process_manager=self.manager,
            force_disable_user_change=not self.settings.privileged,
            system=f"{platform.machine()}-{sys.platform}",
            params=self.settings.params,
            calling_user=self.machine.facts.account.user,
            calling_group=self.machine.facts.account.group,
            tools=self._tools(),
            id_resources=self.settings.id_resources,
            ids_file=self.settings.ids_file,
        )

    def _tools(self) -> BuildTools:
        """Return the tools for sources that run a program to read their models."""
        return BuildTools(
            run=lambda command, seconds: self.machine.processes.capture_beside_tests(
                command, self.machine.deadline(seconds)
            ),
            seconds=self.settings.build_seconds,
            may_download=self.settings.may_download,
            cache=self.settings.cache,
        )

    def target(self, directory: DeploymentDirectory, model: ProcessesModel) -> Target:
        """Return the target of generators; it has accounts only where processes can be switched to them."""
        accounts = Accounts(are_known=False)
        if self.settings.privileged and self.machine.lifecycle.is_up:
            accounts = self.machine.accounts.named(named_users(model), named_groups(model))
        return Target(
            state=directory.state,
            directory=directory.profile,
            identity=directory.identity,
            owner=own_text(),
            facts=self.machine.facts,
            tags={DEPLOYMENT: directory.root},
            stop_seconds=self.settings.stop_seconds,
            force_disable_user_change=not self.settings.privileged,
            accounts=accounts,
        )
