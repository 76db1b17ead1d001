"""Rows handed over from a notebook: whatever they were, they stand beside the runs as they are, each once."""

from __future__ import annotations

import os

import pytest

from tunelab import DataSpec, UserError, hand_over, list_handed, read_data

ROWS = [
    {"prompt": "One?", "completion": "1 ✓"},
    {"prompt": "Two?", "completion": "2"},
    {"prompt": "3?", "completion": None},
]


def frame(rows):
    import pandas

    return pandas.DataFrame(rows)


def data_set(rows):
    import datasets

    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize("given", [list, frame, data_set])
def test_rows_of_every_kind_are_read_back_as_they_were(tmp_path, given):
    handed = hand_over(given(ROWS), "mine", tmp_path)
    assert (handed.rows, handed.columns) == (3, ("prompt", "completion"))
    split = read_data(DataSpec(source=str(handed.path)))
    assert {(e.prompt, e.answer) for e in (*split.train, *split.heldout)} == {("One?", "1 ✓"), ("Two?", "2")}
    assert list_handed(tmp_path) == [handed]


def test_the_newest_stands_first_and_the_same_rows_once(tmp_path):
    first = hand_over(ROWS, "first", tmp_path)
    os.utime(first.path.parent / "handed.json", (1, 1))
    hand_over(ROWS[:2], "second", tmp_path)
    assert [one.name for one in list_handed(tmp_path)] == ["second", "first"]
    hand_over(ROWS, "first", tmp_path)
    assert [one.name for one in list_handed(tmp_path)] == ["first", "second"]


def test_other_rows_under_the_same_name_leave_those_before_as_they_were(tmp_path):
    before = hand_over(ROWS, "mine", tmp_path)
    content = before.path.read_bytes()
    after = hand_over(ROWS[:2], "mine", tmp_path)
    assert after.path != before.path
    assert before.path.read_bytes() == content


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 61, "a\nb", " a", "<img>"])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="allowed are up to 60 letters"):
        hand_over(ROWS, name, tmp_path)
    assert list_handed(tmp_path) == []


@pytest.mark.parametrize("rows", ["text", [1, 2], {"a": 1}, []])
def test_what_are_no_rows_is_refused(tmp_path, rows):
    with pytest.raises(UserError, match="rows"):
        hand_over(rows, "mine", tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "[" * 9000, '{"name": "mine"}', '{"name": "../mine", "rows": 1, "columns": []}', "\xff"]
)
def test_what_is_damaged_hides_nothing_else_and_can_be_handed_over_again(tmp_path, content):
    sound, damaged = hand_over(ROWS, "sound", tmp_path), hand_over(ROWS, "mine", tmp_path)
    (damaged.path.parent / "handed.json").write_bytes(content.encode("latin-1"))
    assert list_handed(tmp_path) == [sound]
    assert {one.name for one in (hand_over(ROWS, "mine", tmp_path), *list_handed(tmp_path))} == {"mine", "sound"}
    damaged.path.unlink()
    assert list_handed(tmp_path) == [sound]
