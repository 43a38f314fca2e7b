"""The deployment of a model: its start, its readiness, and its teardown with nothing left."""
