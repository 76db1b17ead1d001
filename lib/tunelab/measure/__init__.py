"""Measuring: `metrics` and their intervals, `evaluation` of a run against its base on the rows that `pool` picks,
`forgetting`; what a tuning changed, row by row (`changes`); every technique on one `ladder`, which `climb` trains;
`pages` and `charts` to read it all. Uses `answer` and `run`.
"""
