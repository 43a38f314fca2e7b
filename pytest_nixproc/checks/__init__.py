"""Findings about a system: rules are functions of data, and do no I/O."""
