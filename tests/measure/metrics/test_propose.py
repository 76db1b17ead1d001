"""Metrics are proposed from what the answers are."""

from __future__ import annotations

import csv
from contextlib import closing

import pytest

from tests.conftest import REPOSITORY
from tunelab.data.builtin import BUILTIN
from tunelab.data.sets.shop import SCHEMA, shop_database
from tunelab.measure.metrics import metrics_for, task_of

QUERIES = [
    "SELECT name FROM customers",
    "select count(*) from orders where id > 3;",
    "WITH t AS (SELECT 1) SELECT * FROM t",
]
TEXTS = [f"Sentence number {row} is about something else than {row * 7}." for row in range(40)]
LABELS = ["card", "Card ", "pin", "card", "pin", "pin"]


def names(answers, prompts=(), database=None):
    return [metric.name for metric in metrics_for(answers, prompts, database)]


def test_labels_are_measured_by_accuracy_and_macro_f1_of_their_set():
    proposed = metrics_for(LABELS)
    assert [metric.name for metric in proposed] == ["accuracy", "macro_f1"]
    assert proposed[1](["PIN", "pin"], ["pin", "card"]) == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert names(["1", "2", "5", "1", "5", "2"]) == ["accuracy", "macro_f1"], "ratings"
    assert names(["yes"] * 8) == ["accuracy", "macro_f1"], "one class only"


def test_json_is_measured_field_by_field():
    assert names(['{"a": 1}', ' {"a": 2}', '[{"a": 3}]'])[0] == "field_f1"
    assert names(['{"a": 1}', "{not json}", '{"a": 3}', "x"])[0] == "chrf"


def test_queries_are_measured_by_running_them_where_a_database_is_known():
    prompts = [f"Tables: {SCHEMA}\nQuestion"] * 3
    assert names(QUERIES, prompts)[0] == "exact_match"
    with closing(shop_database()) as database:
        assert names(QUERIES, prompts, database)[0] == "execution_accuracy"
        assert names(TEXTS, database=database)[0] == "chrf"
    assert task_of(QUERIES, ["CREATE TABLE customers (name TEXT, id INT)"] * 3) == "sql"
    assert task_of(QUERIES, ["Write a poem."] * 3) == "text", "no schema"
    sentences = ["Select the best one from the list.", "With love from me to you", "Update your app from the store"]
    assert task_of(sentences) == "text"


@pytest.mark.parametrize(
    "answers",
    [
        [str(row * 37) for row in range(20)],
        [f"${row},500.00" for row in range(20)],
        [f"{row}.5 kg" for row in range(20)],
        [f"First {row} and {row} make {2 * row}.\n#### {2 * row}" for row in range(20)],
    ],
)
def test_numbers_are_compared_by_value(answers):
    assert names(answers)[0] == "number_match"
    assert all(metric(answers, answers) == 100 for metric in metrics_for(answers))


def test_other_texts_are_compared_as_texts():
    assert names(TEXTS) == ["chrf", "rouge_l", "token_f1"]
    assert task_of(["", "", ""]) == "text"
    with pytest.raises(ValueError, match="no answers"):
        metrics_for([])


@pytest.mark.parametrize(
    ("name", "task"),
    [("general", "text"), ("python-docs", "text"), ("support-tickets", "json"), ("text-to-sql", "sql")],
)
def test_built_in_sets_are_what_they_are(name, task):
    rows = BUILTIN[name].rows()
    assert task_of([row["completion"] for row in rows], [row["prompt"] for row in rows]) == task


def test_banking77_is_labels(tmp_path):
    found = next((p for p in (REPOSITORY, *REPOSITORY.parents) if (p / "shared/data/banking77").is_dir()), None)
    if found is None:
        answers = [f"label {row % 77}" for row in range(3080)]
    else:
        with (found / "shared/data/banking77/test.csv").open(encoding="utf-8", newline="") as file:
            answers = [row["category"] for row in csv.DictReader(file)]
    accuracy, macro = metrics_for(answers)
    assert (accuracy(answers, answers), macro(answers, answers)) == (100, 100)
    assert macro.sums(answers[:2], answers[:2]).shape == (2, 3 * 77)
