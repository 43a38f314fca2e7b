"""The lease of a deployment on a shared machine: its directory, its ports and ids, and its guardian."""

from __future__ import annotations

from pytest_nixproc._persistence.assigner import Assigner
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.journal import recall
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
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

    def acquire(self) -> bool:
        """Give the deployment to a guardian, before anything is done for it; tell whether it is ours to start."""
        pid = self.be_guarded()
        self.guardian = ProcessIdentity.of(pid) if pid else None
        return self.share is None or self.share.join(self.machine, self.guardian)

    def be_guarded(self, seconds: float = 0) -> int | None:
        """Have a guardian recover the deployment, whose programs may take some seconds to stop; return its pid."""
        root = self.directory.root
        return self.machine.lifecycle.guard(root, recovery_command(root, self.leases), seconds)

    def take(self) -> None:
        """Lease the directory; that of a shared one is leased already."""
        if not self.share:
            self.leases.save(DeploymentLease(self.directory.root, (self.assigner.owner,), self.guardian))

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

    def keep(self) -> None:
        """Mark the lease as kept, so that people can look at the deployment."""
        self.leases.save(DeploymentLease(self.directory.root, (), kept=True))

    def leave(self) -> list[str]:
        """Keep journal, leases and guardian: without them, nobody could find remains in the manager or on the disk."""
        return []

    def give_back(self) -> list[str]:
        """Give back the guardian, the leases and the directory."""
        self.machine.lifecycle.unguard(self.directory.root)
        self.assigner.release()
        self.directory.leave()
        return []
