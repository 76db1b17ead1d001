"""Figures of labels are those of scikit-learn, on 200 cases and more."""

from __future__ import annotations

import random

import numpy
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from tunelab.errors import UserError
from tunelab.measure.metrics import Accuracy, MacroF1, confusion

NO_LABEL = "some sentence"


def drawn(labels: list[str], rows: int, seed: int, unknown: float = 0.1) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    weights = [1 / (place + 1) for place in range(len(labels))]
    wanted = draw.choices(labels, weights, k=rows)
    given = [label if draw.random() < 0.6 else draw.choice(labels) for label in wanted]
    return [NO_LABEL if draw.random() < unknown else label for label in given], wanted


@pytest.mark.parametrize("seed", range(200))
def test_accuracy_macro_f1_and_confusion_are_those_of_scikit_learn(seed):
    labels = ["card", "пин", "top up", "Ünï", "refund", "x", "y"][: 1 + seed % 7]
    given, wanted = drawn(labels, rows=3 + seed % 50, seed=seed)
    present = sorted(set(wanted))
    assert Accuracy()(given, wanted) == pytest.approx(100 * accuracy_score(wanted, given))
    expected = f1_score(wanted, given, labels=present, average="macro", zero_division=0)
    assert MacroF1(labels)(given, wanted) == pytest.approx(100 * expected)
    found, table = confusion(given, wanted, labels), confusion_matrix(wanted, given, labels=[*labels, NO_LABEL])
    assert found.labels == tuple(labels)
    assert numpy.array_equal(found.counts, table[:-1, :-1])
    assert found.no_label == tuple(table[:-1, -1])
    assert (found.rows, found.accuracy) == (len(wanted), pytest.approx(accuracy_score(wanted, given)))
    each = f1_score(wanted, given, labels=labels, average=None, zero_division=0)
    assert [found.f1(label) for label in labels] == pytest.approx(each)


def test_case_and_outer_space_are_no_difference_between_labels():
    given, wanted = ["Card ", "\nPIN", "pin."], ["card", "pin", "Pin"]
    assert Accuracy()(given, wanted) == pytest.approx(200 / 3)
    found = confusion(given, wanted, ["card", "Pin", "CARD"])
    assert found.labels == ("card", "Pin")
    assert (found.counts, found.no_label) == (((1, 0), (0, 1)), (0, 1))
    assert MacroF1(["card", "pin"])(given, wanted) == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_one_class_only_and_answers_that_are_never_a_label():
    assert MacroF1(["a"])(["a", "a"], ["a", "a"]) == 100
    assert MacroF1(["a", "b"])(["a", "a"], ["a", "a"]) == 100, "b is not wanted by any row"
    assert MacroF1(["a", "b"])(["", "I think b"], ["a", "b"]) == 0
    assert confusion(["", "I think b"], ["a", "b"], "ab").no_label == (1, 1)


def test_the_most_frequent_confusions_come_first():
    found = confusion(["b", "b", "a", "c", "?"], ["a", "a", "b", "c", "a"], "abc")
    assert found.confused() == [("a", "b", 2), ("b", "a", 1)]
    assert found.confused(1) == [("a", "b", 2)]


def test_where_several_labels_are_right_any_of_them_is():
    assert MacroF1("abc")(["b", "c"], [("a", "b"), ("a", "b")]) == pytest.approx(100 * (0 + 1) / 2)
    assert Accuracy()(["b", "c"], [("a", "b"), ("a", "b")]) == 50


def test_a_reference_that_is_none_of_the_labels_is_a_mistake_that_names_its_row():
    for figure in (MacroF1("ab"), lambda given, wanted: confusion(given, wanted, "ab")):
        with pytest.raises(UserError, match=r"Row 2: reference = 'c' is none of the 2 labels: a, b\..*mend the row"):
            figure(["a", "a"], ["a", "c"])
        with pytest.raises(ValueError, match="no rows"):
            figure([], [])
