"""Programs that are deployed by tests: a probe of what programs are given, and programs that misbehave.

They need nothing but the standard library, and run under ``python -I -S``.
"""
