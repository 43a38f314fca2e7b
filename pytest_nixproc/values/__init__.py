"""Frozen values that packages exchange; these modules import nothing of this project but each other."""
