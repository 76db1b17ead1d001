"""Columns as people name them become conversations; rows keep their numbers; nothing leaks between the sides."""

from __future__ import annotations

import json

import pandas
import pytest

from tunelab import DataSpec, UserError, read_data
from tunelab.data.shapes import to_examples


def turns(rows, learn="instructions", **spec):
    examples, _notes = to_examples(rows, DataSpec(rows=rows, **spec), learn, "rows")
    return [[(m.role, m.content) for m in e.messages] for e in examples]


CHAT = [("user", "hi"), ("assistant", "hello")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "completion": "hello"},
        {"Question": "hi", "Answer": "hello"},
        {"text": "hi", "category": "hello"},
        {"instruction": "hi", "input": "", "output": "hello"},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
        {"messages": json.dumps([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}])},
        {
            "messages": [
                {"role": "User", "content": [{"type": "text", "text": "hi"}]},
                {"role": "assistant", "content": "hello"},
            ]
        },
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
    ],
)
def test_the_shapes_people_have_are_detected(row):
    assert turns([row]) == [CHAT]


def test_alpaca_puts_the_input_under_the_instruction():
    row = {"instruction": "Translate.", "input": "hola", "output": "hello"}
    assert turns([row]) == [[("user", "Translate.\n\nhola"), ("assistant", "hello")]]


def test_columns_can_be_named_and_a_template_fills_them():
    rows = [{"q": "2+2", "lang": "en", "a": 4}]
    assert turns(rows, columns={"prompt": "q", "completion": "a"}) == [[("user", "2+2"), ("assistant", "4")]]
    named = turns(rows, columns={"completion": "a"}, template="In {lang}: {q}?")
    assert named == [[("user", "In en: 2+2?"), ("assistant", "4")]]


def test_a_system_prompt_comes_from_the_row_or_the_spec():
    rows = [{"system": "Be brief.", "prompt": "hi", "completion": "hello"}]
    assert turns(rows)[0][0] == ("system", "Be brief.")
    assert turns([{"prompt": "hi", "completion": "hello"}], system="Be kind.")[0][0] == ("system", "Be kind.")


@pytest.mark.parametrize(
    ("rows", "spec", "message"),
    [
        ([{"a": "x", "b": "y"}], {}, "no columns to learn from were recognised. Columns there: 'a', 'b'. Name them"),
        ([{"id": 1, "q": "x", "z": "y"}], {}, "--columns prompt=q completion=z"),
        (
            [{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}],
            {},
            "row 1: .*part of type 'image_url'",
        ),
        ([{"a": "x"}], {"columns": {"prompt": "q"}}, r"there is no column 'q' \(given for 'prompt'\)"),
        ([{"prompt": "x", "completion": ""}] * 3, {}, "row 1: there is nothing to learn from .*all 3 rows"),
        ([{"a": "x", "output": "y"}], {"template": "{b}"}, r"names '\{b\}', which is no column"),
        ([{"a": "x", "output": "y"}], {"template": "fixed"}, "names no column"),
        ([{"messages": [{"role": "robot", "content": "x"}]}], {}, "row 1: .*there is no role 'robot'"),
        ([{"messages": "no list"}], {}, "row 1: 'messages' is 'no list', which is no list of turns"),
    ],
)
def test_a_shape_that_is_not_known_is_explained(rows, spec, message):
    with pytest.raises(UserError, match=message):
        turns(rows, **spec)


def test_rows_without_an_answer_are_left_out_and_named():
    rows = [{"prompt": f"p{n}", "completion": "" if n == 2 else "c"} for n in range(1, 5)]
    examples, notes = to_examples(rows, DataSpec(rows=rows), "instructions", "rows")
    assert [e.row for e in examples] == [1, 3, 4]
    assert "1 row without an answer was left out (row 2)" in notes


def test_plain_text_is_read_whole():
    examples, _ = to_examples([{"text": "Once."}, {"text": " "}], DataSpec(rows=[{"text": "Once."}]), "text", "rows")
    assert [e.text for e in examples] == ["Once."]


ROWS = [{"prompt": f"question {n // 2}", "completion": f"answer {n}"} for n in range(40)]  # every prompt twice


@pytest.mark.parametrize(("heldout", "expected"), [(0.25, 10), (6, 6)])
def test_no_prompt_stands_on_both_sides(heldout, expected):
    split = read_data(DataSpec(rows=ROWS, heldout=heldout))
    assert len(split.heldout) == expected
    assert len(split.train) + len(split.heldout) == 40
    assert not {e.prompt for e in split.train} & {e.prompt for e in split.heldout}


def test_the_division_follows_from_the_seed_alone():
    def division(seed):
        return [e.row for e in read_data(DataSpec(rows=ROWS, heldout=6, seed=seed)).heldout]

    assert division(1) == division(1) != division(2)


