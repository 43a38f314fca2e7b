"""Sources of models: readers of files that describe them."""
