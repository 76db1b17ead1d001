"""What is right stays unsaid: no detector fires on ordinary rows."""

from __future__ import annotations

import json

import pytest

from tests.data.doctor.ordinary import TEXTS, ask
from tunelab import DataSpec
from tunelab.data import read_examples
from tunelab.data.doctor import FIXES, apply, examine_rows
from tunelab.data.examples import Example

ANSWER = "That is what it says, and here is why in a sentence of usual length: it was written so."
UNSAID = {"few-rows"}  # of one row it is right


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_is_said_about_ordinary_text(name):
    rows = [ask(TEXTS[name], ANSWER), ask(f"What does it say? {ANSWER}", TEXTS[name], row=2), Example(text=TEXTS[name])]
    for row in rows:
        found = {
            finding.kind: finding.examples for finding in examine_rows([row]).findings if finding.kind not in UNSAID
        }
        assert not found


@pytest.mark.parametrize("name", TEXTS)
def test_no_fix_changes_ordinary_text(name):
    rows = [ask(TEXTS[name], ANSWER), ask("What does it say?", TEXTS[name], row=2)]
    for fix in FIXES.keys() - {"drop-leaked", "drop-near-leaked"}:
        assert list(apply([fix], rows)[0]) == rows


def test_ordinary_rows_together_are_only_few():
    rows = [
        ask(f"What is this about? {text}", f"About {name}: {text[:40]}", row=n)
        for n, (name, text) in enumerate(TEXTS.items())
    ]
    assert {finding.kind for finding in examine_rows(rows).findings} <= {"few-rows", "languages"}


# sets of rows that look alike and are not


def kinds(rows, heldout=()):
    return {finding.kind for finding in examine_rows(rows, heldout).findings} - {"few-rows", "low-diversity"}


FRAME = (
    "Read the message of a customer and say which department it belongs to. Allowed are billing, delivery, returns and "
    "technical support. Answer with one word, without any explanation. Message: "
)
MESSAGES = [
    f"{start} {thing} {end}"
    for start in (
        "I was charged twice for",
        "Nobody has told me anything about",
        "How can I give back",
        "It rains into",
    )
    for thing in ("the green sofa", "my subscription", "a broken lamp", "two train tickets", "this old bicycle")
    for end in ("and I am not amused.", "since my holiday in Spain?", "which my sister gave me.")
]


def test_a_template_around_prompts_makes_no_near_duplicates():
    rows = [
        ask(FRAME + text, ("billing", "delivery", "returns", "support")[n // 15], row=n)
        for n, text in enumerate(MESSAGES)
    ]
    assert not kinds(rows)
    assert not kinds(rows[::2], rows[1::2]) & {"leakage", "near-leakage"}


def test_a_long_system_text_makes_no_near_duplicates():
    rows = [ask(text, f"Answer {n}: {text[::-1]}", system=FRAME * 3, row=n) for n, text in enumerate(MESSAGES)]
    assert not kinds(rows)


def test_sums_and_numbers_make_no_near_duplicates():
    rows = [
        ask(f"What is the sum of the two numbers {a} and {b}?", f"It is {a + b}.") for a in range(9) for b in range(9)
    ]
    assert not kinds(rows) & {"near-duplicates", "conflicts", "duplicates"}
    assert not kinds(rows[::2], rows[1::2]) & {"leakage", "near-leakage"}


def test_another_label_makes_no_near_duplicate():
    rows = [
        ask("The film was good, and I would see it again", "positive"),
        ask("The film was no good, and I would see it again", "negative"),
    ]
    assert not kinds(rows)


def test_names_that_differ_in_case_are_no_conflict():
    assert not kinds([ask("What is `re.Match`?", "A class."), ask("What is `re.match`?", "A function.")])


@pytest.mark.parametrize(
    "labels",
    [
        ("positive", "negative"),
        ("male", "female"),
        ("class1", "class2", "class3"),
        ("level_1", "level_2"),
        ("grade a", "grade b", "grade c"),
        ("import", "export"),
        ("debit card", "credit card"),
        ("valid", "invalid"),
        ("topping_up_by_card", "top_up_by_card_charge"),
        ("はい", "いいえ"),
        ("A", "B", "C", "D"),
    ],
)
def test_labels_that_mean_different_things_are_not_similar(labels):
    rows = [ask(f"{text} {n}", labels[n % len(labels)], row=n) for n, text in enumerate(MESSAGES)]
    assert not kinds(rows)


def test_short_answers_among_short_ones_and_openings_of_data_are_fine():
    rows = [ask(f"How long is {text}", f'{{"length": {n}, "unit": "m"}}', row=n) for n, text in enumerate(MESSAGES)]
    assert not kinds(rows)
    rows = [ask(f"Query {n}: {text}", f"SELECT name FROM t{n} WHERE x = {n}", row=n) for n, text in enumerate(MESSAGES)]
    assert not kinds(rows)
    rows = [ask(text, "no" if n % 3 else "yes", row=n) for n, text in enumerate(MESSAGES)]
    assert not kinds(rows)


def test_quoted_foreign_words_and_translations_have_one_language():
    rows = [
        ask(f"Translate into English, please: 「{text[:9]}」", f"In English this says: {text}", row=n)
        for n, text in enumerate(MESSAGES)
    ]
    assert "languages" not in kinds(rows)


def test_order_ids_of_the_built_in_tickets_are_no_personal_data():
    rows = read_examples(DataSpec(source="support-tickets"))[:500]
    mended, record = apply(["mask-personal-data"], rows)
    assert [row.answer for row in mended] == [row.answer for row in rows]
    assert 0 < record.fixes["mask-personal-data"].changed == sum("[phone]" in row.prompt for row in mended)
    ids = [str(json.loads(row.answer)["order_id"]) for row in rows]
    assert [i for i, row in zip(ids, rows, strict=True) if i in row.prompt] == [
        i for i, row in zip(ids, mended, strict=True) if i in row.prompt
    ]
