"""The lease of a deployment on a shared machine: its directory, its ports and ids, and its guardian."""

from __future__ import annotations

from pytest_nixproc._deployment.problems import collect_problems
from pytest_nixproc._persistence.assigner import Assigner
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.journal import Journal, recall
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.owners import note_kept, sign
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc._persistence.recovery_command import recovery_command
from pytest_nixproc._persistence.shared_deployments import SharedDeployment
from pytest_nixproc._planning.other_deployments import running_deployments, without_ports
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc._planning.planner import LoadModel, Planner
from pytest_nixproc.errors import DeploymentError


class LeaseHolder:
    """The holder of one deployment's lease; with a ``share``, several processes of a run have one."""

    def __init__(self, planner: Planner, leases: Leases, share: SharedDeployment | None) -> None:
        self.planner = planner
        self.machine = planner.machine
        self.leases = leases
        self.share = share
        self.directory = DeploymentDirectory(share.root) if share else planner.allocate()
        self.assigner = Assigner(leases, self.machine, self.directory.root)
        self.guardian: ProcessIdentity | None = None

    @property
    def is_ours(self) -> bool:
        """Whether this process holds the lease, and is no child that was forked from the holder."""
        return self.assigner.owner == ProcessIdentity.current()

    def acquire(self) -> bool:
        """Give the deployment to a guardian, before anything is done for it; tell whether it is ours to start."""
        pid = self.be_guarded()
        self.guardian = ProcessIdentity.of(pid) if pid else None
        return self.share is None or self.share.join(self.machine, self.guardian)

    def be_guarded(self, seconds: float = 0) -> int | None:
        """Have a guardian recover the deployment, whose programs may take some seconds to stop; return its pid."""
        root = self.directory.root
        options = () if self.share else ("--alone",)
        return self.machine.lifecycle.guard(root, recovery_command(root, self.leases, *options), seconds)

    def take(self) -> None:
        """Lease the directory; that of a shared one is leased already."""
        if not self.share:
            self.leases.save(DeploymentLease(self.directory.root, (self.assigner.owner,), self.guardian))

    def sign(self, journal: Journal) -> None:
        """Write the owner into the journal, too: a lease may be cleaned up in a session of days."""
        sign(journal, self.guardian)

    def plan(self, load: LoadModel) -> Plan:
        """Plan a model beside the other deployments on the machine."""
        others = without_ports(running_deployments(self.leases, self.machine, self.directory.root))
        return self.planner.plan(load, self.directory, self.assigner, others)

    def joined(self, load: LoadModel) -> Plan:
        """Plan the deployment of another process, with the ids and ports of its journal."""
        record = recall(self.directory.journal)
        if record is None:
            raise DeploymentError(f"the shared deployment {self.directory.root} has no journal")
        self.assigner.adopt(record.assigned)
        return self.planner.plan(load, self.directory, self.assigner)

    def keep(self, journal: Journal) -> None:
        """Mark lease and journal as kept, so that people can look at the deployment."""
        self.leases.save(DeploymentLease(self.directory.root, (), kept=True))
        self.note_kept(journal)

    def note_kept(self, journal: Journal) -> None:
        """Mark the journal alone: the state stays, and nobody runs any more."""
        note_kept(journal)

    def leave(self) -> list[str]:
        """Keep journal, leases and guardian: without them, nobody could find remains in the manager or on the disk."""
        return []

    def leave_rest(self, rest: str) -> list[str]:
        """Let the lease alone tell of what cannot be removed: nobody tries again before people have done something."""
        self.leases.leave_rest(self.directory.root, rest, told=True)
        return self._unguarded()

    def give_back(self) -> list[str]:
        """Give back the leases, and only then the guardian, which goes on in our place if we are killed."""
        problems = collect_problems(self.assigner.release) + self._unguarded()
        self.directory.leave()
        return problems

    def _unguarded(self) -> list[str]:
        """Take the directory back from the guardian; one that was killed has nothing of it any more."""
        return collect_problems(lambda: self.machine.lifecycle.unguard(self.directory.root))
