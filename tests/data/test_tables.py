"""Tables with quotes that are not closed, and tables as spreadsheets and pandas write them."""

from __future__ import annotations

import csv
import io
import json

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelab import DataSpec, UserError, read_data
from tunelab.data.reading import Bad, read_table
from tunelab.data.reading.quoting import quoted_records

GOOD = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(1, 9)]
LINES = [f"question {n},answer {n}" for n in range(1, 9)]


def table_of(tmp_path, text, name="a.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return read_table(path)


def rows_and_bad(tmp_path, lines):
    rows = list(table_of(tmp_path, "\n".join(["prompt,completion", *lines]) + "\n").rows)
    return [row for row in rows if not isinstance(row, Bad)], [row.where for row in rows if isinstance(row, Bad)]


@pytest.mark.parametrize(
    ("opens", "closes", "bad"),
    [
        ('"He said hello,yes', 'bye,"so he said"', ["line 2"]),
        ('bye,"He said hello', 'bye,"', ["line 2", "line 11"]),
        ('bye,"He said hello', '15" screen,wide', ["line 2", "line 11"]),
        ('bye,"He said hello', 'screen of 15",wide', ["line 2", "line 11"]),
        ('bye,"He said hello', None, ["line 2"]),
        ('bye,"Hello" he said', 'bye,"Hello" he said', ["line 2", "line 11"]),
        ('bye,"He said hello', 'bye,"two\nlines, quoted"', ["line 2"]),
    ],
    ids=["a cell", "another open quote", "in a cell", "ends a cell", "never", "twice on one line", "a cell of lines"],
)
def test_rows_behind_a_quote_that_is_not_closed_are_read_and_the_quote_is_listed(tmp_path, opens, closes, bad):
    rows, left_out = rows_and_bad(tmp_path, [opens, *LINES, *([closes] if closes else []), "last,row"])
    assert [row for row in rows if row in GOOD] == GOOD
    assert rows[-1] == {"prompt": "last", "completion": "row"}
    assert left_out == bad
    others = [row for row in rows[:-1] if row not in GOOD]
    assert all(closes and row["completion"] in closes for row in others)


@pytest.mark.parametrize(
    ("cell", "bad"),
    [
        (['one,"He said: "hi" to me.', "", 'Then, he left."'], {"line 6": 8}),
        (['one,"He came.', 'He said "hi" to me.', "And, more,", 'Then, he left."'], {"line 6": 9}),
        (['one,"He came.', '"Hi", he said, and', 'left."'], {"line 6": 8}),
        (['one,"He came.', 'He said "hi" to me.', 'he left,then he came."'], {"line 6": 7, "line 8": None}),
    ],
)
def test_pieces_of_a_text_with_a_wrong_quote_are_no_rows(tmp_path, cell, bad):
    rows = list(table_of(tmp_path, "\n".join(["prompt,completion", *LINES[:4], *cell, *LINES[4:]])).rows)
    assert [row for row in rows if not isinstance(row, Bad)] == GOOD
    reasons = {row.where: row.reason for row in rows if isinstance(row, Bad)}
    assert reasons.keys() == bad.keys()
    for where, last in bad.items():
        assert ("left out up to" in reasons[where]) == (last is not None)
        assert last is None or f"left out up to line {last}" in reasons[where]


def test_a_text_alone_in_its_column_goes_on_to_the_quote_that_closes_it(tmp_path):
    text = 'text\nbefore\n"He said "hi" to me.\nOn the next day\nhe left."\nafter\n'
    rows = list(table_of(tmp_path, text).rows)
    assert [row for row in rows if not isinstance(row, Bad)] == [{"text": "before"}, {"text": "after"}]
    with pytest.raises(UserError, match="line 3: a double quote opens a cell here and is never closed"):
        table_of(tmp_path, 'text\nbefore\n"He said "hi" to me\nafter\n')


def test_each_broken_row_counts_and_too_many_of_them_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt,completion\n" + '"Hello she said,yes\n' * 20 + "one,two\n")
    with pytest.raises(UserError, match=r"a\.csv, line 2: a double quote .* \(20 of 21 rows can't be read\)"):
        read_data(DataSpec(source=str(path)))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(['"', '""', '","', ",", ", ", "\n", "a", "b,c\n", '"d",e\n']), max_size=40).map("".join)
)
def test_wherever_quotes_stand_every_line_is_part_of_one_record_and_none_is_lost(text):
    lines = text.splitlines(keepends=True)
    try:
        records = list(quoted_records(lines, ",", "a.csv"))
    except UserError:  # the last quote is never closed
        assert '"' in text
        return
    begins = [line for line, _cells in records]
    assert begins or not text.strip()
    assert begins == sorted(set(begins))
    for (line, cells), following in zip(records, [*begins, len(lines) + 1][1:], strict=True):
        own = "".join(lines[line - 1 : following - 1]).rstrip("\n")
        if isinstance(cells, Bad):
            last = int(cells.reason.rpartition("up to line ")[2].rstrip(")")) if "up to line" in cells.reason else line
            assert line <= last < following
            assert not "".join(lines[last : following - 1]).strip()
        elif '"' not in own:
            assert cells == own.split(",")
        else:
            assert [cells] == list(csv.reader(lines[line - 1 : following - 1]))[:1]


