"""A report is read back as it was written, whatever its figures are, and its verdict says no more than they do."""

from __future__ import annotations

import json
import math

import pytest

from tunelab.run.reports import Compared, Interval, Report, read_report


def report(figure):
    return Report(
        rows=30,
        heldout_loss=figure,
        metrics={"mine": figure},
        main_metric="mine",
        general_loss=figure,
        probe_rows=2,
        seconds=1.0,
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.5])
def test_a_figure_that_is_no_finite_number_is_kept_and_read_back(tmp_path, value):
    written = report(Compared(base=value, tuned=value, change=Interval(value, value, value, 30)))
    written.write(tmp_path / "report.json")
    found = read_report(tmp_path)
    assert found is not None
    for figure in (found.main.base, found.main.change.low):
        assert figure == value or (math.isnan(figure) and math.isnan(value))
    json.loads(json.dumps(written.as_json()), parse_constant=pytest.fail)  # JSON has no NaN


def test_what_is_not_finite_decides_nothing():
    assert Compared(base=1, tuned=math.nan, change=Interval(math.nan, math.nan, math.nan, 99)).verdict == (
        "not enough evidence"
    )


@pytest.mark.parametrize(("better", "verdict"), [(True, "better"), (False, "worse"), (None, "different")])
def test_a_figure_without_a_direction_is_different_and_not_better(better, verdict):
    figure = Compared(base=1, tuned=2, change=Interval(1, 0.5, 1.5, 99), higher_is_better=better)
    assert figure.verdict == report(figure).verdict == verdict
