"""Container images from a model."""
