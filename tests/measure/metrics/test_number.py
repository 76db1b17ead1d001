"""Numbers are read as people write them."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from tunelab.errors import UserError
from tunelab.measure.metrics import NumberMatch
from tunelab.measure.metrics.number import last_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 42.", "42"),
        ("#### 1,000,000", "1000000"),
        ("1,234.50", "1234.5"),
        ("1.234,50", "1234.5"),
        ("1.000.000", "1000000"),
        ("1\u202f234,5", "1234.5"),
        ("1’234.5", "1234.5"),
        ("3,5", "3.5"),
        ("$-5", "-5"),
        ("-$5", "-5"),
        ("−7", "-7"),
        ("x=-5", "-5"),
        ("10-5", "5"),
        ("2020-01-05", "5"),
        ("12/05/2024", "2024"),
        ("3/4", "0.75"),
        ("1 / 8", "0.125"),
        ("1/0", "0"),
        ("1,2,3", "3"),
        ("12,345,67", "67"),
        ("COVID-19", "19"),
        ("答案是42", "42"),
        ("٣٤", "34"),
        ("1.5e-3", "0.0015"),
        (".5", "0.5"),
        ("first 3, then 4 apples", "4"),
        ("50 %", "50"),
        ("-" + "9" * 40, "-" + "9" * 40),
    ],
)
def test_the_last_number_is_read_as_people_write_it(text, value):
    assert last_number(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "none", "H2O", "GPT4 says", "v1.25", "½"])
def test_a_digit_inside_a_word_is_no_number(text):
    assert last_number(text) is None


def test_answers_match_by_value_on_200_seeded_cases():
    draw = random.Random(4)
    written = [
        lambda n: f"{n}",
        lambda n: f"{n:,}",
        lambda n: f"so it is {n:,}.00.",
        lambda n: f"= ${n}",
        lambda n: f"{n / 1000}e3",
        lambda n: f"1 and 2 make\n#### {n}",
    ]
    predictions, references, right = [], [], []
    for _ in range(200):
        wanted = draw.randint(-99_999, 99_999)
        given = wanted if draw.random() < 0.6 else draw.randint(-99_999, 99_999)
        predictions.append(draw.choice(written)(given))
        references.append(draw.choice(written)(wanted))
        right.append(100.0 * (given == wanted))
    assert NumberMatch().rows(predictions, references) == right


def test_no_number_is_wrong_in_an_answer_and_a_mistake_in_a_reference():
    assert NumberMatch()(["", "5"], ["5", "5.0"]) == 50
    with pytest.raises(UserError, match=r"Row 2: reference = 'five' has no number.*exact_match"):
        NumberMatch()(["5", "5"], ["5", "five"])


@pytest.mark.parametrize("piece", ["1,", "1", "1/", "-", "1.1,", "9e9999", "1 / ", "$"])
def test_no_text_breaks_the_reader(piece):
    last_number(piece * 100_000)
