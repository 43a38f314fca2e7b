"""Pictures of a model or of a run."""
