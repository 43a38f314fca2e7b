"""The deployment engine: carries drafts out, and takes everything back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from pytest_nixproc.checks.api import Departure, Finding, Snapshot, errors_of
from pytest_nixproc.deployment.accounts import Accounts, open_to_users
from pytest_nixproc.deployment.assigner import Assigner
from pytest_nixproc.deployment.journal import Journal, begin, facts_of, recall
from pytest_nixproc.deployment.leases import Claim, Leases
from pytest_nixproc.deployment.neighbours import living, note_claims, without_ports
from pytest_nixproc.deployment.observation import Owners, listeners, observe, who_holds
from pytest_nixproc.deployment.ownership import Owner
from pytest_nixproc.deployment.plan import Profile, Step, steps_between
from pytest_nixproc.deployment.planner import Draft, Load, Planner
from pytest_nixproc.deployment.readiness import Subject
from pytest_nixproc.deployment.recovery import recovery_command
from pytest_nixproc.deployment.sharing import Share
from pytest_nixproc.deployment.site import Site
from pytest_nixproc.deployment.starting import LOG_TAIL, Watch, start_error
from pytest_nixproc.deployment.stopping import attempt, end_strays, stop_units
from pytest_nixproc.deployment.timeline import Timeline
from pytest_nixproc.deployment.traces import Traces
from pytest_nixproc.errors import ConflictError, DeploymentError, NixprocError, TeardownError, Unreachable
from pytest_nixproc.machines.api import Machine, Spawn, describe_status
from pytest_nixproc.machines.process_table import ancestors, descendants
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.api import Driver, Status, Unit
from pytest_nixproc.model.system import ProcessesModel

CLOSE_SECONDS: Final = 10.0
LEFT_TO_REAPER: Final = "{root} is kept until it is back; python -m pytest_nixproc reap removes what is left then"
POST_INSTALL_SECONDS: Final = 60.0

Present = Callable[[Draft], Mapping[str, Subject]]


class Deployment:
    """One system on one machine, under one manager: ``start`` it, use it, ``stop`` it.

    ``present`` makes, for a draft, the objects that conditions look at and tests see.
    """

    def __init__(self, planner: Planner, present: Present, leases: Leases, share: Share | None = None) -> None:
        self.planner = planner
        self.machine: Machine = planner.machine
        self.leases = leases
        self.share = share
        self.site = Site(share.root) if share else planner.choose_site()
        self.assigner = Assigner(leases, self.machine, self.site.root)
        self.accounts = Accounts(self.machine, leases, self.site.root)
        self.timeline = Timeline(self.machine.now)
        self.present = present
        self.running: list[str] = []
        self._boots = self.machine.boots
        self._pids: dict[str, int] = {}
        self._draft: Draft | None = None
        self._driver: Driver | None = None
        self._journal: Journal | None = None
        self._traces: tuple[ProcessesModel, Traces] | None = None
        self._claimed = False
        self._is_guest = False
        self._is_open = False
        self._out_of_reach = False

    @property
    def draft(self) -> Draft:
        """What is deployed."""
        assert self._draft is not None, "nothing is deployed before start()"
        return self._draft

    @property
    def driver(self) -> Driver:
        """The manager's driver."""
        assert self._driver is not None, "nothing is deployed before start()"
        return self._driver

    @property
    def journal(self) -> Journal:
        """The journal."""
        assert self._journal is not None, "nothing is deployed before start()"
        return self._journal

    @property
    def is_deployed(self) -> bool:
        """Tell whether there is something to stop."""
        return self._claimed

    def unit(self, name: str) -> Unit:
        """Return an instance as the manager knows it."""
        return self.draft.profile.units[name]

    def start(self, load: Load) -> None:
        """Bring a model up; on any problem, everything that was started is stopped before the error is raised.

        Raises the errors of the model's source, :class:`~pytest_nixproc.errors.ConflictError`,
        :class:`~pytest_nixproc.errors.DeploymentError` and its kinds, and
        :class:`~pytest_nixproc.errors.MachineError`.
        """
        guardian = self._guard()
        if self.share and not self.share.join(self.machine, guardian):
            self._attach(load)
            return
        with self._undone_on_error():
            self._claim(guardian)
            draft = self._draft = self._drafted(load)
            self._refuse_conflicts(draft)
            self._refuse_held_ports(draft.model)
            self._settle_in()
            self.driver.open(self.machine.deadline(self.planner.settings.start_seconds))
            self._is_open = True
            for step in draft.steps():
                self.carry_out(step)
            self._refuse_live_conflicts()
        if self.share:
            self.share.open()

    def _guard(self) -> Owner | None:
        """Give the deployment to a guardian, before anything is done for it."""
        pid = self.machine.guard(self.site.root, recovery_command(self.site.root))
        return Owner.of(pid) if pid else None

    def _claim(self, guardian: Owner | None) -> None:
        """Lease the deployment's place; that of a shared one is leased already."""
        self._claimed = True
        if not self.share:
            self.leases.claim(Claim(self.site.root, (self.assigner.owner,), guardian))

    def _drafted(self, load: Load) -> Draft:
        """Draft a model beside what others have on the machine."""
        others = without_ports(living(self.leases, self.machine, self.site.root))
        return self.planner.draft(load, self.site, self.assigner, others)

    def _attach(self, load: Load) -> None:
        """Use what another process has deployed, as its journal describes it."""
        record = recall(self.site.journal)
        if record is None:
            raise DeploymentError(f"the shared deployment {self.site.root} has no journal")
        self._is_guest = True
        self.assigner.adopt(record.assigned)
        self._draft = self.planner.draft(load, self.site, self.assigner)
        self._journal = Journal(self.site.journal)
        self._driver = self.planner.manager.driver(self.machine, self.draft.target)
        self.running = list(self.draft.model)
        self._is_open = self._claimed = True
        self.snapshot()

    def switch(self, load: Load) -> None:
        """Upgrade to another model; only instances whose configuration differs are stopped and started."""
        old, new = self.draft, self._drafted(load)
        self._refuse_conflicts(new)
        note_claims(self.journal, new)
        self.accounts.provide(new.model, new.target)
        new = self.planner.settled(new)
        new.model.provide(new.site.root)
        steps = steps_between(old.profile, new.profile)
        for step in steps:
            if step.verb == "stop":
                self.carry_out(step)
        self._draft = new
        with self._undone_on_error():
            self._clean(old.profile, new.profile)
            self._refuse_held_ports({name for step in steps if step.verb == "start" for name in step.names})
            self._write(new, old)
            self.driver.refresh(list(old.profile.units.values()), list(new.profile.units.values()))
            for step in steps:
                if step.verb == "start":
                    self.carry_out(step)
            self._refuse_live_conflicts()
        kept = {item.key for item in self.accounts.items(new.model, new.target)}
        if problems := self.accounts.release(kept):
            raise TeardownError(problems)

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Stop everything when the block fails; what goes wrong then becomes a note of the error."""
        try:
            with self._told_plainly():
                yield
        except BaseException as error:
            keep = self.planner.settings.keep_failed and self._journal is not None
            try:
                self.stop(keep_state=keep)
            except NixprocError as problem:
                error.add_note(str(problem))
            if keep:
                error.add_note(f"the state is kept in {self.site.root}")
            raise

    @contextmanager
    def _told_plainly(self) -> Iterator[None]:
        """Turn an error of the operating system into one of ours that says where: a full disk, most of all."""
        try:
            yield
        except OSError as error:
            brief = f"cannot deploy in {self.site.root}: {error.strerror or error}"
            details = f"file: {error.filename}" if error.filename else ""
            remedy = "make room there, or choose another --nixproc-state-root"
            raise DeploymentError(brief, details=details, remedy=remedy) from error

    def _refuse_conflicts(self, draft: Draft) -> None:
        for refusal in draft.refusals.values():
            raise refusal
        if errors := errors_of(draft.findings):
            raise ConflictError("the instances of this model would be in each other's way", errors)

    def _refuse_held_ports(self, names: Iterable[str]) -> None:
        """Raise for declared ports that somebody holds already, and say who."""
        for name in names:
            for place, port in self.draft.model[name].declared_ports.items():
                if not self.machine.port_is_free(port):
                    brief = f"{name} cannot have TCP port {port} (processes.{name}.{place}): {self._holder(port)}"
                    raise DeploymentError(brief, remedy="end that process, or choose another port")

    def _refuse_live_conflicts(self) -> None:
        """Look at what was started; errors end the deployment, unless whoever asked for it looks at them."""
        if self.planner.settings.tolerant:
            self.inspect()
        else:
            self.assert_no_conflicts()

    def _holder(self, port: int) -> str:
        """Say who holds a port."""
        everybody = self.machine.listeners(wanted={port})
        pids = [listener.pid for listener in everybody if (listener.protocol, listener.port) == ("tcp", port)]
        return " and ".join(dict.fromkeys(who_holds(self.machine, pid) for pid in pids)) or "it is in use"

    def _settle_in(self) -> None:
        """Make the directories, begin the journal, write the generated files."""
        draft = self.draft
        privileged = not draft.target.force_disable_user_change
        self._journal = self._make_site(draft.site, for_others=privileged)
        begin(self._journal, self.planner.manager.name, self.machine.name, draft.target)
        self._journal.write("assigned", facts=self.assigner.facts())
        note_claims(self._journal, draft)
        for directory in (*draft.target.state.all(), draft.target.directory):
            self.machine.make_directory(directory)
        if privileged:
            open_to_users(self.machine, draft.target)
        self.accounts.provide(draft.model, draft.target)
        draft = self._draft = self.planner.settled(draft)
        draft.model.provide(draft.site.root)
        self._write(draft)
        self._driver = self.planner.manager.driver(self.machine, draft.target)
        self._journal.write("open")

    def _make_site(self, site: Site, *, for_others: bool) -> Journal:
        """Make the deployment's directory, and the journal in it."""
        # What lies above the directory that a throwaway machine shares with the host is none of the machine's.
        shared = self.machine.place.directory
        site.make(for_others=for_others, within=os.path.dirname(shared) if shared else "/")
        try:
            return Journal(site.journal)
        except BaseException:
            # Without one, nobody would take the directory for a deployment's.
            site.remove()
            raise

    def _write(self, draft: Draft, before: Draft | None = None) -> None:
        """Write the generated files, and run what processes add to them; what is as it was has its additions."""
        fresh = [name for name in draft.model if not (before and is_as_before(name, draft, before))]
        own = {file.path for name in fresh for file in draft.profile.units[name].files}
        kept = set(before.files) if before else set()
        for file in draft.files:
            if file not in kept or file.path in own:
                self.machine.write(f"{draft.target.directory}/{file.path}", file.content, file.mode)
        for link in draft.links:
            self.machine.link(f"{draft.target.directory}/{link.path}", link.target)
        for name in fresh:
            if text := draft.model[name].pkg.post_install:
                self._post_install(name, text)

    def _clean(self, old: Profile, new: Profile) -> None:
        """Remove the generated files that a new profile does not have."""
        for path in old.paths() - new.paths():
            self.machine.remove(f"{self.draft.target.directory}/{path}")

    def _post_install(self, name: str, text: str) -> None:
        environment = {"PATH": self.machine.path_variable, "out": self.draft.target.directory}
        command = Spawn((self.machine.facts.shell, "-ec", text), environment)
        status, output = self.machine.capture(command, self.machine.deadline(POST_INSTALL_SECONDS))
        if status != 0:
            ending = "was killed at its time limit" if status is None else describe_status(status)
            raise DeploymentError(f"post_install of {name} {ending}", details=output[-LOG_TAIL:])

    def carry_out(self, step: Step) -> None:
        """Start or stop the instances of a step side by side; raises when that was not clean."""
        if step.verb == "start":
            self._start(step)
        elif problems := self._stop(step):
            raise TeardownError(problems)

    def _start(self, step: Step) -> None:
        units = {name: self.unit(name) for name in step.names}
        self.journal.write("start", units=[facts_of(unit) for unit in units.values()], reason=step.reason)
        self.running += step.names
        for name in step.names:
            self.timeline.add("start", name)
        watch = self._watch(step.names)
        deadline = self._start_deadline(step.names)
        problems = self.driver.activate(list(units.values()), deadline)
        for name, unit in units.items():
            if unit.name in problems:
                brief = f"{name} did not start: {problems[unit.name]}"
                raise start_error(self.driver, unit, self.draft.model[name], brief)
        watch.until_ready(deadline)

    def _watch(self, names: Iterable[str]) -> Watch:
        units = {name: self.unit(name) for name in names}
        subjects = self.present(self.draft)
        return Watch(self.draft.model, units, subjects, self.driver, self.timeline, self.planner.settings)

    def _start_deadline(self, names: Iterable[str]) -> Deadline:
        return self.machine.deadline(self._limit(names, "start_timeout", self.planner.settings.start_seconds))

    def await_ready(self, name: str) -> None:
        """Wait until an instance is ready again; raises :class:`~pytest_nixproc.errors.StartError`."""
        self._watch([name]).until_ready(self._start_deadline([name]))

    def _stop(self, step: Step) -> list[str]:
        units = {name: self.unit(name) for name in step.names}
        pids = {name: self._pids.pop(name) for name in step.names if name in self._pids}
        for name in step.names:
            self.timeline.add("stop", name)
        seconds = self._limit(step.names, "stop_timeout", self.planner.settings.stop_seconds)
        problems = stop_units(self.driver, units, pids, seconds)
        for name in step.names:
            self.timeline.add("stopped", name)
        self.running = [name for name in self.running if name not in step.names]
        return problems + attempt(lambda: self._note_stopped(units.values()))

    def _note_stopped(self, units: Iterable[Unit]) -> list[str]:
        """Write that units are stopped; what cannot be written must not end a teardown."""
        self.journal.write("stopped", units=[unit.name for unit in units])
        return []

    def _limit(self, names: Iterable[str], attribute: str, default: float) -> float:
        """Return the longest time that one of the instances is given."""
        return max(float(self.draft.model[name].attributes.get(attribute, default)) for name in names)

    def snapshot(self) -> Snapshot:
        """Look at the whole system once."""
        draft = self.draft
        told, traces = draft.told_pid_files, self._traces_of(draft.model)
        snapshot = observe(draft.model, draft.profile.units, self.driver, draft.target, draft.outside, told, traces)
        self._remember(
            {name: status.pid for name, status in snapshot.statuses.items() if status.running and status.pid}
        )
        return snapshot

    def _traces_of(self, model: ProcessesModel) -> Traces:
        """Return what is known of the paths that a model's programs name; they are read once."""
        if self._traces is None or self._traces[0] is not model:
            self._traces = model, Traces(model, self.machine)
        return self._traces[1]

    def _remember(self, pids: Mapping[str, int]) -> None:
        """Keep main processes in mind and in the journal, each with what tells it from a later one with its pid."""
        new = {name: pid for name, pid in pids.items() if self._pids.get(name) != pid}
        if new:
            identities = {self.unit(name).name: (pid, self.machine.identity(pid)) for name, pid in new.items()}
            self.journal.write("running", pids=identities)
            self._pids |= new

    def inspect(self) -> list[Finding]:
        """Hold the live rules against the system; return what they find."""
        findings = self.planner.live_findings(self.snapshot())
        self._draft = self.draft.with_findings(findings)
        return findings

    def judge(self, departure: Departure) -> list[Finding]:
        """Hold the leak rules against the stop of an instance; return what they find."""
        findings = self.planner.leak_findings(departure)
        self._draft = self.draft.with_findings(findings)
        return findings

    def assert_no_conflicts(self) -> None:
        """Hold the live rules against the system; raises :class:`~pytest_nixproc.errors.ConflictError`."""
        if errors := errors_of(self.inspect()):
            raise ConflictError("the running instances are in each other's way", errors)

    def statuses(self) -> dict[str, Status]:
        """Ask the manager about all instances at once."""
        units = self.draft.profile.units
        by_unit = self.driver.status(list(units.values()))
        return {name: by_unit[unit.name] for name, unit in units.items()}

    def status_of(self, name: str) -> Status:
        """Ask the manager about one instance."""
        status = self.driver.status([self.unit(name)])[self.unit(name).name]
        if status.running and status.pid:
            self._remember({name: status.pid})
        return status

    def pids_of(self, name: str) -> list[int]:
        """Return all processes of an instance, its main process first."""
        status = self.status_of(name)
        if not status.running or status.pid is None:
            return []
        owners = Owners(self.machine, self.draft.target, {status.pid: name})
        table = self.machine.parents()
        below = descendants([status.pid], table)
        # What stands above the main process is its manager's, like a foreground proxy.
        above = set(ancestors(status.pid, table))
        orphans = [pid for pid in self._strays() if pid not in above and owners.owner(pid) == name]
        members = self.driver.members(self.unit(name))
        return list(dict.fromkeys([status.pid, *below, *orphans, *members]))

    def left_of(self, name: str) -> list[int]:
        """Return the processes that name an instance as their own, whether or not it runs."""
        return [pid for pid in self._strays() if self.machine.has_tag(pid, f"NIXPROC_INSTANCE={name}")]

    def ports_of(self, name: str) -> set[int]:
        """Return the TCP ports that an instance's processes listen on, or that are forwarded to them."""
        pids = set(self.pids_of(name))
        statuses = self.driver.status([self.unit(name)])
        found = listeners(self.driver, statuses, pids)
        return {listener.port for listener in found if listener.pid in pids and listener.protocol == "tcp"}

    def stop(self, *, keep_state: bool = False) -> None:
        """Take everything down in reverse order and remove the state, unless it is to be kept.

        Goes on past problems, and raises :class:`~pytest_nixproc.errors.TeardownError` with all of them at the end.
        Does nothing when nothing is deployed.
        """
        if self.is_deployed:
            with self.planner.settings.uninterrupted():
                self._undo(keep_state=keep_state)

    def _undo(self, *, keep_state: bool) -> None:
        problems: list[str] = []
        if self._journal is not None:
            problems += [] if self._is_gone else attempt(self._take_down)
            if self._is_gone:
                # How the machine came to be down is told by who has booted it, and is no problem of the system's.
                problems = []
                self._let_go()
            if not keep_state and not self._out_of_reach:
                problems += attempt(self._remove)
            if not self._out_of_reach and not self._is_gone:
                problems += attempt(self.accounts.release)
        problems += attempt(self._leave_to_reaper if self._out_of_reach else self._unclaim)
        if problems:
            # A manager that does not answer is told of once, however often it was asked.
            raise TeardownError(list(dict.fromkeys(problems)))

    @property
    def _is_gone(self) -> bool:
        """Tell whether the machine is down, or is not the one any more on which the system was started."""
        return not self.machine.is_up or self.machine.boots != self._boots

    def _let_go(self) -> None:
        """Have the driver drop what it holds of a system that is gone with its machine."""
        if self._driver is not None:
            attempt(self._close)

    def _take_down(self) -> list[str]:
        """Stop everything that runs; return what was not clean."""
        problems: list[str] = []
        for step in steps_between(self.draft.profile, Profile()):
            if names := tuple(name for name in step.names if name in self.running):
                problems += self._stop(Step("stop", names, step.reason))
        if self._driver is not None:
            problems += attempt(self._close)
            problems += attempt(self._remains) if self._is_open and not self._out_of_reach else []
        problems += attempt(lambda: end_strays(self.machine, self._strays))
        return problems + attempt(self._held_ports)

    def _strays(self) -> list[int]:
        """Return what is left of the deployment's processes; those of another process have to be looked for."""
        if self._is_guest:
            return self.machine.tagged(self.site.tag)
        return (self._driver or self.machine).strays(self.site.tag)

    def _close(self) -> list[str]:
        """Bring the manager down; where it does not answer, the rest is for who comes when it is back."""
        try:
            self.driver.close(self.machine.deadline(CLOSE_SECONDS))
        except Unreachable as error:
            self._out_of_reach = True
            return [str(error), LEFT_TO_REAPER.format(root=self.site.root)]
        return []

    def _remains(self) -> list[str]:
        """Return what the manager still has, where it has said that it is closed."""
        return [f"left after the teardown: {item}" for item in self.driver.remains()]

    def _held_ports(self) -> list[str]:
        """Return the declared ports that are not free again, with who holds them."""
        return [
            f"TCP port {port} of {name} is still held: {self._holder(port)}"
            for name, instance in self.draft.model.items()
            for port in instance.declared_ports.values()
            if not self.machine.port_is_free(port)
        ]

    def _remove(self) -> list[str]:
        """Remove the deployment's directory."""
        if self.machine.is_up:
            self.machine.remove(self.site.root)
        else:
            self.site.remove()
        return []

    def _leave_to_reaper(self) -> list[str]:
        """Keep journal, leases and guardian: without them, nobody could find what the manager still has."""
        self.journal.close()
        self._journal = None
        self._claimed = False
        return []

    def _unclaim(self) -> list[str]:
        """End the journal and give the leases back."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self._claimed = False
        self.machine.unguard(self.site.root)
        self.assigner.release()
        self.site.leave()
        return []

    def abandon(self) -> None:
        """Leave the system running and its state in place; ``python -m pytest_nixproc stop`` takes it down."""
        self.leases.claim(Claim(self.site.root, (), kept=True))
        self.detach()

    def detach(self) -> None:
        """Leave the system running, to whoever else takes it down."""
        self.machine.release()
        self.machine.unguard(self.site.root)
        self.journal.close()
        self._journal = None
        self._claimed = False


def is_as_before(name: str, draft: Draft, before: Draft) -> bool:
    """Tell whether an instance has the files that it had in another draft, and adds the same to them."""
    if before.profile.units.get(name) != draft.profile.units[name]:
        return False
    return before.model[name].pkg.post_install == draft.model[name].pkg.post_install
