"""The general instructions are many and varied, and nothing of the forgetting probe can be learned from them."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

from tunelab import DataSpec, read_data
from tunelab.data.builtin import BUILTIN, DESCRIPTIONS, general, general_probe

SETS = {"general": general, "probe": general_probe}
NEAR = 0.2  # share of equal word 5-grams from which two texts count as nearly the same


def folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def ngrams(text: str, n: int = 5) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return frozenset(tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1)))


def jaccard(a: frozenset, b: frozenset) -> float:
    return len(a & b) / len(a | b)


def near_duplicates(texts: list[str]) -> list[tuple[str, str]]:
    parts = [(text, ngrams(text)) for text in texts]
    return [(a, b) for (a, x), (b, y) in itertools.combinations(parts, 2) if jaccard(x, y) >= NEAR]


def test_there_are_enough_rows_of_each_kind():
    kinds, probed = (Counter(row["kind"] for row in rows()) for rows in SETS.values())
    assert kinds.total() >= 320
    assert probed.total() == 60
    assert len(kinds) >= 10
    assert min(kinds.values()) >= 15
    assert set(kinds) == set(probed)
    assert min(probed.values()) >= 3


@pytest.mark.parametrize("name", SETS)
def test_every_row_is_filled_short_and_free_of_control_tokens(name):
    for row in SETS[name]():
        assert list(row) == ["prompt", "completion", "kind"], row
        assert all(isinstance(value, str) and value and value == value.strip() for value in row.values()), row
        assert 3 <= len(row["completion"].split()) <= 120, row
        assert len(row["prompt"].split()) <= 120, row
        assert "<|" not in row["prompt"] + row["completion"], row


def test_no_text_stands_twice_and_the_probe_is_in_no_training_row():
    rows = general() + general_probe()
    for field in ("prompt", "completion"):
        repeated = [text for text, n in Counter(folded(row[field]) for row in rows).items() if n > 1]
        assert not repeated


def test_no_two_rows_of_either_set_are_nearly_the_same():
    rows = general() + general_probe()
    for field in ("prompt", "completion"):
        assert near_duplicates([row[field] for row in rows]) == []


def test_a_near_duplicate_would_be_found():
    row = general()[0]["completion"]
    assert near_duplicates([row, row.replace("larger", "bigger"), "Something else entirely is said here."])
    assert near_duplicates(["Good night, and sleep well!", "good night and sleep well"])


def test_answers_do_not_all_begin_alike():
    openings = Counter(row["completion"].split()[0] for row in general())
    assert openings.most_common(1)[0][1] < 0.15 * openings.total()


def test_general_can_be_trained_on_and_the_probe_cannot():
    assert set(DESCRIPTIONS) == set(BUILTIN)
    split = read_data(DataSpec(source="general", heldout=40))
    assert len(split.heldout) == 40
    assert len(split.train) == len(general()) - 40
    probed = {folded(row["prompt"]) for row in general_probe()}
    for name, one in BUILTIN.items():
        assert general_probe not in (one.rows, one.heldout), name
        assert not probed & {folded(row["prompt"]) for row in one.rows()}, name


@pytest.mark.parametrize("name", SETS)
def test_equations_in_the_answers_are_right(name):
    number = r"−?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?"
    equation = re.compile(rf"({number}(?:\s*[×÷+−]\s*{number})+)\s*=\s*({number})")
    found = [pair for row in SETS[name]() for pair in equation.findall(row["completion"])]
    assert len(found) >= 4
    for left, right in found:
        assert value(left) == pytest.approx(value(right)), (left, right)


def value(expression: str) -> float:
    """What a sum or product in an answer comes to; only digits and operators ever get here."""
    python = expression.translate(str.maketrans({"×": "*", "÷": "/", "−": "-", ",": None}))
    assert re.fullmatch(r"[\d\s.*/+-]+", python), expression
    return eval(python)


def test_python_in_the_answers_compiles():
    for row in general() + general_probe():
        for code in re.findall(r"```python\n(.*?)```", row["completion"], re.DOTALL):
            compile(code, row["prompt"], "exec")
