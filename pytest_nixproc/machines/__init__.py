"""Machines, on which processes run: the only package that spawns, signals, sleeps and reads the clock."""
