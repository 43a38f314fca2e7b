"""One file per process manager: a pure generator, a driver, and what the manager can do."""
