"""Comparisons in files: whatever people and models wrote, a table stays a table and JSON stays JSON."""

from __future__ import annotations

import csv
import json

import pytest

from tests.measure.votes.test_store import answer
from tunelab import Comparison, UserError, ballot_of, export_comparisons
from tunelab.measure.votes.ballot import Ballot

HOSTILE = ['=HYPERLINK("http://x")', 'a,b\n"c"', "<img onerror=x>", "-1+2", "half \ud83d", "‮txt"]


def comparison(text, labels=("base", "tickets"), seeds=(0,), **more):
    from dataclasses import replace

    answers = tuple(
        replace(answer(label, None if label == "base" else f"run-{label}"), text=f"{text}", column=place, seed=seed)
        for place, label in enumerate(labels)
        for seed in seeds
    )
    return Comparison(text, text, answers, True, **more)


def test_a_table_has_a_row_per_prompt_and_no_formula(tmp_path):
    failed = Comparison("too long", None, (), True, error="+it has too many tokens")
    (path,) = export_comparisons([*map(comparison, HOSTILE), failed], tmp_path / "a.csv", "csv")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(keepends=True)))
    assert [row["number"] for row in rows] == [str(n) for n in range(1, 8)]
    assert rows[0]["answer_1"] == "'" + HOSTILE[0] == rows[0]["prompt"]
    assert rows[1]["answer_2"] == HOSTILE[1]
    assert rows[3]["answer_1"] == "'-1+2"
    assert rows[6]["error"] == "'+it has too many tokens"
    assert not any(value[:1] in "=+-@" for row in rows for value in row.values() if value)


def test_every_line_of_json_is_a_comparison(tmp_path):
    made = [comparison(text, seeds=(0, 1)) for text in HOSTILE]
    (path,) = export_comparisons(made, tmp_path / "a.jsonl", "jsonl")
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line)["prompt"] for line in lines] == HOSTILE
    assert [one["seed"] for one in json.loads(lines[0])["answers"]] == [0, 1, 0, 1]


def test_llm_comparator_gets_a_file_for_each_pair_with_the_first_column(tmp_path):
    made = [comparison(text, labels=("base", "one", "two"), seeds=(3, 4)) for text in HOSTILE]
    paths = export_comparisons(made, tmp_path / "a.json", "comparator")
    assert [path.name for path in paths] == ["a-2.json", "a-3.json"]
    found = json.loads(paths[1].read_text(encoding="utf-8"))
    assert [one["name"] for one in found["models"]] == ["base", "two"]
    assert [(one["input_text"], one["tags"]) for one in found["examples"]] == [
        (text, [f"seed {seed}"]) for text in HOSTILE for seed in (3, 4)
    ]
    with pytest.raises(UserError, match="two columns"):
        export_comparisons([comparison("x", labels=("base",))], tmp_path / "b.json", "comparator")
    with pytest.raises(UserError, match="no comparisons"):
        export_comparisons([], tmp_path / "b.csv", "csv")


def test_a_run_at_two_strengths_can_be_voted_on_and_several_seeds_one_by_one():
    from dataclasses import replace

    whole, half = comparison("x", labels=("t", "t × 0.5")).answers
    half = replace(half, provenance=replace(whole.provenance, strength=0.5, own=True))
    made = ballot_of(Comparison("x", None, (whole, half), True))
    assert isinstance(made, Ballot)
    assert [column.key for column in made.columns] == ["run-t", "t × 0.5"]
    several = comparison("x", seeds=(0, 1))
    with pytest.raises(UserError, match="answers by 2 seeds"):
        ballot_of(several)
    assert len(ballot_of(several.of_seed(1)).columns) == 2
