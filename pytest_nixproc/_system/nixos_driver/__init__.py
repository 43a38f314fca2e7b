"""The verbs of the NixOS test driver, and scripts that are written with them."""
