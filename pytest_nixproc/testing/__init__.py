"""Test tools for third parties: a conformance suite for process managers, a fake machine, and test programs.

Subclass :class:`~pytest_nixproc.testing.conformance.ManagerConformance` to run the suite on a manager of your own. It
is not imported here: the programs of this package run on a bare interpreter, without pytest.
"""
