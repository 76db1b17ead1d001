"""Measuring: `metrics`, `statistics` that say whether a difference is real, `evaluation` of a run against its base on
the rows that `pool` picks, `forgetting`; `changes` between the answers of base and tuned; `votes` of people who saw
both; every technique on one `ladder`, which `climb` trains; `card`, a run as one page; `pages` and `charts` to read it
all, `pictures` to teach with. Uses `answer`, `run`.
"""
