"""What a tuning changed, row by row: `ranking`, `slices`, `words`, `rules` and `memorised` read the answers of base and
tuned model to the same rows (`AnsweredRow`), `cross` filters them, `diff` reads two texts, `scrub` the answers at each
evaluation of a run; `tokens` and `strength` ask the model itself. Uses `run`, `data`, `techniques` and `answer`.
"""

from tunelab.measure.changes.rows import AnsweredRow

__all__ = ["AnsweredRow"]
