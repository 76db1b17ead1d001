"""Floors agree with their definitions written out, and with figures known elsewhere."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tunelab.data.builtin import BUILTIN, card
from tunelab.data.sets.support_tickets import INSTRUCTION
from tunelab.data.sets.ticket_rules import answer_by_rules
from tunelab.measure.builtin_sets import floors_for, floors_of, metrics_of, scored
from tunelab.measure.floors import SMOOTHING, by_field, majority, naive_bayes, nearest_neighbour, words
from tunelab.measure.metrics.sql import ExecutionAccuracy

BANKING = next((p for p in (REPOSITORY, *REPOSITORY.parents) if (p / "shared/data/banking77").is_dir()), None)
texts = st.lists(st.sampled_from("a b c d e".split()), min_size=1, max_size=6).map(" ".join)
labelled = st.lists(st.tuples(texts, st.sampled_from(["x", "y", "z"])), min_size=1, max_size=12)


def cosine_by_hand(known: list[str], asked: str) -> list[float]:
    """Cosines of TF-IDF vectors, all written out; a word that no known text has counts for nothing."""
    vocabulary = sorted({word for text in known for word in words(text)})
    idf = {w: math.log((1 + len(known)) / (1 + sum(w in words(text) for text in known))) + 1 for w in vocabulary}
    vectors = [[words(text).count(w) * idf[w] for w in vocabulary] for text in (*known, asked)]
    *rows, query = [[x / (math.hypot(*vector) or 1) for x in vector] for vector in vectors]
    return [sum(a * b for a, b in zip(row, query, strict=True)) for row in rows]


def log_probability_by_hand(rows: list[tuple[str, str]], label: str, asked: str) -> float:
    vocabulary = {word for text, _ in rows for word in words(text)}
    counts = Counter(word for text, one in rows if one == label for word in words(text))
    total = counts.total() + SMOOTHING * len(vocabulary)
    prior = sum(one == label for _, one in rows) / len(rows)
    return math.log(prior) + sum(math.log((counts[w] + SMOOTHING) / total) for w in words(asked) if w in vocabulary)


@given(labelled, texts)
def test_the_nearest_neighbour_has_the_largest_cosine(rows, asked):
    prompts = [text for text, _ in rows]
    (place,) = map(int, nearest_neighbour(prompts, [str(i) for i in range(len(rows))], [asked]))
    cosines = cosine_by_hand(prompts, asked)
    assert cosines[place] == pytest.approx(max(cosines))


@given(labelled, texts)
def test_naive_bayes_finds_the_likeliest_label(rows, asked):
    (label,) = naive_bayes([text for text, _ in rows], [label for _, label in rows], [asked])
    likelihoods = {one: log_probability_by_hand(rows, one, asked) for _, one in rows}
    assert likelihoods[label] == pytest.approx(max(likelihoods.values()))


@given(labelled, texts)
def test_the_majority_is_most_frequent_whatever_is_asked(rows, asked):
    answers = [label for _, label in rows]
    (answer,) = majority([text for text, _ in rows], answers, [asked])
    assert answers.count(answer) == max(map(answers.count, answers))


def test_a_prompt_without_known_words_still_has_an_answer():
    for floor in (majority, nearest_neighbour, naive_bayes):
        assert floor(["a", "!!"], ["x", "y"], ["?", ""]) == ["x", "x"]


def test_fields_are_guessed_one_by_one():
    known = ['{"a":"x","b":null}', '{"a":"x","b":2}', '{"a":"y","b":2}']
    assert by_field(majority)(["p", "q", "r"], known, ["?"]) == ['{"a":"x","b":2}']
    assert set(floors_for(known)) == {
        "most frequent value of each field", "nearest neighbour", "naive Bayes for each field"
    }  # fmt: skip
    assert "naive Bayes" in floors_for(["x", "x", "y", "y"])
    assert "naive Bayes" not in floors_for(["every", "answer", "differs"])


@pytest.mark.skipif(BANKING is None, reason="shared/data/banking77 is not beside this checkout")
def test_the_floors_of_banking77_are_those_known():
    def read(name: str) -> tuple[list[str], list[str]]:
        with (Path(BANKING) / "shared/data/banking77" / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [row["text"] for row in rows], [row["category"] for row in rows]

    (prompts, answers), (asked, wanted) = read("train.csv"), read("test.csv")

    def accuracy(floor):
        return 100 * sum(map(str.__eq__, floor(prompts, answers, asked), wanted)) / len(wanted)

    assert accuracy(majority) == pytest.approx(1.3, abs=0.1)
    assert accuracy(naive_bayes) == pytest.approx(85.9, abs=1.5)


@pytest.mark.parametrize("name", ["general", "support-tickets", "text-to-sql"])
def test_the_floors_of_a_card_are_those_measured(name):
    """`python-docs` has other rows with every Python."""
    found = {(figure.answered_by, figure.metric): figure.value for figure in floors_of(name)}
    on_card = {(figure.answered_by, figure.metric): figure.value for figure in card(name).figures}
    assert found
    assert {key: on_card[key] for key in found} == {key: pytest.approx(value, abs=0.1) for key, value in found.items()}
    assert {key for key in on_card if "base" not in key[0] and "tuned" not in key[0]} == set(found)


def test_neither_rules_nor_other_floors_solve_a_generated_set():
    for figure in card("support-tickets").figures:
        if figure.metric == "same_json" and "tuned" not in figure.answered_by:
            assert figure.value < 60, figure
    for figure in card("text-to-sql").figures:
        if "tuned" not in figure.answered_by:
            assert figure.value < 60, figure


def test_rules_by_hand_answer_a_plain_ticket():
    email = "Hello,\nMy electric kettle leaks. Order number KX-48213. I want my money back. I am angry. This is urgent."
    assert json.loads(answer_by_rules(f"{INSTRUCTION}\n\n{email}")) == {
        "product": "kettle",
        "urgency": "high",
        "sentiment": "negative",
        "action": "refund",
        "order_id": "KX-48213",
    }


@pytest.mark.parametrize("name", BUILTIN)
def test_every_metric_of_a_set_gives_its_own_answers_full_marks(name):
    one = BUILTIN[name]
    answers = [row["completion"] for row in (one.heldout or one.rows)()[:40]]
    assert [figure.value for figure in scored(one, "itself", answers, answers)] == [100.0] * len(one.metrics)
    assert isinstance(metrics_of(one)[0], ExecutionAccuracy) == (one.database is not None)


def test_naive_bayes_of_as_many_labels_as_rows_needs_no_table_of_labels_and_words():
    import tracemalloc

    rows = 3000
    prompts = [f"w{n} w{n + 1} w{n * 7 % rows}" for n in range(rows)]
    answers = [f"name {n}" for n in range(rows)]
    tracemalloc.start()
    found = naive_bayes(prompts, answers, prompts[:20])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == answers[:20]
    assert peak < rows * rows  # bytes; a table of numbers would be eight times that
