"""``python -m pytest_nixproc.testing.conformance DIR``: print the table of results that runs have written there."""

import sys

from pytest_nixproc.testing.conformance.results import features_of, print_tables
from pytest_nixproc.testing.conformance.subjects import SUBJECTS

if __name__ == "__main__":
    (directory,) = sys.argv[1:]
    print_tables(directory, features_of(SUBJECTS))