LONG = "\n\n".join(f'Paragraph {n}, "quoted", and more,\n- a list, of\n- things' for n in range(400))


@pytest.mark.parametrize(
    "text",
    [LONG, "a,b\nc,d\n", "Roses are red,\nviolets are blue,", "a\n\n", "one\ntwo\nthree", 'He said:\n"Hi,\nyou"', "x,"],
)
@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_whatever_is_quoted_as_it_should_be_is_read_as_it_was_written(tmp_path, text, columns, delimiter):
    names = ["prompt", "completion", "label"][:columns]
    rows = [{name: text.replace(",", delimiter) if n % 2 == 0 else f"x{n}" for name in names} for n in range(6)]
    data = io.StringIO(newline="")
    writer = csv.DictWriter(data, names, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    assert list(table_of(tmp_path, data.getvalue()).rows) == rows


def test_a_cell_whose_lines_are_like_rows_is_read_as_it_is_quoted_and_said(tmp_path):
    lines = "\n".join(LINES)
    table = table_of(tmp_path, f'prompt,completion\nlist,"Here they are:\nname,age\nBob,3"\n{lines}\n')
    assert list(table.rows) == [{"prompt": "list", "completion": "Here they are:\nname,age\nBob,3"}, *GOOD]
    (note,) = table.notes
    assert note.startswith("warning: a quoted cell goes on from line 2 to line 4")
    assert len(table_of(tmp_path, f'prompt,completion\nlist,"Here, they are:\nBob: 3"\n{lines}\n').notes) == 0


def test_such_a_note_is_made_of_a_large_file_as_well(tmp_path, monkeypatch):
    from tunelab.data.reading import files

    monkeypatch.setattr(files, "IN_MEMORY", 1)
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion\nlist,"They are:\nname,age\nBob,3"\n' + "\n".join(LINES))
    (note,) = [note for note in read_data(DataSpec(source=str(path))).notes if "quoted cell" in note]
    assert "from line 2 to line 4" in note


def test_a_header_with_an_open_quote_is_no_reason_to_take_a_row_for_it(tmp_path):
    with pytest.raises(UserError, match=r"a\.csv, line 1.*double quote"):
        table_of(tmp_path, 'prompt,"completion\none,"two"\nthree,four\n')


def test_a_cell_below_no_name_is_listed_wherever_it_stands(tmp_path):
    rows, left_out = rows_and_bad(tmp_path, [])
    assert (rows, left_out) == ([], [])
    text = "prompt,completion,\n" + "a,b,\n" * 300 + "a,b,c\n"
    *good, bad = table_of(tmp_path, text).rows
    assert good == [{"prompt": "a", "completion": "b"}] * 300
    assert (bad.where, "cell 3, 'c'" in bad.reason) == ("line 302", True)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_first_line_that_names_the_delimiter_is_obeyed_and_is_no_row(tmp_path, delimiter, quote):
    lines = ["a: x, y; z" if delimiter not in ",;" else "a: x y z", "b"]
    text = f"{quote}sep={delimiter}{quote}\r\nprompt{delimiter}completion\r\n" + f"{delimiter.join(lines)}\r\n" * 2
    rows = list(table_of(tmp_path, text + f"one{delimiter}two{delimiter}three\r\n").rows)
    assert rows[:2] == [{"prompt": lines[0], "completion": "b"}] * 2
    assert rows[2].where == "line 5"


@pytest.mark.parametrize("orient", ["split", "records", "index", "columns", "table"])
@pytest.mark.parametrize("index", [None, ["x", "y"]])
@pytest.mark.parametrize("names", [["prompt", "completion"], ["text"]])
def test_a_frame_s_json_is_its_rows(tmp_path, orient, index, names):
    frame = pandas.DataFrame([{name: f"{name} {n}" for name in names} for n in range(2)], index=index)
    rows = list(table_of(tmp_path, frame.to_json(orient=orient), "a.json").rows)
    assert [{name: row[name] for name in names} for row in rows] == frame.to_dict("records")
    assert orient == "table" or list(rows[0]) == names


def test_a_frame_s_json_is_a_part_of_a_file_as_well(tmp_path):
    frame = pandas.DataFrame(GOOD)
    text = json.dumps({"train": json.loads(frame.to_json(orient="split")), "test": GOOD[:1]})
    assert list(table_of(tmp_path, text, "a.json").rows) == GOOD


def test_rows_of_a_frame_that_do_not_fit_its_columns_are_listed(tmp_path):
    good, bad = table_of(tmp_path, '{"columns": ["a", "b"], "data": [[1, 2], [3]]}', "a.json").rows
    assert good == {"a": 1, "b": 2}
    assert (bad.where, bad.reason) == ("row 2", "1 cells, but there are 2 columns (a, b)")
    with pytest.raises(UserError, match=r"a\.json: the column 'a' stands twice"):
        table_of(tmp_path, '{"columns": ["a", "a"], "data": [[1, 2]]}', "a.json")


def test_objects_keyed_by_an_id_are_rows_and_lists_side_by_side_are_columns(tmp_path):
    keyed = {"x": GOOD[0], "y": GOOD[1]}
    assert list(table_of(tmp_path, json.dumps(keyed), "a.json").rows) == GOOD[:2]
    columns = {"prompt": ["a", "b"], "completion": ["c", "d"], "tags": [["x"], ["y"]]}
    assert list(table_of(tmp_path, json.dumps(columns), "a.json").rows) == [
        {"prompt": "a", "completion": "c", "tags": ["x"]},
        {"prompt": "b", "completion": "d", "tags": ["y"]},
    ]


@pytest.mark.parametrize("part", ["test", "validation", "val", "dev", "eval", "heldout"])
def test_a_part_of_a_hub_data_set_is_a_test_part_by_the_names_that_files_have(tmp_path, monkeypatch, part):
    import datasets

    parts = {"extra": GOOD[4:], "train": GOOD[:4], part: GOOD[4:6]}
    made = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()})
    monkeypatch.setattr(datasets, "load_dataset", lambda _name, _subset: made)
    split = read_data(DataSpec(source="owner/name"))
    assert [example.prompt for example in split.train] == [row["prompt"] for row in GOOD[:4]]
    assert sorted(example.prompt for example in split.heldout) == [row["prompt"] for row in GOOD[4:6]]
    (tmp_path / "a.json").write_text(json.dumps(parts))
    own = read_data(DataSpec(source=str(tmp_path / "a.json")))
    assert [example.prompt for example in own.heldout] == [example.prompt for example in split.heldout]
