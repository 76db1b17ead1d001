"""Files as people have them: read as written, with what is wrong listed, or one error that names the place."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunelab import DataSpec, UserError, read_data
from tunelab.data.reading import SUFFIXES, Bad, files, opening, read_pasted, read_table

ROWS = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(1, 30)]
PAIR = [{"prompt": "Straße, bitte", "completion": "größer"}, {"prompt": "two\nlines", "completion": 'a "b"'}]


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content, encoding="utf-8", newline="")
    return path


def rows_of(path, header="auto"):
    return list(read_table(path, header).rows)


def csv_of(rows, delimiter=","):
    import csv

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def lines_of(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def zipped(members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def test_csv_cells_stay_what_was_written(tmp_path):
    path = write(tmp_path, "a.csv", '\ufeffid,text,label\r\n007,"one, two\r\nthree",NA\r\n1e5,,x\r\n\r\n')
    assert rows_of(path) == [
        {"id": "007", "text": "one, two\r\nthree", "label": "NA"},
        {"id": "1e5", "text": "", "label": "x"},
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_cuts_lines_alike(tmp_path, delimiter):
    text = f"prompt{delimiter}completion\n" + "".join(f"one, two; three{n}{delimiter}y\n" for n in range(4))
    if delimiter in ",;":
        text = text.replace(", " if delimiter == "," else "; ", " ")
    assert {tuple(row) for row in rows_of(write(tmp_path, "a.csv", text))} == {("prompt", "completion")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('text\tlabel\n"Good film\tpos\n15" screen\tneg\n', ['"Good film', '15" screen']),
        ('text\tlabel\n"Good film"\tpos\n"two\nlines"\tneg\n', ["Good film", "two\nlines"]),
        ('text\tlabel\nplain\tpos\n"quoted"\tneg\n', ["plain", "quoted"]),
    ],
    ids=["quotes in text", "quoted with a line end", "some quoted"],
)
def test_tabs_are_quoted_only_where_cells_are(tmp_path, text, expected):
    assert [row["text"] for row in rows_of(write(tmp_path, "a.tsv", text))] == expected


ENCODINGS = {
    "utf-8": "Straße größer, naïve café",
    "utf-8-sig": "Straße größer",
    "utf-16": "Straße größer",
    "utf-16-le": "Straße größer und noch mehr Wörter",
    "cp1252": "Straße größer, für „Äpfel“ und Übermut",
    "cp932": "これは日本語の文章です。映画はとても良かったです。",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_text_is_read_in_its_encoding_and_a_guess_is_said(tmp_path, encoding, suffix):
    rows = [{"prompt": f"{ENCODINGS[encoding]} {n}", "completion": "ja"} for n in range(5)]
    text = csv_of(rows) if suffix == ".csv" else lines_of(rows)
    table = read_table(write(tmp_path, f"a{suffix}", text.encode(encoding)))
    assert list(table.rows) == rows
    guessed = encoding in ("cp1252", "cp932", "utf-16-le")
    assert any("save it as UTF-8" in note for note in table.notes) == guessed


def test_json_in_all_its_forms(tmp_path):
    rows = [{"prompt": "a", "n": 1}, {"prompt": "ü", "n": 2}]
    lines = lines_of(rows)
    for name, content in (
        ("list.json", json.dumps(rows)),
        ("inside.json", json.dumps({"version": 2, "data": rows})),
        ("keyed.json", json.dumps({"q1": rows[0], "q2": rows[1]})),
        ("columns.json", json.dumps({"prompt": ["a", "ü"], "n": [1, 2]})),
        ("pandas.json", json.dumps({"prompt": {"0": "a", "1": "ü"}, "n": {"0": 1, "1": 2}})),
        ("lines.jsonl", lines + "\n\n"),
        ("lines-called.json", lines),
        ("list-called.jsonl", json.dumps(rows)),
        ("pretty-list-called.jsonl", json.dumps(rows, indent=2)),
        ("packed.jsonl.gz", gzip.compress(lines.encode())),
        ("packed.json.gz", gzip.compress(json.dumps(rows).encode())),
        ("packed.zip", zipped({"inner/rows.jsonl": lines, "__MACOSX/._rows.jsonl": b"\0\1", "readme.md": "# Rows"})),
    ):
        assert rows_of(write(tmp_path, name, content)) == rows, name


def test_a_file_and_an_archive_with_a_test_part_are_their_own_split(tmp_path):
    train, test = ROWS[:5], ROWS[5:8]
    for name, content in (
        ("parts.json", json.dumps({"train": train, "test": test})),
        ("parts.zip", zipped({"data/train.csv": csv_of(train), "data/test.csv": csv_of(test)})),
    ):
        split = read_data(DataSpec(source=str(write(tmp_path, name, content))))
        assert [e.prompt for e in split.train] == [row["prompt"] for row in train]
        assert sorted(e.prompt for e in split.heldout) == [row["prompt"] for row in test]


OFFICE = "http://schemas.openxmlformats.org/"
TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
SHEET = {
    "[Content_Types].xml": f'''<Types xmlns="{OFFICE}package/2006/content-types">
        <Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
        <Override PartName="/xl/workbook.xml" ContentType="{TYPE}.sheet.main+xml"/>
        <Override PartName="/xl/worksheets/sheet1.xml" ContentType="{TYPE}.worksheet+xml"/></Types>''',
    "_rels/.rels": f'''<Relationships xmlns="{OFFICE}package/2006/relationships">
        <Relationship Id="r1" Type="{OFFICE}officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/>
        </Relationships>''',
    "xl/workbook.xml": f'''<workbook xmlns="{OFFICE}spreadsheetml/2006/main"
        xmlns:r="{OFFICE}officeDocument/2006/relationships">
        <sheets><sheet name="rows" sheetId="1" r:id="r1"/></sheets></workbook>''',
    "xl/_rels/workbook.xml.rels": f'''<Relationships xmlns="{OFFICE}package/2006/relationships">
    <Relationship Id="r1" Target="worksheets/sheet1.xml" Type="{OFFICE}officeDocument/2006/relationships/worksheet"/>
        </Relationships>''',
    "xl/worksheets/sheet1.xml": f'''<worksheet xmlns="{OFFICE}spreadsheetml/2006/main"><sheetData>
        <row><c t="inlineStr"><is><t>prompt</t></is></c><c t="inlineStr"><is><t>completion</t></is></c></row>
        <row><c t="inlineStr"><is><t>Hi</t></is></c><c><v>3</v></c></row>
        <row><c t="inlineStr"><is><t>x &amp; y</t></is></c><c><v>2.5</v></c></row></sheetData></worksheet>''',
}


def test_parquet_and_excel_are_read_as_their_rows(tmp_path):
    import pandas

    pandas.DataFrame(PAIR).to_parquet(tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == PAIR
    book = zipped(SHEET)
    table = read_table(write(tmp_path, "a.xlsx", book))
    assert list(table.rows) == [{"prompt": "Hi", "completion": "3"}, {"prompt": "x & y", "completion": "2.5"}]
    assert "'empty'" not in " ".join(table.notes)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_text_with_a_byte_that_is_no_text_is_refused_at_its_line(tmp_path, mark):
    with pytest.raises(UserError, match=r"a\.txt, line 2: holds a byte \(0xff\) that is not UTF-8"):
        rows_of(write(tmp_path, "a.txt", mark + "Größe\näöü".encode() + b"\xff\n"))
    with pytest.raises(UserError, match=r"a\.txt, line 2: holds a NUL byte"):
        rows_of(write(tmp_path, "a.txt", mark + b"one\ntwo\0"))


def test_plain_text_is_one_document_and_an_archive_of_texts_several(tmp_path):
    assert rows_of(write(tmp_path, "a.md", "# One\r\n\r\ntwo")) == [{"text": "# One\n\ntwo"}]
    assert rows_of(write(tmp_path, "a.zip", zipped({"1.txt": "one", "2.txt": "two"}))) == [
        {"text": "one"},
        {"text": "two"},
    ]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (lines_of(ROWS[:2]), ROWS[:2]),
        (json.dumps(ROWS[:2], indent=1), ROWS[:2]),
        (csv_of(ROWS[:3]), ROWS[:3]),
        (csv_of(ROWS[:3], "\t"), ROWS[:3]),
        ("Once upon a time.\nThe end.", [{"text": "Once upon a time.\nThe end."}]),
    ],
    ids=["lines", "list", "csv", "tabs", "text"],
)
def test_pasted_text_is_read_as_what_it_looks_like(text, rows):
    assert list(read_pasted(text).rows) == rows


@pytest.mark.parametrize(
    ("text", "why"),
    [("1,good film\n2,bad film\n", "number"), ("I liked it a lot.,pos\nNot my film.,neg\n", "sentence")],
)
def test_a_first_line_that_is_a_row_is_no_header(tmp_path, text, why):
    path = write(tmp_path, "a.csv", text)
    with pytest.raises(UserError, match=f"no header.*{why}.*--header none"):
        rows_of(path)
    assert len(rows_of(path, "none")) == 2
    assert list(rows_of(path, "none")[0]) == ["column1", "column2"]
    assert len(rows_of(path, "first row")) == 1


def test_rows_that_can_t_be_read_are_listed_and_the_others_learned(tmp_path):
    lines = lines_of(ROWS).splitlines()
    lines[16] = lines[16].replace('"completion"', '"completion')
    lines[20] = "[1]"
    split = read_data(DataSpec(source=str(write(tmp_path, "a.jsonl", "\n".join(lines)))))
    assert len(split.train) + len(split.heldout) == len(ROWS) - 2
    (note,) = [note for note in split.notes if "can't be read" in note]
    assert note.startswith("warning: 2 rows")
    assert "line 17: not valid JSON" in note
    assert "line 21" in note
    text = csv_of(ROWS).replace("It is 4.", "It, is 4.")
    split = read_data(DataSpec(source=str(write(tmp_path, "a.csv", text))))
    assert any("line 5: 3 cells, but there are 2 columns (prompt, completion)" in note for note in split.notes)


def test_a_file_that_is_mostly_broken_is_refused_at_its_first_bad_line(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"prompt": "a", "completion": "b"}\nx\ny\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: not valid JSON.*2 of 3 rows"):
        read_data(DataSpec(source=str(path)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "", "empty.csv is empty"),
        ("blank.jsonl", " \n\n", "blank.jsonl is empty"),
        ("header.csv", "prompt,completion\n", "header.csv holds no rows"),
        ("none.json", "[]", "none.json holds no rows"),
        ("a.docx", "x", r"type '\.docx' are not read. Allowed: .*\.jsonl"),
        ("quotes.csv", 'a,b\n1,2\n"x,1\n', "line 3: a double quote opens a cell here and is never closed"),
        ("twice.csv", "a,a\n1,2\n", "column 'a' stands twice"),
        ("nul.csv", b"a,b\n1,2\n\x00,1\n", "line 3: holds a NUL byte"),
        ("word.json", '"hello"', "must hold a list of objects; it holds 'hello'"),
        ("broken.json", json.dumps(ROWS, indent=0).replace('"completion"', '"completion', 1), "line 4, column 15"),
        ("numbers.json", "[1, 2]", "row 1: is 1, not an object"),
        ("two.json", json.dumps({"a": ROWS, "b": ROWS}), "holds several lists of objects"),
        ("renamed.json", pickle.dumps(ROWS), "a Python pickle, which can run code"),
        ("renamed.csv", b"%PDF-1.7 x", "a PDF"),
        ("a.parquet", "x", "can't be read as Parquet"),
        ("a.xlsx", "x", "can't be read as an Excel file"),
        ("a.zip", b"PK\x03\x04 and no more", "can't be unpacked"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "can't be unpacked"),
        ("up.zip", zipped({"../rows.jsonl": "{}"}), "leads out of the archive"),
        ("two.zip", zipped({"a.jsonl": "{}", "b.jsonl": "{}"}), "several files with rows"),
        ("none.zip", zipped({"a.png": "x"}), "files of type '.png' are not read"),
        ("wide.csv", ",".join(f"c{n}" for n in range(10_000)) + "\n1\n", "names 10,000 columns; at most 1,000"),
        ("deep.json", "[" * 100_000, "nested more than 50 deep"),
        ("deep.jsonl", '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 1: .*nested more than 50 deep"),
        ("half.jsonl", '{"prompt": "\\ud800", "completion": "x"}', r"half a character \(.ud800 alone\)"),
        ("twice.jsonl", '{"prompt": "a", "prompt": "b", "completion": "x"}', "names the key 'prompt' twice"),
        ("\u202egpj.jsonl", "x", "�gpj.jsonl"),
        ("n" * 240 + ".csv", "", "n…n"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_next_step(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read_data(DataSpec(source=str(write(tmp_path, name, content))))
    assert len(str(caught.value)) <= 400
    assert str(tmp_path) not in str(caught.value)


def test_names_that_no_file_can_have_are_not_found_and_nothing_else(tmp_path):
    for name in ("n" * 300 + ".csv", "nothing.csv", "~nobody-of-that-name/rows.csv"):
        with pytest.raises(UserError, match=r"There is no file") as caught:
            read_data(DataSpec(source=name if name.startswith("~") else str(tmp_path / name)))
        assert len(str(caught.value)) <= 400


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    info = zipfile.ZipInfo("rows.jsonl")
    info.external_attr = 0o120777 << 16
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="leads out of the archive"):
        rows_of(write(tmp_path, "a.zip", data.getvalue()))


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.zip"])
def test_what_unpacks_to_too_much_is_refused_while_it_is_read(tmp_path, monkeypatch, name):
    monkeypatch.setattr(opening, "RATIO_FROM", 1_000_000)
    zeros = b" " * 20_000_000
    path = write(tmp_path, name, gzip.compress(zeros) if name.endswith("gz") else zipped({"a.jsonl": zeros}))
    with pytest.raises(UserError, match="unpacks to more than"):
        rows_of(path)


def test_a_line_without_end_costs_its_own_row_alone(tmp_path):
    path = write(
        tmp_path, "a.jsonl", lines_of(ROWS[:2]) + '{"prompt": "' + "x" * 50_000_000 + '"}\n' + lines_of(ROWS[2:4])
    )
    *good, bad, third, fourth = rows_of(path)
    assert [*good, third, fourth] == ROWS[:4]
    assert isinstance(bad, Bad)
    assert "longer than 20,000,000 characters" in bad.reason


def test_a_file_that_is_too_large_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="at most"):
        rows_of(write(tmp_path, "large.csv", "a,b\n" + "1,2\n" * 10))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_large_files_are_read_anew_each_time_and_give_the_same(tmp_path, monkeypatch, suffix):
    path = write(tmp_path, f"a{suffix}", csv_of(ROWS) if suffix == ".csv" else lines_of(ROWS))
    monkeypatch.setattr(files, "IN_MEMORY", 1)
    table = read_table(path)
    assert not isinstance(table.rows, list)
    assert list(table.rows) == list(table.rows) == ROWS


PIECES = st.sampled_from(
    [
        *(b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\xed\xa0\x80", b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"\\ud800"),
        *(bytes([sign]) for sign in b"\"'{}[]:,;\t|\r\n-"),
        *(b'"prompt"', b'"completion"', b"prompt,completion\n", b"NaN", b"1e999", b"null", b'{"messages": [{"role": '),
        b'{"prompt": "a", "completion": "b"}\n',
    ]
)
CONTENT = st.one_of(
    st.binary(max_size=200), st.lists(st.one_of(PIECES, st.binary(max_size=8)), max_size=30).map(b"".join)
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENT, suffix=st.sampled_from(SUFFIXES), learn=st.sampled_from(["instructions", "text"]))
def test_whatever_a_file_holds_it_is_read_or_refused_in_words(tmp_path, content, suffix, learn):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    split = read_or_refused(DataSpec(source=str(path)), learn)
    for example in [*split.train, *split.heldout] if split else []:
        assert (example.text or "".join(m.content for m in example.messages)).encode()


def read_or_refused(spec, learn="instructions"):
    try:
        return read_data(spec, learn)
    except UserError as error:
        refusal = str(error)
    assert 20 < len(refusal) <= 400
    return None


KEYS = st.one_of(
    st.sampled_from(
        "prompt completion messages role content from value conversations instruction input output text label choices "
        "answer history system chosen rejected question context tool_calls weight image qas instances".split()
    ),
    st.text(max_size=5),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(rows=st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=5))
def test_whatever_rows_hold_they_are_read_or_refused_in_words(rows):
    read_or_refused(DataSpec(rows=tuple(rows)))
