"""``python -m pytest_nixproc.testing.conformance DIR``: print the table of results that runs have written there."""

import sys

from pytest_nixproc.testing.conformance.results import print_tables

if __name__ == "__main__":
    print_tables(*sys.argv[1:])
