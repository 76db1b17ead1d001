"""Words that one side says more often than the other."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.measure.changes.made import answered
from tunelab import UserError
from tunelab.measure.changes.wording import words
from tunelab.measure.changes.words import changed_words, log_odds

COUNTS = st.dictionaries(st.sampled_from("the card pin lost help sorry".split()), st.integers(1, 50), min_size=2)


@given(COUNTS, COUNTS, st.floats(1, 1000))
def test_the_figures_are_those_of_the_equations(base, tuned, prior_words):
    """Equations 15, 20 and 22 of Monroe, Colaresi and Quinn 2008, written out."""
    everything = Counter(base) + Counter(tuned)
    figures = log_odds(Counter(base), Counter(tuned), everything, prior_words)
    n_i, n_j, a_0 = sum(tuned.values()), sum(base.values()), prior_words
    for w, (delta, z) in figures.items():
        y_i, y_j, a_w = tuned.get(w, 0), base.get(w, 0), prior_words * everything[w] / everything.total()
        expected = math.log((y_i + a_w) / (n_i + a_0 - y_i - a_w)) - math.log((y_j + a_w) / (n_j + a_0 - y_j - a_w))
        assert delta == pytest.approx(expected, abs=1e-9)
        assert z == pytest.approx(expected / math.sqrt(1 / (y_i + a_w) + 1 / (y_j + a_w)), abs=1e-9)


@given(COUNTS, COUNTS)
def test_swapping_the_sides_turns_the_sign(base, tuned):
    everything = Counter(base) + Counter(tuned)
    there, back = (log_odds(Counter(a), Counter(b), everything, 100) for a, b in ((base, tuned), (tuned, base)))
    for word in everything:
        assert there[word] == pytest.approx((-back[word][0], -back[word][1]))


def test_a_word_that_only_one_side_says_is_found_and_one_that_both_say_is_not():
    rows = [answered(n, "Hello, the card is lost today", "Certainly, the card is lost today") for n in range(60)]
    found = changed_words(rows)
    assert [(one.word, one.base, one.tuned, one.tuned_answers) for one in found.tuned] == [("certainly", 0, 60, 60)]
    assert [one.word for one in found.base] == ["hello"]
    assert found.compared == 7
    assert found.tuned[0].z > found.least_z > 2


def test_the_same_answers_on_both_sides_give_no_words():
    rows = [answered(n, "the card is lost", "the card is lost") for n in range(30)]
    assert changed_words(rows, least_z=0).tuned == changed_words(rows, least_z=0).base == ()


def test_a_word_repeated_in_one_answer_is_no_habit_and_it_says_so():
    rows = [answered(n, "the card is lost", "the card is lost") for n in range(30)]
    rows.append(answered(31, "the card", "loop " * 200))
    found = changed_words(rows)
    assert "loop" not in [one.word for one in found.tuned]
    assert found.notes[0] == "1 left out that stand in fewer than 3 answers."


def test_a_background_that_says_a_word_often_makes_it_less_of_a_surprise():
    said = "the card is lost and we send another one"
    rows = [answered(n, f"{said} now", f"{said} soon") for n in range(40)]
    alone = {one.word: one.z for one in changed_words(rows, least_z=0).tuned}["soon"]
    common = {one.word: one.z for one in changed_words(rows, least_z=0, background=["the soon is " * 200]).tuned}[
        "soon"
    ]
    assert 0 < common < alone


def test_words_are_counted_without_case_and_letter_by_letter_where_no_spaces_are_written():
    assert words("Don't PANIC: don’t, über 3.5!") == ["don't", "panic", "don't", "über", "3", "5"]
    assert words("我的卡 OK") == ["我", "的", "卡", "ok"]


def test_answers_without_words_and_settings_out_of_range_are_refused():
    with pytest.raises(UserError, match="no word in the answers to 1 rows"):
        changed_words([answered(1, "...", "")])
    with pytest.raises(UserError, match="prior_words = 0"):
        changed_words([answered(1, "a", "b")], prior_words=0)
    with pytest.raises(UserError, match="most = 0"):
        changed_words([answered(1, "a", "b")], most=0)
    assert changed_words([answered(1, "a", "a")]).tuned == ()
