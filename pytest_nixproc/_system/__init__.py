"""The running system as tests use it: its instances, and the checks that can be made on them."""
