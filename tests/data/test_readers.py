"""Files as people have them: read as written, or one error that names the line."""

from __future__ import annotations

import json

import pytest

from tunelab import UserError
from tunelab.data.readers import read_rows


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content, encoding="utf-8")
    return path


def test_csv_cells_stay_what_was_written(tmp_path):
    path = write(tmp_path, "a.csv", '\ufeffid,text,label\n007,"one, two\nthree",NA\n1e5,,\n\n')
    assert read_rows(path) == [
        {"id": "007", "text": "one, two\nthree", "label": "NA"},
        {"id": "1e5", "text": "", "label": ""},
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_in_the_header(tmp_path, delimiter):
    path = write(tmp_path, "a.csv", f"prompt{delimiter}completion\nx{delimiter}y\n")
    assert read_rows(path) == [{"prompt": "x", "completion": "y"}]


def test_json_in_all_its_shapes(tmp_path):
    rows = [{"a": 1}, {"a": "ü"}]
    lines = "\n".join(json.dumps(row) for row in rows)
    for name, content in (
        ("list.json", json.dumps(rows)),
        ("inside.json", json.dumps({"version": 2, "data": rows})),
        ("lines.jsonl", lines + "\n\n"),
        ("lines-called.json", lines),
        ("list-called.jsonl", json.dumps(rows)),
        ("pretty-list-called.jsonl", json.dumps(rows, indent=2)),
    ):
        assert read_rows(write(tmp_path, name, content)) == rows, name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "", "empty.csv is empty"),
        ("blank.jsonl", " \n\n", "blank.jsonl is empty"),
        ("header.csv", "prompt,completion\n", "header.csv holds no rows"),
        ("none.json", "[]", "none.json holds no rows"),
        ("a.parquet", "x", r"'\.parquet' are not read. Allowed: .*\.jsonl"),
        ("wide.csv", "a,b\n1,2\n1,2,3\n", r"line 3: 3 cells, but the header names 2 columns \(a, b\)"),
        ("quotes.csv", 'a,b\n"x"y,1\n', "line 2: .*Check the quotes"),
        ("twice.csv", "a,a\n1,2\n", "column 'a' stands twice"),
        ("latin.csv", b"a,b\n\xe9,1\n", r"not UTF-8 text \(byte 4\)"),
        ("nul.csv", b"a,b\n1,2\n\x00,1\n", "line 3: holds a NUL byte"),
        ("word.json", '"hello"', "must hold a list of objects; it holds str"),
        ("mixed.json", '[{"a": 1}, 2]', "row 2: is 2, not an object"),
        ("mixed.jsonl", '{"a": 1}\n[2]\n', r"line 2: is \[2\], not an object"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_next_step(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        read_rows(write(tmp_path, name, content))


@pytest.mark.parametrize("name", ["broken.jsonl", "broken.json"])
def test_json_broken_at_line_17_says_so(tmp_path, name):
    lines = [json.dumps({"prompt": f"p{n}", "completion": "c"}) for n in range(1, 30)]
    lines[16] = lines[16].replace('"completion"', '"completion')
    text = "\n".join(lines) if name.endswith("l") else "[" + ",\n".join(lines) + "]"
    with pytest.raises(UserError, match=f"{name}, line 17: not valid JSON"):
        read_rows(write(tmp_path, name, text))


def test_a_missing_file_and_one_that_is_too_large(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="There is no file"):
        read_rows(tmp_path / "nothing.csv")
    monkeypatch.setattr("tunelab.data.readers.MAX_BYTES", 10)
    with pytest.raises(UserError, match="at most"):
        read_rows(write(tmp_path, "large.csv", "a,b\n" + "1,2\n" * 10))
