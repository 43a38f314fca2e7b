"""The guardian that follows one that was killed: it is given everything that the other one had to guard."""

from __future__ import annotations

from pytest_nixproc.machines.guardian.connection import GuardianConnection


def successor_of(lost: GuardianConnection) -> GuardianConnection:
    """Start a guardian in the place of one that is gone, and hand over the deployments; return its connection.

    The kernel has given the processes below the other one to somebody else: they are found by their tag from now on.
    """
    lost.close()
    successor = GuardianConnection.start()
    successor.is_successor = True
    successor.exited |= lost.exited
    for root, (recovery, seconds) in lost.guarded.items():
        successor.guard(root, recovery, seconds)
    if lost.released:
        successor.release()
    return successor
