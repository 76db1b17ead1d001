"""A metric in a user's file is used as it is; what goes wrong in it is said, and costs only its rows."""

from __future__ import annotations

import pytest

from tunelab.errors import UserError
from tunelab.measure.metrics import ExactMatch, NumberMatch, load_metric, score_sides

SCORE = "def score(prediction, reference):\n    return {}\n"


@pytest.fixture
def written(tmp_path):
    def write(code: str, name: str = "my_metric.py"):
        path = tmp_path / name
        path.write_text(code, encoding="utf-8")
        return path

    return write


def test_a_function_is_a_metric_with_the_name_of_its_file(written):
    metric = load_metric(written(SCORE.format("prediction == reference")))
    assert (metric.name, metric.title, metric.higher_is_better) == ("my_metric", "my metric", True)
    assert metric(["a", "b"], ["a", ("x", "b")]) == 1.0
    assert metric(["a", "c"], ["a", "b"]) == 0.5


def test_a_file_can_say_what_its_figure_is(written):
    path = written("title = 'edits'\nunit = 'letters'\nhigher_is_better = False\nrange = (0, 9)\n" + SCORE.format(3))
    metric = load_metric(path)
    assert (metric.title, metric.unit, metric.range, metric.higher_is_better) == ("edits", "letters", (0, 9), False)


def test_a_class_is_a_metric_with_what_it_says_of_itself(written):
    path = written(
        "from dataclasses import dataclass\nfrom tunelab.measure.metrics import Metric, RowMetric\n"
        "class Base(RowMetric):\n    unit = 'x'\n"
        "class Mine(Base):\n    title = 'my own'\n    def score(self, prediction, reference): return 2\n"
    )
    metric = load_metric(path)
    assert (metric.name, metric.title, metric.unit) == ("my_metric", "my own", "x")
    assert metric(["a"], ["b"]) == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "my_metric.py has none. A file with a metric holds one: a function score"),
        ("score = 3", "my_metric.py has none"),
        ("from tunelab.measure.metrics import ExactMatch", "my_metric.py has none"),
        (
            SCORE.format(1) + "from tunelab.measure.metrics import ExactMatch\nclass Mine(ExactMatch): pass",
            "has several: score, Mine",
        ),
        ("def score(prediction): return 1", r"score in my_metric.py can't be called with \(prediction, reference\)"),
        ("x = (\n", r"can't be run in line 1: SyntaxError"),
        ("import no_such_library", "can't be run: ModuleNotFoundError.*no_such_library"),
        ("raise SystemExit(3)", "can't be run: SystemExit"),
        (
            "from tunelab.measure.metrics import Metric\nclass Mine(Metric): pass",
            "Mine in my_metric.py lacks sums, value",
        ),
        (
            "from tunelab.measure.metrics import ExactMatch\nclass Mine(ExactMatch):\n  def __init__(self, n): pass",
            r"Mine\(\) in my_metric.py fails: TypeError",
        ),
    ],
)  # fmt: skip
def test_a_file_without_a_metric_is_refused(written, code, message):
    with pytest.raises(UserError, match=message) as refused:
        load_metric(written(code))
    assert len(str(refused.value)) <= 400


def test_a_file_that_is_not_there_or_no_python_is_refused(written, tmp_path):
    with pytest.raises(UserError, match=r"gone\.py is not there"):
        load_metric(tmp_path / "gone.py")
    with pytest.raises(UserError, match=r"metric\.txt is no Python file"):
        load_metric(written(SCORE.format(1), "metric.txt"))
    with pytest.raises(UserError, match="is no Python file"):
        load_metric(tmp_path)


def test_a_row_on_which_it_raises_is_named_and_left_out_of_all_sides(written):
    metric = load_metric(written(SCORE.format("1 / len(prediction)")))
    scored = score_sides(metric, [["a", "ab", "", "ab"], ["ab", "", "a", "abcd"]], ["x"] * 4)
    assert scored.rows == (0, 3)
    assert [side[:, 0].tolist() for side in scored.sums] == [[1.0, 0.5], [0.5, 0.25]]
    (note,) = scored.notes
    assert "my_metric raised on 2 of 4 rows, which are left out of all sides: row 2 ('ZeroDivisionError" in note
    assert "row 3" in note


@pytest.mark.parametrize("value", ["None", "'5'", "float('nan')", "float('inf')", "[1]"])
def test_what_is_no_finite_number_counts_as_a_failure(written, value):
    metric = load_metric(written(SCORE.format(f"1 if prediction else {value}")))
    scored = score_sides(metric, [["a", ""]], ["x", "x"])
    assert scored.rows == (0,)
    assert "which is no finite number" in scored.notes[0]


def test_a_metric_of_its_own_class_loses_only_the_rows_on_which_it_raises(written):
    path = written(
        "import numpy\nfrom tunelab.measure.metrics import Metric\nclass Mine(Metric):\n"
        "    def sums(self, predictions, references):\n"
        "        return numpy.array([[1 / len(p), 1] for p in predictions])\n"
        "    def value(self, sums):\n        return sums[..., 0] / sums[..., 1]\n"
    )
    scored = score_sides(load_metric(path), [["a", ""], ["ab", "ab"]], ["x", "x"])
    assert [side.tolist() for side in scored.sums] == [[[1.0, 1.0]], [[0.5, 1.0]]]


