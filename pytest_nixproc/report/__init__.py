"""Reports on a model or on a run."""
