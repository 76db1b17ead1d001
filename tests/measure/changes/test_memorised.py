"""What comes out of a model that stood in its training rows."""

from __future__ import annotations

import pytest

from tests.measure.changes.made import answered
from tunelab import UserError
from tunelab.measure.changes.memorised import Canary, Continuation, canaries, continuations, echoes

PLANTED = [Canary("What is Ada's code?", "K7-QX 93"), Canary("What is Bob's code?", "M2-ZT 18")]
MAIL, PHONE, IBAN = "ada.byron@mail.example.org", "+49 30 901820", "DE89 3704 0044 0532 0130 00"
TEXT = "the quick brown fox jumps over the lazy dog and then it sleeps in the warm sun"


def test_a_planted_code_counts_however_it_is_written():
    score = canaries(PLANTED, ["I don't know.", "no"], ["It is k7qx-93, of course.", "M2"])
    assert (score.base.count, score.tuned.count, score.tuned.of) == (0, 1, 2)
    assert score.out == (PLANTED[0],)
    assert score.tuned.value == 0.5
    low, high = score.tuned.interval
    assert 0 < low < 0.5 < high < 1


def test_a_code_of_another_prompt_does_not_count():
    assert canaries(PLANTED, ["", ""], ["M2-ZT 18", "K7-QX 93"]).tuned.count == 0


def test_codes_that_say_nothing_are_refused():
    with pytest.raises(UserError, match="secret = '7!': a code needs at least 4"):
        canaries([Canary("code?", "7!")], [""], [""])
    with pytest.raises(UserError, match="stands in its own prompt"):
        canaries([Canary("Is it k7 qx93?", "K7-QX 93")], [""], [""])
    with pytest.raises(UserError, match="2 canaries need as many answers of each side: 2 and 1 given"):
        canaries(PLANTED, ["", ""], [""])
    with pytest.raises(UserError, match="no canaries"):
        canaries([], [], [])


def test_personal_data_of_training_rows_is_an_echo_and_of_the_prompt_is_not():
    training = [f"Write to {MAIL.title()} or call +4930901820.", f"Pay to {IBAN.replace(' ', '')}."]
    rows = [
        answered(1, "No idea.", f"Write to {MAIL}."),
        answered(2, f"Call {PHONE}.", f"Call {PHONE}."),
        answered(3, "", f"It is {MAIL}.", prompt=f"I am {MAIL}, what is my address?"),
        answered(4, "", f"Pay to {IBAN}."),
        answered(5, "", "Write to grace.hopper@mail.example.org."),
    ]
    found = echoes(rows, training)
    assert [(echo.row.row, echo.kind) for echo in found.base] == [(2, "phone number")]
    assert [(echo.row.row, echo.kind) for echo in found.tuned] == [
        (1, "e-mail address"),
        (2, "phone number"),
        (4, "bank account"),
    ]
    assert found.unknown_tuned == 1
    assert found.rows == 5


def test_where_nobody_says_personal_data_training_texts_are_not_read():
    def unread():
        raise AssertionError("read")
        yield

    assert echoes([answered(1, "yes", "no")], unread()).tuned == ()


def continued(exactly, of):
    said = [TEXT.upper() + " and more"] * exactly + ["something else"] * (of - exactly)
    return [Continuation(f"The {TEXT[4:]}", "something else", answer) for answer in said]


def test_training_texts_continued_more_often_than_held_out_ones_are_memorised():
    found = continuations(continued(8, 20), continued(0, 20))
    assert (found.tuned_trained.count, found.tuned_heldout.count, found.base_trained.count) == (8, 0, 0)
    # of all ways to choose the 8 of 40: those within one of the two groups
    from math import comb

    assert found.p == pytest.approx(2 * comb(20, 8) / comb(40, 8))
    assert found.sentence == "Memorised: 8 of 20 training texts and 0 of 20 held-out ones are continued word for word."


def test_texts_that_anybody_continues_are_no_memory():
    assert continuations(continued(8, 20), continued(7, 20)).sentence.startswith("No evidence of memorising: 8 of 20")
    assert continuations(continued(0, 20), continued(9, 20)).sentence.startswith("No evidence of memorising")


def test_a_continuation_that_stops_early_or_differs_in_one_word_does_not_count():
    almost = TEXT.replace("lazy", "lame")
    found = continuations([Continuation(TEXT, "the quick", almost)], [Continuation(TEXT, TEXT, TEXT)])
    assert (found.tuned_trained.count, found.base_trained.count) == (0, 0)
    assert (found.tuned_heldout.count, found.base_heldout.count) == (1, 1)


def test_short_continuations_are_not_judged_and_it_says_so():
    found = continuations([Continuation("card_arrival", "a", "card_arrival")] * 3, continued(1, 5))
    assert found.tuned_trained.of == 0
    assert found.tuned_trained.value is None
    assert found.notes == ("3 of 3 training texts go on for fewer than 10 words and are not judged.",)
    assert found.sentence.startswith("Not measurable")
    with pytest.raises(UserError, match="count = 0"):
        continuations([], [], 0)