def test_many_failures_are_counted_and_the_first_named(written):
    metric = load_metric(written(SCORE.format("1 / len(prediction)")))
    (note,) = score_sides(metric, [["a", *[""] * 50]], ["x"] * 51).notes
    assert "raised on 50 of 51 rows" in note
    assert note.endswith("and 47 more.")
    assert len(note) < 500


def test_a_metric_that_raises_on_every_row_is_refused(written):
    metric = load_metric(written(SCORE.format("1 / 0")))
    with pytest.raises(
        UserError, match=r"my_metric raises on all 2 rows; on row 1: 'ZeroDivisionError: division by zero'"
    ):
        score_sides(metric, [["a", "b"]], ["x", "x"])


def test_a_metric_that_ends_the_process_costs_only_its_row(written):
    metric = load_metric(
        written("import sys\ndef score(prediction, reference):\n    return prediction or sys.exit(3)\n")
    )
    with pytest.raises(UserError, match="SystemExit: 3"):
        score_sides(metric, [[""]], ["x"])
    metric = load_metric(
        written("import sys\ndef score(prediction, reference):\n    return len(prediction) or sys.exit()\n")
    )
    assert score_sides(metric, [["a", ""]], ["x", "x"]).rows == (0,)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("raise RuntimeError('no')", r"value\(\) of the metric my_metric raises: 'RuntimeError: no'"),
        ("return float(sums[0] / sums[1])", r"value\(\) of the metric my_metric raises: 'TypeError"),
        ("return sums[0] / sums[1]", r"for 3 rows at once, and \[1.0, 2.0, 3.0\] for one after the other"),
        ("return sums.max()", r"gives 3.0 for 3 rows at once"),
    ],
)
def test_a_figure_that_can_not_be_resampled_is_refused(written, value, message):
    path = written(
        "import numpy\nfrom tunelab.measure.metrics import Metric\nclass Mine(Metric):\n"
        "    def sums(self, predictions, references):\n"
        "        return numpy.array([[len(p), 1] for p in predictions])\n"
        f"    def value(self, sums):\n        {value}\n"
    )
    with pytest.raises(UserError, match=message) as refused:
        score_sides(load_metric(path), [["a", "ab", "abc"]], ["x"] * 3)
    assert len(str(refused.value)) <= 400


def test_a_row_whose_sums_are_of_another_length_is_left_out(written):
    path = written(
        "import numpy\nfrom tunelab.measure.metrics import Metric\nclass Mine(Metric):\n"
        "    def sums(self, predictions, references):\n"
        "        return numpy.ones((1, 2 + (predictions[0] == 'b')))\n"
        "    def value(self, sums):\n        return sums[..., 0]\n"
    )
    scored = score_sides(load_metric(path), [["a", "b"], ["a", "a"]], ["x", "x"])
    assert scored.rows == (0,)
    assert "sums() gave 2 numbers of the rows before, and 3 here" in scored.notes[0]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("title = 3", "title = 3, but it has to be a text"),
        ("unit = None", "unit = None, but it has to be a text"),
        ("higher_is_better = 'yes'", "higher_is_better = 'yes', but it has to be True, False or None"),
        ("range = (0,)", "but it has to be two numbers"),
    ],
)
def test_what_a_metric_says_of_itself_is_of_its_kind(written, said, message):
    with pytest.raises(UserError, match=message):
        load_metric(written(f"{said}\n{SCORE.format(1)}"))
    body = "from tunelab.measure.metrics import RowMetric\nclass Mine(RowMetric):\n"
    body += f"    {said}\n    def score(self, prediction, reference): return 1\n"
    with pytest.raises(UserError, match=message):
        load_metric(written(body))


def test_metrics_of_the_library_leave_out_rows_whose_reference_does_not_fit():
    scored = score_sides(NumberMatch(), [["1", "2", "3"], ["0", "2", "4"]], ["1", "none", "4"])
    assert scored.rows == (0, 2)
    assert [side[:, 0].tolist() for side in scored.sums] == [[100, 0], [0, 100]]
    (note,) = scored.notes
    assert note == (
        "The metric number right can't score 1 of 3 rows, which are left out of all sides: row 2 (\"reference = 'none' "
        'has no number").'
    )


def test_metrics_of_the_library_score_all_sides_and_refuse_references_that_do_not_fit():
    scored = score_sides(ExactMatch(), [["a", "b"], ["b", "b"]], ["a", "b"])
    assert [side[:, 0].tolist() for side in scored.sums] == [[100, 100], [0, 100]]
    assert (scored.rows, scored.notes) == ((0, 1), ())
    with pytest.raises(UserError, match="Row 1"):
        score_sides(NumberMatch(), [["1"]], ["none"])
    with pytest.raises(ValueError, match="paired rows"):
        score_sides(ExactMatch(), [["a"]], ["a", "b"])
