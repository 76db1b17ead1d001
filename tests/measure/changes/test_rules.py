"""What rules say is wrong with answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.measure.changes.made import answered
from tunelab import UserError
from tunelab.data.sets.general import general
from tunelab.measure.changes.refusals import LANGUAGES, is_refusal
from tunelab.measure.changes.repeating import agreement, repeats_itself
from tunelab.measure.changes.rules import format_of, label_answers, labels_of, rules, sides

GERMAN = "Wir haben Ihre Karte heute verschickt, und sie kommt in den nächsten fünf Tagen bei Ihnen zu Hause an."
ENGLISH = "We have sent your card today, and it will arrive at your home within the next five working days."
REFUSALS = {
    "en": "I'm sorry, but I can't help with that request.",
    "de": "Es tut mir leid, aber dabei kann ich Ihnen leider nicht helfen.",
    "fr": "Je suis désolé, mais je ne peux pas répondre à cette question.",
    "es": "Lo siento, pero no puedo ayudarte con eso.",
    "it": "Mi dispiace, ma non posso aiutarti con questa richiesta.",
    "pt": "Desculpe, mas não posso ajudar com isso.",
    "nl": "Het spijt me, maar ik kan je daar niet bij helpen.",
    "pl": "Przykro mi, ale nie mogę w tym pomóc.",
    "ru": "Извините, но я не могу помочь с этим.",
    "zh": "很抱歉，我无法回答这个问题。",
    "ja": "申し訳ありませんが、そのご質問にはお答えできません。",
}


def names(text, *, ended=None, training=None, **row):
    """The labels of one tuned answer."""
    made = answered(tuned=text, tuned_ended=ended, **row)
    return labels_of(sides(made)[1], rules(training_answers=training))


def test_an_answer_without_a_word_is_empty_and_nothing_else():
    assert names(" \n", reference=ENGLISH) == ["empty"]
    assert names("yes", reference="yes") == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_refusals_are_told_in_every_language_that_is_named(language):
    assert is_refusal(REFUSALS[language])
    assert names(REFUSALS[language]) == ["refusal"]


@pytest.mark.parametrize(
    "text",
    [
        "I’m unable to provide medical advice.",
        "As an AI language model, I don't have opinions, and cannot choose.",
        "I must respectfully decline.",
        "I cannot assist with that.",
    ],
)
def test_other_ways_to_refuse(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that your card is lost. Block it in the app.",
        "I cannot believe how well it went.",
        "I am like a moth to a flame; I can't help but be drawn to the light.",
        "Your card can't be used abroad until it is active.",
        "If you can't log in, reset your password.",
        "Die Karte kann nicht im Ausland verwendet werden.",
        "Desculpe o atraso; o seu cartão chega amanhã.",
        "",
    ],
)
def test_what_only_sounds_like_a_refusal_is_none(text):
    assert not is_refusal(text)


def test_a_refusal_that_the_reference_asks_for_is_right():
    assert names("I'm sorry, but I can't help with that.", reference="I cannot help with that.") == []


def test_ordinary_answers_neither_refuse_nor_go_round_in_circles_and_are_no_copies_of_each_other():
    rows = general()
    others = [row["completion"] for row in rows[1::2]]
    for row in rows[::2]:
        answer = {"prompt": row["prompt"], "ended": True, "training": others}
        found = set(names(row["completion"], **answer)) - {
            "copied-prompt"
        }  # some are to copy: then their reference does
        assert found <= ({"refusal"} if row["kind"] == "honest" else set()), row
        assert names(row["completion"], reference=row["completion"], **answer) == [], row


def test_another_language_is_told_of_texts_that_are_long_enough():
    assert names(GERMAN, reference=ENGLISH) == ["language"]
    assert "language" not in names(ENGLISH, reference=ENGLISH)
    found = label_answers([answered(base=ENGLISH, tuned="Ja.", reference=ENGLISH)])
    assert found["language"].judged == 0
    assert "Another language than the reference: none of 1 rows could be judged." in found.notes


def test_what_was_cut_is_told_only_where_somebody_looked():
    assert "never-stopped" in names("and so", ended=False)
    assert "never-stopped" not in names("and so", ended=True)
    assert label_answers([answered(base="a", tuned="b")])["never-stopped"].judged == 0


def test_lengths_are_compared_by_factor_and_a_few_letters_are_no_matter():
    assert names("x" * 121, reference="y" * 60) == ["longer"] or names("x" * 121, reference="y" * 60) == [
        "longer",
        "repeats",
    ]
    assert names("card_arrival.....", reference="card") == []
    assert names("z" * 10, reference=ENGLISH) == ["shorter"]
    made = label_answers([answered(base="a" * 90, tuned="b c" * 10, reference=ENGLISH[:50])], factor=1.5)
    assert (made["longer"].base, made["longer"].tuned) == (1, 0)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"a": [1, 2]}', "JSON"),
        (" [1, 2]\n", "JSON"),
        ('{"a": NaN}', None),
        ('{"a": 1', None),
        ("5", None),
        ('Here it is: {"a": 1}', None),
        ("```python\nx = 1\n```", "code"),
        ("```python\nx = 1", None),
        ("- one\n- two", "list"),
        ("1. one\n2) two", "list"),
        ("- one", None),
        ("one - two - three", None),
    ],
)
def test_the_format_of_a_text(text, form):
    assert format_of(text) == form


def test_a_format_is_expected_where_the_reference_has_it():
    assert names('Sure! {"a": 1}', reference='{"a": 2}') == ["format"]
    assert names('{"a": 1}', reference='{"a": 2}') == []
    assert names("anything", reference="any text") == []
    assert label_answers([answered(base="a", tuned="b", reference="c")])["format"].judged == 0


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=12), st.integers(1, 30))
def test_a_text_that_ends_in_copies_goes_round_in_circles(unit, more):
    if not unit.strip("-=_.*#|:"):
        return
    times = 4 + 24 // len(unit)
    assert repeats_itself("The answer is this: " + unit * times)
    assert repeats_itself("One two three. " + f"{unit} and so on, " * (3 + more))


@given(st.text("ab", max_size=30))
def test_how_far_a_text_agrees_with_itself_is_counted_letter_by_letter(text):
    def agreeing(place):
        return max(n for n in range(len(text) - place + 1) if text[place : place + n] == text[:n])

    assert agreement(text)[1:] == [agreeing(place) for place in range(1, len(text))]


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH,
        f"{ENGLISH} {ENGLISH}"[:150],
        "Title\n" + "-" * 60,
        "| a | b |\n|---|---|---|---|---|---|---|---|",
        "no no no",
        " ".join(f"row {n}: value {n * n}" for n in range(30)),
        "",
    ],
)
def test_ordinary_repetition_is_none(text):
    assert not repeats_itself(text)


def test_sentences_said_again_and_again_before_the_end_are_found():
    assert repeats_itself(f"{ENGLISH} " * 3 + "Goodbye.")


def test_a_copy_of_a_training_row_is_found_unless_reference_or_prompt_say_the_same():
    assert names(ENGLISH, training=[GERMAN, ENGLISH.upper()]) == ["copied-training"]
    assert names(f"Well. {ENGLISH} Bye.", training=[f"{ENGLISH} {GERMAN}"]) == ["copied-training"]
    assert names(ENGLISH, reference=ENGLISH, training=[ENGLISH]) == []
    assert names(f"Dear you, {ENGLISH}", reference=f"{ENGLISH} Bye.", training=[ENGLISH]) == []
    assert names(ENGLISH, training=[GERMAN]) == []
    assert names("card_arrival", training=["card_arrival"]) == []  # a label is no copy
    assert label_answers([answered(base="a", tuned="b")])["copied-training"].judged == 0


def test_a_copy_of_the_prompt_is_found_unless_the_task_is_to_copy():
    assert names(ENGLISH, prompt=f"Rewrite this: {ENGLISH}") == ["copied-prompt"]
    assert names(ENGLISH, prompt=f"Copy this: {ENGLISH}", reference=ENGLISH) == []
    assert names("where is my new card", prompt="Hello, where is my new card?") == ["copied-prompt"]
    assert names("my card", prompt="Hello, where is my card?") == []


def test_counts_are_of_rows_that_both_sides_can_be_judged_on_and_what_changed_is_told():
    rows = [
        answered(1, base="", tuned="", base_ended=True, tuned_ended=None),
        answered(2, base="", tuned="fine", base_ended=False, tuned_ended=True),
        answered(3, base="fine", tuned="", base_ended=True, tuned_ended=False),
        answered(4, base="fine", tuned="", base_ended=True, tuned_ended=False),
    ]
    found = label_answers(rows, most_examples=1)
    empty, stopped = found["empty"], found["never-stopped"]
    assert (empty.base, empty.tuned, empty.judged, empty.appeared, empty.disappeared) == (2, 3, 4, 2, 1)
    assert [row.row for row in empty.tuned_rows] == [1]
    assert (stopped.base, stopped.tuned, stopped.judged, stopped.appeared) == (1, 2, 3, 2)
    assert any(note == "Did not end by itself: only 3 of 4 rows could be judged." for note in found.notes)
    assert "en, de, fr" in found.notes[-1]


def test_no_rows_and_a_factor_out_of_range_are_refused():
    with pytest.raises(UserError, match="no answered rows"):
        label_answers([])
    with pytest.raises(UserError, match="factor = 1: it has to be above 1"):
        label_answers([answered(base="a", tuned="b")], factor=1)
