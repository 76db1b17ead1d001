"""Rows are divided in strata where their answers are labels, and by the column that says whose they are."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tunelab import DataSpec, UserError, examine, read_data


def labelled(counts):
    return [{"text": f"row {n} of {label}", "label": label} for label, count in counts.items() for n in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_every_label_keeps_its_share(seed):
    counts = {"common": 300, "usual": 100, "rare": 20}
    split = read_data(DataSpec(rows=labelled(counts), heldout=0.1, seed=seed))
    assert Counter(row.answer for row in split.heldout) == {"common": 30, "usual": 10, "rare": 2}
    assert Counter(row.answer for row in split.train) == {"common": 270, "usual": 90, "rare": 18}
    first = Counter(row.answer for row in split.train[:100])
    assert first.keys() == counts.keys()  # evaluation and `limit` take the first rows


def test_rows_of_one_group_stay_on_one_side_and_the_notes_say_so():
    rows = [
        {"prompt": f"Question {n}", "completion": f"A long answer with the number {n}.", "patient": n // 4 or None}
        for n in range(80)
    ]
    split = read_data(DataSpec(rows=rows, columns={"group": "patient"}, heldout=0.2))
    patients = [{row.group for row in side} - {""} for side in (split.train, split.heldout)]
    assert not patients[0] & patients[1]
    assert 14 <= len(split.heldout) <= 18
    assert split.columns["group"] == "patient"
    assert any("rows of one group stay on one side: 19 groups; 4 rows name none" in note for note in split.notes)


def test_a_group_column_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"customer.*given for 'group'"):
        read_data(DataSpec(rows=labelled({"a": 5, "b": 5}), columns={"group": "customer"}))


def test_all_rows_of_one_group_cannot_be_divided():
    rows = [{"prompt": f"q{n}", "completion": f"answer {n}", "doc": "x"} for n in range(10)]
    with pytest.raises(UserError, match="or a group"):
        read_data(DataSpec(rows=rows, columns={"group": "doc"}))


@pytest.mark.parametrize("form", ["rows", "spec", "file"])
def test_rows_are_examined_wherever_they_come_from(form, tmp_path):
    rows = [*labelled({"a": 20, "b": 20}), *labelled({"a": 3})]
    data = {"rows": rows, "spec": DataSpec(rows=rows), "file": None}[form]
    if form == "file":
        path = tmp_path / "rows.csv"
        path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
        data = str(path)
    found = {finding.kind: finding for finding in examine(data).findings}
    assert found["duplicates"].count == 3


def test_a_test_part_of_its_own_is_compared_with():
    train, test = labelled({"a": 20, "b": 20}), labelled({"a": 2})
    found = {f.kind: f for f in examine(DataSpec(rows=train, heldout_rows=test)).findings}
    assert found["leakage"].count == 2
    mended = read_data(DataSpec(rows=train, heldout_rows=test, fixes=("drop-leaked",)))
    assert len(mended.train) == 38
    assert not [note for note in mended.notes if "warning" in note]
    again = examine(DataSpec(rows=train, heldout_rows=test, fixes=("drop-leaked",)))
    assert "leakage" not in {finding.kind for finding in again.findings}
    assert again.notes[:2] == mended.notes[:2]
    assert "drop-leaked: 2 rows dropped (row 1, 2)" in again.notes


def test_what_was_read_and_what_is_named_by_a_path_are_examined_and_other_things_refused(tmp_path):
    rows = [{"question": f"Why is part {n} loose?", "answer": f"Because of screw {n}."} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = examine(read_data(DataSpec(rows=rows, heldout=2)))
    assert (read.rows, read.heldout_rows) == (10, 2)
    assert examine(tmp_path / "rows.jsonl").rows == examine(rows).rows == 12
    for other in (7, [1, 2], {"a": 1}, None):
        with pytest.raises(UserError) as caught:
            examine(other)
        assert len(str(caught.value)) <= 400
