"""JSON answers are taken apart as JSON says, and scored as scikit-learn would score sets of values."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.errors import UserError
from tunelab.measure.metrics.fields import (
    FieldAccuracy,
    FieldF1,
    SameJSON,
    ValidJSON,
    field_scores,
    is_json,
    leaves,
    parse_json,
)

SAME, F1, ACCURACY, VALID = SameJSON(), FieldF1(), FieldAccuracy(), ValidJSON()
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())
values = st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=12,
)
objects = st.dictionaries(st.text(), values, max_size=5)


@pytest.mark.parametrize(
    "text",
    ["", "Sure! {}", "```json\n{}\n```", "{}{}", "{} done", "{'a': 1}", '{"a": 1,}', '{"a": NaN}', '{"a": Infinity}',
     '{"a": 1, "a": 2}', '{"a": 01}', "{" * 100_000, "[" * 100_000, '{"a": "\n"}', "{}\0", "\ufeff{}",
     '{"a": 1e' + "9" * 30 + "}"],
)  # fmt: skip
def test_what_is_not_json_from_beginning_to_end_is_not_json(text):
    assert not is_json(text)
    assert SAME.score(text, "{}") == 0
    assert F1.score(text, '{"a": 1}') == 0
    assert ACCURACY.score(text, '{"a": 1}') == 0


@given(values)
def test_whatever_python_writes_as_json_is_json_and_equals_itself_in_any_form(value):
    compact, wide = json.dumps(value, ensure_ascii=False), f"\n {json.dumps(value, indent=3, sort_keys=True)}  "
    assert is_json(compact)
    assert leaves(parse_json(compact)) == leaves(parse_json(wide))
    assert SAME.score(compact, wide) == 100
    assert ACCURACY.score(compact, wide) == 100
    assert F1.score(compact, wide) == 100


@given(objects, objects)
def test_scores_of_one_row_agree_with_each_other(prediction, reference):
    given_, wanted = json.dumps(prediction), json.dumps(reference)
    scores = field_scores([given_], [wanted])
    f1, accuracy = F1.score(given_, wanted), ACCURACY.score(given_, wanted)
    assert f1 == pytest.approx(100 * scores.micro.f1)
    assert 0 <= accuracy <= 100
    assert (
        (f1 == 100)
        == (accuracy == 100)
        == (scores.whole == 1)
        == (leaves(parse_json(given_)) == leaves(parse_json(wanted)))
    )
    assert F1.score(wanted, given_) == pytest.approx(f1), "F1 is symmetric"


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("1", "1.0", True),
        ("10", "1e1", True),
        ("-0", "0", True),
        ("1", '"1"', False),
        ("1", "true", False),
        ("0", "false", False),
        ("null", '""', False),
        ("null", "false", False),
        ("[]", "{}", False),
        ("[]", "null", False),
        ('"[]"', "[]", False),
        ("0.1", "0.10", True),
        ("12345678901234567890", "12345678901234567891", False),
        ("[1, 2]", "[2, 1]", True),
        ("[1, 1, 2]", "[1, 2, 2]", False),
        ('[{"x": 1}, {"x": 2}]', '[{"x": 2}, {"x": 1}]', False),
        ('{"x": 1, "y": 2}', '{"y": 2, "x": 1}', True),
        ('"Refund"', '"refund"', False),
        ('"\\u00e9"', '"é"', True),
    ],
)
def test_values_are_equal_as_json_values_are(one, other, equal):
    assert SAME.score(f'{{"a": {one}}}', f'{{"a": {other}}}') == 100 * equal
    assert SAME.score(one, other) == 100 * equal


def test_keys_with_dots_are_not_taken_for_nesting():
    assert SAME.score('{"a.b": 1}', '{"a": {"b": 1}}') == 0
    assert SAME.score('{"a[]": 1}', '{"a": [1]}') == 0


def test_scores_by_field_are_counted_by_hand():
    wanted = ['{"product": "tent", "order": {"id": "7", "items": ["a", "b"]}}', '{"product": "kettle", "order": null}']
    answers = ['{"product": "tent", "order": {"id": "8", "items": ["b", "c"]}, "extra": 1}', "I think it is a kettle."]
    scores = field_scores(answers, wanted)
    assert (scores.rows, scores.valid, scores.whole) == (2, 0.5, 0.0)
    counted = {path: (s.right, s.given, s.wanted) for path, s in scores.fields.items()}
    assert counted == {
        "product": (1, 1, 2),
        "order.id": (0, 1, 1),
        "order.items[]": (1, 2, 2),
        "extra": (0, 1, 0),
        "order": (0, 0, 1),
    }
    assert (scores.micro.right, scores.micro.given, scores.micro.wanted) == (2, 5, 6)
    assert scores.micro.precision == pytest.approx(2 / 5)
    assert scores.micro.recall == pytest.approx(2 / 6)
    assert scores.micro.f1 == pytest.approx(2 * (2 / 5) * (2 / 6) / (2 / 5 + 2 / 6))
    # product right; id, items and extra wrong: a list is right as a whole
    assert ACCURACY.rows(answers, wanted) == [25.0, 0.0]
    assert F1.rows(answers, wanted) == [pytest.approx(100 * 4 / 9), 0.0]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30))
def test_micro_f1_of_one_label_is_its_accuracy(pairs):
    """Precision, recall and F1 of a field that every row has are the share of rows in which it is right."""
    answers, wanted = ([json.dumps({"x": pair[side]}) for pair in pairs] for side in (0, 1))
    score = field_scores(answers, wanted).fields["x"]
    share = sum(a == b for a, b in pairs) / len(pairs)
    assert (score.precision, score.recall, score.f1) == (pytest.approx(share),) * 3
    assert ACCURACY(answers, wanted) == pytest.approx(100 * share)


@given(st.lists(st.tuples(objects, objects), min_size=1, max_size=3))
def test_field_f1_of_many_rows_counts_the_values_of_all(pairs):
    answers, wanted = ([json.dumps(pair[side]) for pair in pairs] for side in (0, 1))
    assert F1(answers, wanted) == pytest.approx(100 * field_scores(answers, wanted).micro.f1)
    several = [(one, "{}") for one in answers]
    assert F1(answers, several) == 100, "the best of several references counts"


def test_a_reference_that_is_not_json_is_a_mistake_that_names_its_row():
    with pytest.raises(UserError, match=r"reference 2 = 'refund' is not JSON.*exact_match"):
        field_scores(["{}", "{}"], ["{}", "refund"])
    with pytest.raises(UserError, match="is not JSON"):
        F1.score("{}", "refund")
    for metric in (SAME, F1, ACCURACY):
        with pytest.raises(UserError, match=r"Row 2: reference = 'refund' is not JSON"):
            metric(["{}", "{}"], ["{}", "refund"])
    with pytest.raises(ValueError, match="no rows"):
        field_scores([], [])


def test_validity_does_not_look_at_the_reference():
    assert VALID(["{}", "no"], ["x", "{}"]) == 50.0


def test_leaves_of_an_empty_object_are_one_value():
    assert leaves(parse_json("{}")).total() == 1
    assert leaves(parse_json('{"a": {}, "b": []}')) == Counter(
        {(("a",), ("dict", "{}")): 1, (("b",), ("list", "[]")): 1}
    )
