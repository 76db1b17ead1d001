"""The data doctor: what is wrong with rows before a minute is spent training, and how to mend it.

    examine_rows(train, heldout)  rows → Examination: findings, the most important first
    apply(fixes, train)      rows → mended rows, and a record for the run
    learning_curve(…)        how much more rows would help

Each detector is a module of its own. They use examples, digests of their content and the control tokens of a template,
and nothing that trains.
"""

from tunelab.data.doctor.amount import LearningCurve, learning_curve
from tunelab.data.doctor.examination import examine_rows
from tunelab.data.doctor.finding import FIXES, Examination, Finding, Fix, Shown
from tunelab.data.doctor.fixes import apply

__all__ = [
    "FIXES",
    "Examination",
    "Finding",
    "Fix",
    "LearningCurve",
    "Shown",
    "apply",
    "examine_rows",
    "learning_curve",
]
