"""Inspection of a running system: one round over the machine for all instances."""
