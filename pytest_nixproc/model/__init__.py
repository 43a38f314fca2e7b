"""The model of a system: frozen data, its validation, and the order that its dependencies require."""
