"""Programs that tests deploy: a probe that writes down its execution environment, and a program that misbehaves.

They need nothing but the standard library, and run under ``python -I -S``.
"""
