"""`tunelab data …`: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
import re

import pytest

from tunelab import curve, finetune, list_runs
from tunelab.cli import main
from tunelab.data import read_data, read_examples
from tunelab.data.builtin import BUILTIN, card
from tunelab.spec import DataSpec

ROWS = [
    {"prompt": "What is the capital of Peru?", "completion": "It is Lima."},
    {"prompt": "what is the capital of  Peru?", "completion": "It is Lima."},
    {"prompt": "Whom do I write to?", "completion": "Write to anna.schmidt@firma.de."},
    {"prompt": "What is green?", "completion": "Grass, mostly."},
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_findings_are_printed_with_their_fixes(file, capsys):
    assert main(["data", "doctor", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "prompt ← prompt, completion ← completion" in shown
    assert "\n4 rows: " in shown
    assert "--fix drop-duplicates" in shown
    assert "anna" not in shown


def test_mended_rows_are_written_and_read_again(file, capsys):
    out = file.with_name("mended.jsonl")
    fixes = ["--fix", "drop-duplicates", "--fix", "mask-personal-data"]
    assert main(["data", "doctor", str(file), *fixes, "--out", str(out)]) == 0
    assert "4 rows before, 3 after" in capsys.readouterr().out
    rows = read_examples(DataSpec(source=str(out)))
    assert [row.prompt for row in rows] == [ROWS[n]["prompt"] for n in (0, 2, 3)]
    assert rows[1].answer == "Write to [email]."
    assert main(["data", "doctor", str(out), *fixes]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_plain_text_is_written_as_text(tmp_path, capsys):
    source, out = tmp_path / "text.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "schÃ¶n war es"}\n{"text": "and it still is"}\n', encoding="utf-8")
    assert main(["data", "doctor", str(source), "--learn", "text", "--fix", "repair-text", "--out", str(out)]) == 0
    assert [row.text for row in read_examples(DataSpec(source=str(out)), "text")] == ["schön war es", "and it still is"]


def test_json_holds_everything(file, capsys):
    heldout = file.with_name("heldout.jsonl")
    heldout.write_text(json.dumps(ROWS[0]) + "\n", encoding="utf-8")
    command = ["data", "doctor", str(file), "--heldout", str(heldout), "--fix", "drop-leaked", "--json"]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert "leakage" in {finding["kind"] for finding in report["findings"]}
    assert report["fixes"]["rows_after"] == 2
    assert report["heldout_rows"] == 1


def test_a_model_tells_which_answers_are_cut(file, tiny, capsys):
    assert main(["data", "doctor", str(file), "--model", tiny, "--max-length", "64"]) == 0
    assert "longer than max_length = 64" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--fix", "drop-everything"], "there is no such fix"),
        (["--fix", "drop-leaked"], "--heldout FILE"),
        (["--out", "x.jsonl"], "no fix is named"),
        (["--fix", "drop-empty", "--out", "x.csv"], "ends with .jsonl"),
        (["--fix", "drop-empty", "--out", "no/such/folder/x.jsonl"], "no folder"),
        (["--fix", "drop-empty", "--out", "rows.jsonl"], "not overwritten"),
        (["--sample", "0"], "at least 1 row"),
        (["--columns", "question"], "ROLE=COLUMN"),
        (["--heldout", "nowhere.csv"], "no file"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(file, flags, said, capsys, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert main(["data", "doctor", "rows.jsonl", *flags]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in file.parent.iterdir() if path.suffix == ".jsonl"] == ["rows.jsonl"]


def test_a_fix_of_a_run_is_what_the_doctor_did(file):
    out = file.with_name("mended.jsonl")
    assert main(["data", "doctor", str(file), "--fix", "drop-duplicates", "--out", str(out)]) == 0
    fixed = read_data(DataSpec(source=str(file), fixes=("drop-duplicates",), heldout=1))
    mended = read_data(DataSpec(source=str(out), heldout=1))
    assert [row.messages for row in fixed.train] == [row.messages for row in mended.train]
    assert [row.messages for row in fixed.heldout] == [row.messages for row in mended.heldout]
    assert "drop-duplicates: 1 row dropped (row 2)" in fixed.notes
    replayed = read_examples(DataSpec(source=str(file), fixes=("drop-duplicates",)))
    assert [row.messages for row in replayed] == [row.messages for row in read_examples(DataSpec(source=str(out)))]


def test_a_run_says_what_its_fixes_did_and_a_wrong_one_is_refused(file, tiny, capsys):
    settings = ["--model", tiny, "--quantization", "none", "--technique", "ia3", "--steps", "1", "--heldout", "1"]
    command = ["train", "--data", str(file), *settings]
    assert main([*command, "--fix", "drop-duplicates"]) == 0
    assert "drop-duplicates: 1 row dropped (row 2)" in capsys.readouterr().out
    (run,) = list_runs()
    assert run.config.stages[0].data.fixes == ("drop-duplicates",)
    assert main([*command, "--fix", "drop-everything"]) == 2
    assert "there is no such fix" in capsys.readouterr().err


def test_what_the_model_will_see_is_shown_with_what_is_learned_marked(file, capsys):
    assert main(["data", "show", str(file), "--rows", "1", "--model", "starter"]) == 0
    shown = capsys.readouterr().out
    assert "prompt ← prompt, completion ← completion" in shown
    row = shown.partition("--- row 1")[2]
    assert re.search(r"\d+ tokens, \d+ learned", row)
    learned = re.search(r"⟦(.*?)⟧", row, re.DOTALL)[1]
    assert any(row["completion"] in learned for row in ROWS)
    assert not any(row["prompt"] in learned for row in ROWS)


def test_a_curve_is_of_growing_parts_and_of_the_same_held_out_rows(tmp_path, tiny, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(curve, "finetune", lambda config, root: (seen.append(config), finetune(config, root=root))[1])
    source = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n} and nothing else."} for n in range(45)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["data", "doctor", str(source), "--heldout", "5", "--curve", "--model", tiny, "--json"]
    assert main(command) == 0
    points = json.loads(capsys.readouterr().out)["curve"]
    assert [count for count, _loss in points] == [10, 20, 40]
    (first, *others), parts = (
        [config.stages[0].data.heldout_rows for config in seen],
        [{str(row) for row in config.stages[0].data.rows} for config in seen],
    )
    assert all(other == first for other in others)
    assert parts[0] < parts[1] < parts[2]
    assert all(0 < loss < 20 for _count, loss in points)
    assert main([*command, "--heldout", "20"]) == 2
    assert "at least 32" in capsys.readouterr().err


@pytest.mark.parametrize("name", BUILTIN)
def test_of_a_built_in_set_the_card_is_shown(name, tiny, capsys):
    assert main(["data", "show", name, "--rows", "1", "--model", tiny]) == 0
    assert capsys.readouterr().out.startswith(card(name).markdown())


def test_what_ends_a_turn_what_is_cut_and_what_is_wrong_is_printed(tmp_path, tiny, capsys):
    rows = [{"prompt": "hi", "completion": "yes"}] * 6 + [{"prompt": "hi", "completion": "y" * 400}] * 2
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "heldout.jsonl").write_text(json.dumps(rows[0]) + "\n")
    command = ["data", "show", str(source), "--heldout", str(tmp_path / "heldout.jsonl"), "--model", tiny]
    assert main([*command, "--max-length", "100", "--rows", "8"]) == 0
    shown = capsys.readouterr().out
    assert "! 2 of 8 rows cut at max_length = 100 tokens" in shown
    assert re.search(r"lengths in tokens: 0 ·*█·*│·*▃ … \d+ \(│ max_length = 100: 2 rows longer\)", shown)
    first, last = shown.partition("--- row 1 ")[2], shown.partition("--- row 7 ")[2]
    assert "⟦yes<|im_end|>◼⟧" in first.partition("---")[0]
    assert first.partition("---")[0].count("◼") == 3
    kept, cut = re.search(r"⟦(y+)⟧✂(y+)… and ([\d,]+) more tokens", last).group(1, 2)
    assert len(kept) < 100
    assert len(cut) == 200
    assert main([*command, "--max-length", "16"]) == 0
    assert "! Nothing is scored in any of 8 rows" in capsys.readouterr().out


def test_a_division_is_the_one_that_training_makes_and_can_be_read_again(tmp_path, capsys):
    rows = [{"q": f"What is {n}?", "a": ("yes", "no")[n % 2], "customer": f"c{n // 5}"} for n in range(40)]
    source, out = tmp_path / "rows.jsonl", tmp_path / "divided"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"prompt": "q", "completion": "a", "group": "customer"}
    command = ["data", "split", str(source), "--columns", *(f"{k}={v}" for k, v in columns.items())]
    assert main([*command, "--heldout", "0.25", "--seed", "3", "--out", str(out)]) == 0
    assert "10 rows held out" in capsys.readouterr().out
    sides = [read_examples(DataSpec(source=str(out / f"{side}.jsonl"))) for side in ("train", "heldout")]
    divided = read_data(DataSpec(source=str(source), columns=columns, heldout=0.25, seed=3))
    assert [[row.messages for row in side] for side in sides] == [
        [row.messages for row in side] for side in (divided.train, divided.heldout)
    ]
    customers = [{int(row.prompt[8:-1]) // 5 for row in side} for side in sides]
    assert len(customers[1]) == 2
    assert not customers[0] & customers[1]
    assert main([*command, "--out", str(out)]) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_tools_and_turns_that_are_not_learned_are_written_as_they_were_read(tmp_path):
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "no", "weight": 0},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "w", "arguments": {"city": "Ulm"}}}]},
        {"role": "tool", "content": "sun"},
        {"role": "assistant", "content": "It is sunny."},
    ]
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"messages": messages}) + "\n")
    assert main(["data", "doctor", str(source), "--fix", "drop-empty", "--out", str(out)]) == 0
    assert read_examples(DataSpec(source=str(out))) == read_examples(DataSpec(source=str(source)))
