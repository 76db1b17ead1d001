"""Is a difference real, and how large: `judge_all` gives a verdict in one sentence on every figure of two sides.

    sums → bootstrap (interval)             ┐
         → mcnemar, swapping (test)         ├→ difference → judging (Holm over all) → verdict
         → seeds (from run to run), power   ┘

`shares` has intervals and tests of few rows. `results` reads anybody's result files, `paired` judges them. Imports
scipy only where a function needs it. Uses `errors`, `data` and the intervals of `run`; no metric and no model.
"""

from tunelab.measure.statistics.bootstrap import Bootstrap, bootstrap_ratio, paired_bootstrap, resampled
from tunelab.measure.statistics.difference import ALPHA, Evidence, compared, compared_rates, compared_scores, weigh
from tunelab.measure.statistics.holm import holm
from tunelab.measure.statistics.judging import Measured, judge_all
from tunelab.measure.statistics.mcnemar import mcnemar_p, outcomes
from tunelab.measure.statistics.power import rows_needed, smallest_difference
from tunelab.measure.statistics.seeds import Spread, spread
from tunelab.measure.statistics.shares import fisher_p, paired_mean, wilson
from tunelab.measure.statistics.sums import Paired
from tunelab.measure.statistics.swapping import sign_flip_p, swap_p
from tunelab.measure.statistics.verdict import Baseline, Verdict

__all__ = [
    "ALPHA",
    "Baseline",
    "Bootstrap",
    "Evidence",
    "Measured",
    "Paired",
    "Spread",
    "Verdict",
    "bootstrap_ratio",
    "compared",
    "compared_rates",
    "compared_scores",
    "fisher_p",
    "holm",
    "judge_all",
    "mcnemar_p",
    "outcomes",
    "paired_bootstrap",
    "paired_mean",
    "resampled",
    "rows_needed",
    "sign_flip_p",
    "smallest_difference",
    "spread",
    "swap_p",
    "weigh",
    "wilson",
]
