"""Measuring: `metrics` and their intervals, `evaluation` of a run against its base, `forgetting`; every technique on
one `ladder`, which `climb` trains; `pages` and `charts` to read it all. Uses `answer` and `run`.
"""
