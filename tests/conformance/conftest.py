"""The conformance suite's assertions are to show their values, like those of any test."""

import pytest

pytest.register_assert_rewrite("pytest_nixproc.testing.conformance")
