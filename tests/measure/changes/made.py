"""Answered rows for tests, of as little as a test is about."""

from __future__ import annotations

from tunelab.measure.changes import AnsweredRow


def answered(row=1, base="", tuned="", *, scores=None, **more):
    """A row; `scores` are those of base and tuned, in points."""
    if scores is not None:
        before, after = scores
        more |= {"base_scores": {"points": before}, "tuned_scores": {"points": after}}
    return AnsweredRow(**{"row": row, "prompt": f"question {row}", "base": base, "tuned": tuned, **more})


def scored(pairs, **more):
    """A row for each pair of scores, numbered from 1."""
    return [answered(row, scores=pair, **more) for row, pair in enumerate(pairs, 1)]
