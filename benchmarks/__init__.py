"""Figures of the project, each printed by a command: `python -m benchmarks.NAME [--json]`."""
