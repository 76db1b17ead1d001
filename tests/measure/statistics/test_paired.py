"""Anybody's result files: read, joined, judged, and refused in one sentence."""

from __future__ import annotations

import csv
import json
import math

import numpy
import pytest

from tunelab import UserError
from tunelab.cli import main
from tunelab.measure.statistics import paired_bootstrap
from tunelab.measure.statistics.joining import join
from tunelab.measure.statistics.paired import paired
from tunelab.measure.statistics.results import Results, read_results

ROWS = 60


@pytest.fixture
def sides():
    """Right and wrong of two sides, by question."""
    generator = numpy.random.default_rng(4)
    before = generator.random(ROWS) < 0.3
    after = before | (generator.random(ROWS) < 0.5)
    return {f"q{n}": (bool(a), bool(b)) for n, (a, b) in enumerate(zip(before, after, strict=True))}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_csv(path, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def log_line(number, scores, through="none", named=True):
    """A line as lm_eval --log_samples writes it."""
    line = {"doc_id": number, "doc": {"question": f"{number} + 1?", "score": 3}, "target": str(number + 1)}
    line |= {"arguments": {"gen_args_0": {"arg_0": "…"}}, "resps": [["5"]], "filtered_resps": ["5"], "filter": through}
    line |= {"doc_hash": f"h{number}", "prompt_hash": "p", "target_hash": "t"}
    return line | ({"metrics": list(scores)} if named else {}) | scores


def logged(rows):
    return [log_line(n, {"correct": row["correct"]}) for n, row in enumerate(rows)]


def test_three_kinds_of_file_give_the_same_verdict(folder, sides):
    tables = [[{"id": key, "correct": int(pair[side])} for key, pair in sides.items()] for side in (0, 1)]
    kinds = {
        "csv": [write_csv(folder / f"{side}.csv", rows) for side, rows in enumerate(tables)],
        "lines": [write_lines(folder / f"{side}.jsonl", rows) for side, rows in enumerate(tables)],
        "log": [
            write_lines(
                folder / f"samples_{side}.jsonl",
                [log_line(n, {"correct": row["correct"]}) for n, row in enumerate(rows)],
            )
            for side, rows in enumerate(tables)
        ],
    }
    found = {kind: paired(*files).verdicts for kind, files in kinds.items()}
    assert found["csv"] == found["lines"] == found["log"]
    (verdict,) = found["csv"]
    expected = paired_bootstrap(*([100.0 * pair[side] for pair in sides.values()] for side in (0, 1)))
    assert (verdict.change.value, verdict.change.low, verdict.change.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert verdict.decision == "better"
    assert verdict.unit == "%"


def test_rows_are_joined_by_their_id_whatever_their_order_and_those_of_one_file_are_left_out(folder, sides):
    names = list(sides)
    before = write_csv(folder / "a.csv", [{"ID": key, "right": sides[key][0]} for key in names])
    after = write_lines(folder / "b.jsonl", [{"right": sides[key][1], "ID": key} for key in reversed(names[5:])])
    found = paired(before, after)
    assert (found.rows, found.joined_by) == (ROWS - 5, "ID")
    assert found.notes == ("5 of 60 rows of a.csv are left out: not all files have them",)
    expected = 100 * numpy.mean([sides[key][1] - sides[key][0] for key in names[5:]])
    assert found.verdicts[0].change.value == pytest.approx(expected)


def test_without_an_id_the_question_joins_and_without_one_the_position_which_is_said(folder):
    asked = [{"question": f"What is {n}?", "score": n % 7} for n in range(30)]
    other = [{"question": row["question"], "score": row["score"] + n % 3} for n, row in enumerate(asked)][::-1]
    found = paired(write_csv(folder / "a.csv", asked), write_csv(folder / "b.csv", other))
    assert found.joined_by == "question"
    assert found.verdicts[0].change.value == pytest.approx(1.0)
    scores = [[{"score": row["score"]} for row in rows] for rows in (asked, other[::-1])]
    found = paired(*(write_csv(folder / f"{n}.csv", rows) for n, rows in enumerate(scores)))
    assert found.joined_by == "position"
    assert found.verdicts[0].change.value == pytest.approx(1.0)
    assert any("as they stand" in note for note in found.notes)


def test_further_files_are_further_runs(folder, sides):
    base = write_csv(folder / "a.csv", [{"id": key, "correct": pair[0]} for key, pair in sides.items()])
    runs = []
    for seed in range(3):
        rows = [{"id": key, "correct": pair[1] and n % 9 != seed} for n, (key, pair) in enumerate(sides.items())]
        runs.append(write_csv(folder / f"seed{seed}.csv", rows))
    (verdict,) = paired(base, *runs).verdicts
    assert len(verdict.runs) == 3
    assert verdict.sentence.endswith("60 rows, 3 runs")


def test_a_log_with_hashes_of_its_questions_and_one_without_are_joined_by_number_which_is_said(folder, sides):
    rows = [[{"correct": int(pair[side])} for pair in sides.values()] for side in (0, 1)]
    hashed, other = (logged(side) for side in rows)
    bare = [{name: cell for name, cell in line.items() if name != "doc_hash"} for line in other]
    whole = paired(write_lines(folder / "a.jsonl", hashed), write_lines(folder / "b.jsonl", other))
    assert not any("number" in note for note in whole.notes)
    for lines in ((hashed, bare), (bare, hashed)):
        first, second = (write_lines(folder / f"{n}.jsonl", side) for n, side in enumerate(lines))
        found = paired(first, second)
        assert (found.rows, found.joined_by) == (ROWS, "doc_id")
        assert any("their number" in note for note in found.notes)
    # a CSV that names its rows by the same numbers
    table = [{"doc_id": n, **row} for n, row in enumerate(rows[1])]
    found = paired(write_lines(folder / "a.jsonl", hashed), write_csv(folder / "b.csv", table))
    assert (found.rows, found.joined_by) == (ROWS, "doc_id")
    assert not any(
        "number" in note for note in paired(folder / "a.jsonl", folder / "b.csv", id_column="position").notes
    )


@pytest.mark.parametrize("missing", [0, 1, ROWS - 1])
def test_other_questions_under_the_same_numbers_are_never_joined(folder, sides, missing):
    """Hashes tell, where two are known of a number; however many are missing beside."""
    lines = logged([{"correct": int(pair[0])} for pair in sides.values()])
    moved = [line | {"doc_hash": f"other {line['doc_hash']}"} for line in lines]
    for line in moved[:missing]:
        line["doc_hash"] = ""
    bare = [{name: cell for name, cell in line.items() if name != "doc_hash"} for line in lines]
    paths = [write_lines(folder / f"{name}.jsonl", one) for name, one in (("a", lines), ("b", moved), ("c", bare))]
    with pytest.raises(UserError, match=r"share no row|is another one in"):
        paired(*paths[:2])
    with pytest.raises(UserError, match=r"is another one in b\.jsonl than in a\.jsonl"):
        paired(*paths)


def test_filters_of_a_log_are_scores_of_their_own_and_older_logs_are_read(folder):
    for side, right in (("a", 0.0), ("b", 1.0)):
        lines = [log_line(n, {"exact_match": right}, "strict") for n in range(25)]
        lines += [log_line(n, {"exact_match": 1.0 - right}, "flexible") for n in range(25)]
        write_lines(folder / f"{side}.jsonl", lines)
    found = paired(folder / "a.jsonl", folder / "b.jsonl")
    assert {one.title: one.decision for one in found.verdicts} == {
        "exact match (strict)": "better",
        "exact match (flexible)": "worse",
    }
    old = write_lines(folder / "old.jsonl", [log_line(n, {"acc": 1.0, "acc_norm": 0.0}, named=False) for n in range(3)])
    assert read_results(old).rows[0] == {"doc_id": "0", "acc": 1.0, "acc_norm": 0.0}


def test_a_logs_perplexity_is_of_all_words_and_less_is_better(folder):
    words = [3, 5, 20, 2] * 10
    for side, nats in (("a", 2.0), ("b", 1.5)):
        lines = [log_line(n, {"word_perplexity": [-nats * count, count]}) for n, count in enumerate(words)]
        write_lines(folder / f"{side}.jsonl", lines)
    (verdict,) = paired(folder / "a.jsonl", folder / "b.jsonl").verdicts
    assert verdict.base == pytest.approx(math.exp(2.0))
    assert verdict.tuned == pytest.approx(math.exp(1.5))
    assert verdict.decision == "better"


def test_scores_are_known_by_their_names_or_by_what_they_hold(folder):
    rows = [{"id": n, "loss": 2 + n % 3 / 10, "answer": "x", "tokens": n, "seed": 1} for n in range(30)]
    after = [{**row, "loss": row["loss"] - 0.1 - row["id"] % 2 / 20, "tokens": 5} for row in rows]
    found = paired(write_csv(folder / "a.csv", rows), write_csv(folder / "b.csv", after))
    assert [(one.title, one.decision) for one in found.verdicts] == [("loss", "better")]
    rows = [{"id": n, "quality": n % 4, "same": n % 2} for n in range(30)]
    after = [{**row, "quality": row["quality"] + n % 3} for n, row in enumerate(rows)]
    files = write_csv(folder / "c.csv", rows), write_csv(folder / "d.csv", after)
    found = paired(*files)
    assert [one.title for one in found.verdicts] == ["quality"]
    assert "taken for scores: quality" in found.notes[0]
    assert [one.title for one in paired(*files, scores=["same", "quality"]).verdicts] == ["same", "quality"]
    assert paired(*files, lower_is_better=["quality"]).verdicts[0].decision == "worse"


def test_cells_are_read_as_people_write_them(folder):
    words = ["True", "no", "RIGHT", "wrong", "1", "0"] * 5
    rows = [{"id": n, "correct": word} for n, word in enumerate(words)]
    german = [{"id": n, "f1": f"0,{n % 10}"} for n in range(30)]
    right = paired(write_csv(folder / "a.csv", rows), write_csv(folder / "b.csv", rows)).verdicts[0]
    assert (right.base, right.unit) == (50.0, "%")
    f1 = paired(*(write_csv(folder / name, german, ";") for name in ("c.csv", "d.csv"))).verdicts[0]
    assert f1.base == pytest.approx(0.45)


def test_rows_without_a_value_on_one_side_are_left_out_and_counted(folder):
    before = [{"id": n, "f1": n / 40} for n in range(40)]
    after = [{"id": n, "f1": "" if n == 3 else n / 40 + 0.1 + n % 2 / 50} for n in range(40)]
    found = paired(write_csv(folder / "a.csv", before), write_csv(folder / "b.csv", after))
    assert found.verdicts[0].rows == 39
    assert "f1: 1 row has no value" in found.notes[0]


def test_scores_may_be_nested(folder):
    for side, more in (("a", 0.0), ("b", 0.5)):
        rows = [{"id": n, "scores": {"rouge_l": n % 5 + more + n % 2 / 9 * more}} for n in range(30)]
        write_lines(folder / f"{side}.jsonl", rows)
    (verdict,) = paired(folder / "a.jsonl", folder / "b.jsonl").verdicts
    assert verdict.title == "rouge l"


@pytest.mark.parametrize(
    ("before", "after", "flags", "said"),
    [
        ("id,score\n1,2\n2,3\n", "id,score\n8,2\n9,3\n", [], "share no row"),
        ("id,score\n1,2\n1,3\n", "id,score\n1,2\n2,3\n", [], "id is '1' in 2 rows"),
        ("score\n1\n2\n3\n", "score\n1\n2\n", [], "not as many rows: a.csv 3, b.csv 2"),
        ("question,score\nx,1\nx,2\n", "question,score\nx,1\ny,2\n", [], "Row 2: question is 'x'"),
        ("id,score\n1,2\n2,3\n", "id,acc\n1,2\n2,3\n", [], "No column is a score"),
        ("id,text\n1,a\n2,b\n", "id,text\n1,a\n2,b\n", ["--score", "text"], "'a' is no score"),
        ("id,f1\n1,2\n2,3\n", "id,f1\n1,2\n2,3\n", ["--score", "f2"], "column = 'f2': not all files have it"),
        ("id,f1\n1,2\n2,3\n", "id,f1\n1,2\n2,3\n", ["--id", "nr"], "--id 'nr': a.csv has no such column"),
        ("id,f1\n1,2\n2,3\n", None, [], "There is no file b.csv"),
        ("id,f1\n", "id,f1\n1,2\n2,3\n", [], "a.csv"),
        ("", "id,f1\n1,2\n2,3\n", [], "a.csv"),
    ],
)
def test_files_that_do_not_go_together_are_refused_in_one_sentence(folder, capsys, before, after, flags, said):
    (folder / "a.csv").write_text(before)
    if after is not None:
        (folder / "b.csv").write_text(after)
    assert main(["paired", "a.csv", "b.csv", *flags]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.startswith("tunelab: ")
    assert len(printed.err) < 420
    assert "Traceback" not in printed.err
    assert not printed.out


def test_one_file_is_no_comparison(folder):
    with pytest.raises(UserError, match="Two result files"):
        paired(write_csv(folder / "a.csv", [{"id": 1, "f1": 2}]))


def test_on_the_command_line_verdicts_are_sentences_or_json(folder, sides, capsys):
    for side, name in enumerate("ab"):
        write_csv(folder / f"{name}.csv", [{"id": key, "correct": pair[side]} for key, pair in sides.items()])
    assert main(["paired", "a.csv", "b.csv"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("b.csv against a.csv: 60 rows, joined by id.\ncorrect: ")
    assert "better: +" in text
    assert main(["paired", "a.csv", "b.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == ROWS
    assert found["verdicts"][0]["sentence"] in text


def test_files_of_one_name_are_told_apart(folder, sides):
    files = []
    for side, name in enumerate(("one", "two")):
        (folder / name).mkdir()
        rows = [{"id": key, "correct": pair[side]} for key, pair in sides.items()]
        files.append(write_csv(folder / name / "r.csv", rows).relative_to(folder))
    assert paired(*files).text().startswith("two/r.csv against one/r.csv")


def test_names_of_rows_are_the_same_as_number_and_as_text():
    files = [Results(name, [{"id": key, "f1": 1.0}], False) for name, key in (("a", 7), ("b", "7"), ("c", 7.0))]
    assert len(join(files).rows) == 1


def test_ids_of_a_table_that_had_an_empty_cell_are_those_they_were(folder):
    write_csv(folder / "a.csv", [{"id": f"{n}.0", "correct": n % 2} for n in range(30)])
    write_csv(folder / "b.csv", [{"id": n, "correct": n % 3 == 0} for n in range(30)])
    assert paired(folder / "a.csv", folder / "b.csv").rows == 30
    # names such as versions stay what they are
    write_csv(folder / "a.csv", [{"id": name, "correct": 1} for name in ("1", "1.0", "1.1")])
    assert paired(folder / "a.csv", folder / "a.csv").rows == 3


def test_a_number_beyond_all_others_counts_for_nothing_and_is_told(folder):
    for name, score in (("a.jsonl", 1), ("b.jsonl", 2)):
        rows = [{"id": n, "score": score + n % 2} for n in range(30)]
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with (folder / "b.jsonl").open("a") as file, (folder / "a.jsonl").open("a") as other:
        file.write(f'{{"id": 30, "score": 1{"0" * 400}}}\n{{"id": 31, "score": -1{"0" * 400}}}\n')
        other.write('{"id": 30, "score": 1}\n{"id": 31, "score": 1}\n')
    found = paired(folder / "a.jsonl", folder / "b.jsonl")
    assert found.verdicts[0].change.n == 30
    assert found.notes[-1] == "score: 2 rows have no value in one of the files and count for nothing"
    assert "\nscore: 2 rows" in found.text()  # a column's name stays as it is


def test_scores_that_end_with_the_same_word_are_told_apart(folder):
    rows = [{"id": n, "base": {"accuracy": n % 2, "f1": 0.5}, "tuned": {"accuracy": n % 3 == 0}} for n in range(30)]
    write_lines(folder / "a.jsonl", rows)
    found = paired(folder / "a.jsonl", folder / "a.jsonl")
    assert [one.title for one in found.verdicts] == ["base.accuracy", "f1", "tuned.accuracy"]


def test_a_score_that_can_not_be_read_is_named_and_not_passed_over(folder):
    rows = [{"id": n, "accuracy": n % 2, "f1": 0.5 + n / 100} for n in range(30)]
    write_lines(folder / "a.jsonl", rows)
    write_lines(folder / "b.jsonl", [row | ({"accuracy": "oops"} if row["id"] == 6 else {}) for row in rows])
    found = paired(folder / "a.jsonl", folder / "b.jsonl")
    assert [one.title for one in found.verdicts] == ["f1"]
    assert found.notes == ("accuracy is not judged: accuracy, row 7 of those joined: 'oops' is no score",)
    for name in ("a.jsonl", "b.jsonl"):
        lines = (folder / name).read_text().replace("f1", "words said")
        (folder / name).write_text(lines)
    with pytest.raises(UserError, match="accuracy, row 7 of those joined: 'oops' is no score"):
        paired(folder / "a.jsonl", folder / "b.jsonl")


def test_json_of_infinite_figures_is_json(folder, capsys):
    for name, score in (("a.jsonl", 1e308), ("b.jsonl", -1e308)):
        write_lines(folder / name, [{"id": n, "score": score} for n in range(30)])
    assert main(["paired", "a.jsonl", "b.jsonl", "--json"]) == 0
    (verdict,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["verdicts"]
    assert (verdict["base"], verdict["tuned"]) == ("Infinity", "-Infinity")
