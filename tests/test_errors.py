"""Messages for people: whatever the value, one that can be read, with its beginning and its end."""

from __future__ import annotations

import csv
import json

import pytest
from pydantic import ValidationError

from tunelab import DataSpec, ModelSpec, RunConfig, UserError
from tunelab.data import read_data
from tunelab.errors import LONGEST, explain, listed, shortened


def long_value(_folder):
    RunConfig.model_validate({"name": "x" * 5000, "stages": [], "technique": {"kind": "y" * 3000}})


def many_columns(_folder):
    read_data(DataSpec(rows=[{f"column {n}": n for n in range(200)}]))


def many_keys(folder):
    (folder / "rows.json").write_text(json.dumps({f"key {n}": n for n in range(500)}))
    read_data(DataSpec(source=str(folder / "rows.json")))


def long_header(folder):
    with open(folder / "rows.csv", "w", newline="") as file:
        csv.writer(file).writerows([[f"a column with a name, number {n}" for n in range(300)], ["x"] * 301])
    read_data(DataSpec(source=str(folder / "rows.csv")))


def broken_yaml(folder):
    (folder / "run.yaml").write_text("model: {repo_id: [" + "x" * 3000)
    RunConfig.from_file(folder / "run.yaml")


def long_repository(_folder):
    from tunelab import load

    load(ModelSpec(repo_id="x" * 3000))


def long_source(_folder):
    read_data(DataSpec(source="x" * 3000))


@pytest.mark.parametrize(
    "mistake",
    [long_value, many_columns, many_keys, long_header, broken_yaml, long_repository, long_source],
    ids=lambda m: m.__name__,
)
def test_no_message_is_too_long_to_be_read(mistake, tmp_path):
    with pytest.raises((UserError, ValidationError)) as raised:
        mistake(tmp_path)
    message = explain(raised.value)
    assert message
    assert len(message) <= LONGEST


def test_a_message_that_is_too_long_keeps_what_is_wrong_and_what_to_do():
    message = str(UserError(f"data.source = '{'x' * 900}': there is no such file. Choose another one."))
    assert len(message) == LONGEST
    assert message.startswith("data.source = '")
    assert message.endswith("there is no such file. Choose another one.")


def test_long_values_and_lists_are_cut():
    assert shortened("short") == "'short'"
    assert len(shortened("x" * 500)) == 80
    assert listed(["a", "b"]) == "a, b"
    assert listed([]) == ""
    names = listed(f"name {n}" for n in range(100))
    assert names.startswith("name 0, name 1, ")
    assert names.endswith("and 88 more")
    assert len(listed("x" * 500 for _ in range(100))) < LONGEST
