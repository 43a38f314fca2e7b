"""Shipped for third parties: what a process manager must do, and programs that make it hard.

Subclass :class:`~pytest_nixproc.testing.conformance.ManagerConformance` to run the suite on a manager of your own. It
is not imported here: the programs of this package run on a bare interpreter, without pytest.
"""
