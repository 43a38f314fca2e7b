"""Bringing a model up, watching it, and bringing it down with nothing left."""