def test_a_file_of_its_own_is_held_out_and_leaks_are_told(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("prompt,completion\nquestion 0,answer 0\nnew,one\n")
    split = read_data(DataSpec(rows=ROWS, heldout=str(path)))
    assert {e.prompt for e in split.heldout} == {"question 0", "new"}
    assert any("1 held-out rows are also training rows" in note for note in split.notes)


def test_a_data_frame_and_a_data_set_are_rows_too():
    import datasets

    frame = pandas.DataFrame(ROWS)
    expected = read_data(DataSpec(rows=ROWS, heldout=4)).sha256
    assert read_data(DataSpec(rows=frame, heldout=4)).sha256 == expected
    assert read_data(DataSpec(rows=datasets.Dataset.from_list(ROWS), heldout=4)).sha256 == expected


def test_cells_of_a_frame_are_what_a_person_reads_there():
    import datetime

    import numpy

    frame = pandas.DataFrame(
        {
            "day": pandas.to_datetime(["2024-01-02", "2024-01-02 10:30"], format="mixed"),
            "in Berlin": pandas.to_datetime(["2024-01-02", "2024-07-02"]).tz_localize("Europe/Berlin"),
            "for": pandas.to_timedelta(["1 days 02:00:00", None]),
            "kind": pandas.Categorical(["spam", None]),
            "count": pandas.array([7, None], dtype="Int64"),
            "known": pandas.array([True, None], dtype="boolean"),
            "share": [0.123456789012345, float("nan")],
            "raw": [b"x", "é".encode()],
            "turns": [[{"role": "user", "at": pandas.Timestamp("2024-01-02")}], numpy.array([1, 2])],
            "moment": [numpy.datetime64("2024-01-02"), numpy.datetime64("NaT")],
            "date": [datetime.date(2024, 1, 2), pandas.NaT],
        },
        index=["a", "b"],
    )
    first, second = DataSpec(rows=frame).rows
    assert first == {
        "day": "2024-01-02",
        "in Berlin": "2024-01-02T00:00:00+01:00",
        "for": "1 days 02:00:00",
        "kind": "spam",
        "count": 7,
        "known": True,
        "share": 0.123456789012345,
        "raw": "x",
        "turns": [{"role": "user", "at": "2024-01-02"}],
        "moment": "2024-01-02",
        "date": "2024-01-02",
    }
    assert [type(first[name]) for name in ("count", "known", "share")] == [int, bool, float]
    assert second["day"] == "2024-01-02T10:30:00"
    assert second["turns"] == [1, 2]
    assert {second[name] for name in ("for", "kind", "count", "known", "share", "moment", "date")} == {None}
    assert json.loads(json.dumps([first, second])) == [first, second]


def test_cells_of_a_data_set_and_of_a_list_are_treated_alike():
    import datetime

    import datasets

    rows = [{"at": datetime.datetime(2024, 1, 2), "took": datetime.timedelta(hours=3), "raw": b"abc", "n": 1.5}]
    expected = ({"at": "2024-01-02", "took": "3:00:00", "raw": "abc", "n": 1.5},)
    assert DataSpec(rows=rows).rows == expected
    assert DataSpec(rows=datasets.Dataset.from_list(rows)).rows == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pandas.DataFrame([[1, 2]], columns=["a", "a"]), "the column 'a' stands twice"),
        ([{"a": b"\xff"}], "row 1, 'a': holds bytes that are no UTF-8 text"),
        ([{"a": "x"}, {"a": ["é", {"b": "Hi \ud800"}]}], r"row 2, 'a': 'b': holds half a character \(\\ud800 alone\)"),
    ],
)
def test_cells_that_are_no_text_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        DataSpec(rows=rows)


def test_one_row_is_read_to_be_looked_at_and_can_t_be_trained_on():
    split = read_data(DataSpec(rows=ROWS[:1]))
    assert (len(split.train), len(split.heldout)) == (1, 0)
    with pytest.raises(UserError, match="nothing can be held out"):
        split.check()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"rows": []}, r"rows = \[\]"),
        ({"source": "no such thing"}, "neither a built-in set"),
        ({"source": "owner/name"}, "can't be had from the Hugging Face Hub"),
    ],
)
def test_data_that_cannot_be_had_is_explained(spec, message):
    with pytest.raises(UserError, match=message):
        read_data(DataSpec(**spec))


def test_real_files_are_read(shared_data):
    alpaca = read_data(DataSpec(source=str(shared_data / "instruct_small" / "instruction-data.json")))
    assert len(alpaca.train) > 900
    assert any("\n\n" in e.prompt for e in alpaca.train)
    bank = shared_data / "banking77"
    split = read_data(DataSpec(source=str(bank / "train.csv"), heldout=str(bank / "test.csv")))
    assert (len(split.train), len(split.heldout)) == (10003, 3080)
    assert len({e.answer for e in split.train}) == 77
    slots = read_data(DataSpec(source=str(shared_data / "self_instruct" / "user_oriented_instructions.jsonl"),
                               columns={"prompt": "instruction", "completion": "motivation_app"}))  # fmt: skip
    assert len(slots.train) > 200
