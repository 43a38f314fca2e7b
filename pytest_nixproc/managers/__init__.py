"""Process managers, each with a pure generator, a driver, and its capabilities."""
