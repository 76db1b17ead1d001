"""A run is measured on rows it never saw: its data as it was, or other data without the rows it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers import ROWS
from tests.techniques.test_invariants import config, until
from tests.test_chain import TEXT
from tunelab import (
    DataSpec,
    LadderConfig,
    LoRA,
    ModelSpec,
    Run,
    Stage,
    TrainConfig,
    UserError,
    evaluate,
    finetune,
    heldout_examples,
    read_data,
    train_run,
)
from tunelab.cli import main
from tunelab.data.content import marks
from tunelab.measure.ladder import Ladder
from tunelab.run.trained import TRAINED_FILE, TrainedRows, heldout_again, known_rows

SMALL = {"rows": 4, "max_new_tokens": 4, "questions": 0, "instructions": 4}
FLAGS = ["--questions", "0", "--instructions", "4"]


def write(path: Path, rows) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def on(tiny, data, steps=2, **training):
    made = config(tiny, LoRA(r=4), steps=steps, **training)
    return made.model_copy(update={"stages": (made.stages[0].model_copy(update={"data": data}),)})


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "rows.jsonl"
    write(path, ROWS)
    return path


@pytest.fixture
def run(tiny, file) -> Run:
    return finetune(on(tiny, DataSpec(source=str(file), heldout=4)))


NEW = [{"prompt": f"new {n}", "completion": f"{n} is new"} for n in range(3)]


def test_files_are_found_from_any_directory(tiny, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "held.jsonl", NEW)
    stage = Stage(
        data=DataSpec(source="rows.jsonl", heldout="~/held.jsonl"),
        replay=DataSpec(source="./held.jsonl"),
        training=TrainConfig(steps=2),
    )
    made = Run.create(on(tiny, stage.data).model_copy(update={"stages": (stage,)}))
    monkeypatch.chdir("/")
    kept = Run(made.path).config.stages[0]
    assert kept.data.source == str(file)
    assert kept.data.heldout == kept.replay.source == str(tmp_path / "held.jsonl")
    ladder = LadderConfig(model=ModelSpec(repo_id=tiny), data=DataSpec(source="rows.jsonl"), techniques=("ia3",))
    monkeypatch.chdir(tmp_path)
    path = Ladder.create(ladder, tmp_path / "ladder").path
    assert Ladder(path).config.data.source == str(file)
    assert Ladder.create(ladder, path).path == path  # the same one
    for name in ("python-docs", "owner/name"):
        assert Run.create(on(tiny, DataSpec(source=name))).config.stages[0].data.source == name


def test_a_relative_path_is_measured_from_another_directory_as_it_was(tiny, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = finetune(on(tiny, DataSpec(source="rows.jsonl", heldout=4)))
    here = evaluate(made, **SMALL)
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / "rows.jsonl", [*ROWS, *NEW])
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate(Run.open(made.id), **SMALL).heldout_loss == here.heldout_loss


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, *NEW], r"3 rows are new \(16 then, 19 now\)"),
        (lambda rows: rows[2:], r"2 rows are gone \(16 then, 14 now\)"),
        (lambda rows: [{**rows[0], "completion": "x"}, *rows[1:]], r"1 row is new, 1 row is gone \(16 then, 16 now\)"),
        (lambda rows: rows[::-1], "its rows stand in another order"),
    ],
)
def test_data_that_has_changed_is_refused_with_what_has(run, file, change, message, capsys):
    write(file, change(ROWS))
    with pytest.raises(UserError, match=message) as caught:
        evaluate(run, **SMALL)
    assert f"rows.jsonl is no longer what run {run.id} was trained on" in str(caught.value)
    assert f"tunelab evaluate {run.id} --data FILE" in str(caught.value)
    assert len(str(caught.value)) <= 400
    with pytest.raises(UserError, match=message):
        heldout_examples(run, 3)
    assert main(["evaluate", run.id]) == 2
    assert "is no longer what run" in capsys.readouterr().err


def test_a_file_that_is_gone_is_refused_and_named(run, file):
    file.unlink()
    with pytest.raises(UserError, match=r"rows\.jsonl, which run .* was trained on, is not there any more"):
        evaluate(run, **SMALL)


def test_rows_beyond_the_limit_are_no_change(tiny, file):
    made = finetune(on(tiny, DataSpec(source=str(file), heldout=4, limit=5)))
    assert evaluate(made, **SMALL).rows == 4
    write(file, [*ROWS, *NEW])
    with pytest.raises(UserError, match=r"3 rows are new \(16 then, 19 now\)"):
        evaluate(made, **SMALL)


def test_a_stopped_run_says_what_has_changed_before_it_goes_on(tiny, file):
    made = Run.create(on(tiny, DataSpec(source=str(file), heldout=4), steps=6))
    list(until(made, 3))
    write(file, [*ROWS, *NEW])
    with pytest.raises(UserError, match=r"can't go on where it was: rows\.jsonl: 3 rows are new"):
        list(train_run(made))


def test_named_as_other_data_it_is_measured_without_the_rows_trained_on(run, file, capsys):
    held = heldout_again(run).heldout
    write(file, [*ROWS, *NEW])
    report = evaluate(run, rows=100, max_new_tokens=4, questions=0, instructions=4, data=file)
    assert (report.rows, report.left_out, report.selected_on) == (7, 12, 4)
    assert report.data == "rows.jsonl"
    # rows that chose the result come last
    few = evaluate(
        run, rows=3, max_new_tokens=4, questions=0, instructions=4, data=DataSpec(source=str(file), heldout=1)
    )
    assert (few.rows, few.selected_on) == (3, 0)
    alone = evaluate(run, rows=3, max_new_tokens=4, questions=0, instructions=4, data=DataSpec(rows=NEW))
    assert few.heldout_loss.base == pytest.approx(alone.heldout_loss.base, rel=1e-5)
    both = evaluate(
        run, rows=9, max_new_tokens=4, data=DataSpec(rows=[{"prompt": e.prompt, "completion": e.answer} for e in held])
    )
    assert both.left_out == 0
    assert main(["evaluate", run.id, "--data", str(file), "--max-new-tokens", "4", *FLAGS]) == 0
    printed = capsys.readouterr().out
    assert "Verdict on 7 rows of rows.jsonl" in printed
    assert "12 rows left out: the run was trained on them." in printed


def test_a_question_that_was_trained_on_is_left_out_whatever_its_answer(run):
    trained = heldout_again(run).train[0]
    rows = [{"prompt": f"  {trained.prompt.upper()} ", "completion": "something else"}, *NEW]
    assert evaluate(run, **SMALL, data=DataSpec(rows=rows)).left_out == 1


def test_a_turn_that_was_trained_on_is_left_out_in_a_longer_conversation(run):
    trained = heldout_again(run).train[0]
    chat = [("user", trained.prompt), ("assistant", trained.answer), ("user", "And now?"), ("assistant", "Now.")]
    rows = [{"prompt": row["prompt"], "completion": row["completion"]} for row in NEW]
    spec = DataSpec(
        rows=[
            {"messages": [{"role": role, "content": text} for role, text in turns]}
            for turns in (chat, *([("user", r["prompt"]), ("assistant", r["completion"])] for r in rows))
        ]
    )
    report = evaluate(run, **SMALL, data=spec)
    assert (report.rows, report.left_out) == (3, 1)


def test_data_that_holds_nothing_else_is_refused(run, file):
    trained = [{"prompt": e.prompt, "completion": e.answer} for e in heldout_again(run).train]
    with pytest.raises(UserError, match=r"the run was trained on 12 of 13 rows, so 1 are left"):
        evaluate(run, **SMALL, data=DataSpec(rows=[*trained, NEW[0]]))


def test_other_data_is_read_as_the_runs_own_unless_told_otherwise(tiny, tmp_path, capsys):
    rows = [{"q": row["prompt"], "a": row["completion"]} for row in ROWS]
    asked = DataSpec(rows=rows, heldout=4, columns={"completion": "a"}, template="Please {q}!")
    made = finetune(on(tiny, asked))
    same = [{"q": row["prompt"], "a": row["completion"]} for row in NEW]
    expected = evaluate(made, **SMALL, data=asked.model_copy(update={"rows": tuple(same)}))
    path = tmp_path / "other.jsonl"
    write(path, same)
    assert evaluate(made, **SMALL, data=path).heldout_loss == expected.heldout_loss
    write(path, [{"frage": row["q"], "antwort": row["a"]} for row in same])
    command = ["evaluate", made.id, "--data", str(path), "--rows", "4", "--max-new-tokens", "4", *FLAGS, "--json"]
    assert main(command) == 2
    assert "there is no column 'a'" in capsys.readouterr().err
    named = ["--columns", "completion=antwort", "--template", "Please {frage}!"]
    assert main([*command, *named]) == 0
    assert json.loads(capsys.readouterr().out)["heldout_loss"] == expected.model_dump(mode="json")["heldout_loss"]
    assert main(["evaluate", made.id, *named]) == 2
    assert "Name it: --data FILE" in capsys.readouterr().err


def test_rows_of_every_stage_of_replay_and_of_the_runs_before_count(tiny, file):
    first = finetune(on(tiny, DataSpec(source=str(file), heldout=4, seed=1)))
    second = on(tiny, DataSpec(source=str(file), heldout=4, seed=2))
    stages = (TEXT, second.stages[0])
    second = finetune(second.model_copy(update={"stages": stages, "start_from": first.id}))
    trained = {e.prompt for e in read_data(first.config.stages[0].data).train}
    held = [e.prompt for e in heldout_again(second).heldout]
    both = [prompt for prompt in held if prompt in trained]
    assert both
    assert [e.prompt for e in heldout_examples(second, 10)] == [prompt for prompt in held if prompt not in both]
    if len(held) - len(both) >= 2:
        assert evaluate(second, **SMALL).left_out == len(both)
    known, notes = known_rows(second)
    assert not notes
    assert len(known.passages)
    replaying = on(tiny, DataSpec(rows=ROWS[:8], heldout=2), replay_share=0.3)
    stage = replaying.stages[0].model_copy(update={"replay": DataSpec(rows=NEW)})
    replayed = finetune(replaying.model_copy(update={"stages": (stage,)}))
    with pytest.raises(UserError, match="trained on 3 of 3 rows"):
        evaluate(replayed, **SMALL, data=DataSpec(rows=NEW))


def test_a_held_out_file_that_leaks_is_measured_without_its_leaks(tiny):
    leaking = [ROWS[0], *NEW]
    made = finetune(on(tiny, DataSpec(rows=ROWS, heldout_rows=leaking)))
    report = evaluate(made, **SMALL)
    assert (report.rows, report.left_out) == (3, 1)
    remembered = finetune(on(tiny, DataSpec(rows=ROWS, heldout_rows=ROWS)))
    report = evaluate(remembered, **SMALL)
    assert (report.rows, report.left_out) == (4, 0)
    assert report.notes == ("the run was trained on these rows, so the figures say how well it remembers them",)


def test_runs_of_older_versions_are_known_by_their_data_or_said_to_be_unknown(run, file):
    known, _notes = known_rows(run)
    (run.path / TRAINED_FILE).unlink()
    again, notes = known_rows(run)
    assert (again, notes) == (known, [])
    write(file, [*ROWS, *NEW])
    with pytest.raises(UserError, match="16 rows were used then, 19 now"):
        evaluate(run, **SMALL)
    report = evaluate(run, **SMALL, data=DataSpec(rows=NEW))
    assert report.left_out == 0
    assert report.notes[0] == f"which rows {run.id} was trained on is not known, so some of them may be among these"


def test_an_imported_run_is_measured_on_data_that_is_named(run, tiny):
    from tunelab import import_adapter

    imported = import_adapter(run.adapter_path, ModelSpec(repo_id=tiny, dtype="float32"))
    with pytest.raises(UserError, match=r"Which rows run .* was trained on is not known here"):
        evaluate(imported, **SMALL)
    with pytest.raises(UserError, match="is not known here"):
        heldout_examples(imported, 3)
    report = evaluate(imported, **SMALL, data=DataSpec(rows=NEW))
    assert report.rows == 3
    assert "is not known" in report.notes[0]


def test_what_a_run_was_trained_on_is_kept_as_digests_alone(run):
    kept = (run.path / TRAINED_FILE).read_bytes()
    assert b"say red" not in kept
    known = TrainedRows.read(run.path)
    split = heldout_again(run)
    assert all(map(known.learned, split.train))
    assert not any(map(known.learned, split.heldout))
    assert all(map(known.chosen_by, split.heldout))
    (run.path / TRAINED_FILE).write_bytes(kept[:100])
    assert TrainedRows.read(run.path) is None


def text_run(tiny, file, steps=2):
    stage = Stage(
        data=DataSpec(source=str(file), heldout=0.2),
        learn="text",
        training=TrainConfig(steps=steps, batch_size=2, eval_rows=2),
    )
    made = config(tiny, LoRA(r=4))
    model = made.model.model_copy(update={"max_length": 128})
    return finetune(made.model_copy(update={"stages": (stage,), "model": model}))


def test_of_a_document_that_grew_only_what_is_new_is_measured(tiny, tmp_path):
    document = " ".join(f"the {n}th word of a manual" for n in range(300))
    file = tmp_path / "manual.jsonl"
    write(file, [{"text": document}])
    run = text_run(tiny, file)
    own = evaluate(run, rows=8, questions=0, instructions=4)
    assert own.rows == 8
    assert own.selected_on == 0  # there are blocks enough that chose nothing
    more = " ".join(f"chapter {n} tells of {n * n}" for n in range(100))
    write(file, [{"text": f"{document} {more}"}])
    with pytest.raises(UserError, match=r"1 row is new, 1 row is gone \(1 then, 1 now\)"):
        evaluate(run)
    report = evaluate(run, rows=1000, questions=0, instructions=4, data=file)
    split = read_data(DataSpec(rows=[{"text": document}], heldout=0.2), "text")
    head, tail = len(split.train[0].text), len(split.heldout[0].text)
    assert report.left_out == pytest.approx(head / 128, abs=2)
    assert report.rows == pytest.approx((tail + len(more)) / 128, abs=2)


def test_text_is_measured_in_blocks_and_those_that_chose_come_last(tiny, tmp_path):
    file = tmp_path / "texts.jsonl"
    write(file, [{"text": f"text {n}: " + f"{n} and on " * 10} for n in range(20)])
    run = text_run(tiny, file)
    held = heldout_again(run).heldout
    blocks = sum(-(-(len(e.text) + e.whole) // 128) for e in held)
    report = evaluate(run, rows=1000, questions=0, instructions=4)
    assert report.rows == blocks
    # two blocks of 128 tokens were measured while training, wherever documents begin and end
    assert report.selected_on == 3
    assert report.metrics == {}


def test_losses_of_documents_are_theirs_however_many_blocks_they_fill(tiny, tmp_path):
    from tunelab import load
    from tunelab.data import Example, rows_alone
    from tunelab.losses import PlainLoss
    from tunelab.measure.evaluation import heldout_losses
    from tunelab.measure.scoring import row_losses

    file = tmp_path / "texts.jsonl"
    write(file, [{"text": f"text {n}: " + f"{n} and on " * 30} for n in range(20)])
    run = text_run(tiny, file)
    base = load(run.base_spec)
    examples = [Example(text="short"), Example(text="long " * 100), *heldout_again(run).heldout]
    losses = heldout_losses(run, examples)
    assert len(losses) == len(examples)
    for example, found in zip(examples, losses, strict=True):
        rows = rows_alone(example, base.tokenizer, 128)
        alone = row_losses(PlainLoss(base.model), rows, base)
        assert found.base == pytest.approx(sum(loss for loss, _count in alone), rel=1e-4)
        assert found.tokens == sum(sum(row.scored[1:]) for row in rows)


def test_a_passage_is_known_wherever_it_stands():
    text = " ".join(f"word{n * 7919 % 100003}" for n in range(3000))
    known = set(marks(text).tolist())
    assert set(marks(text[1000:9000].upper().replace(" ", "\n")).tolist()) <= known
    assert len(marks(text)) == pytest.approx(len(text) / 16, rel=0.3)
    assert not set(marks(" ".join(f"other{n}" for n in range(3000))).tolist()) & known


def test_cut_answers_are_counted_and_told(run):
    from tunelab.run.report_words import in_words
    from tunelab.run.reports import Report

    report = evaluate(run, rows=4, max_new_tokens=2, questions=0, instructions=4)
    assert (report.cut_answers.base, report.cut_answers.tuned) == (4, 4)
    assert "Cut at 2 tokens: 4 answers of the base and 4 of the tuned model" in in_words(report)
    old = report.model_dump(mode="json", exclude={"cut_answers", "max_new_tokens", "notes", "left_out", "data"})
    assert "Cut at" not in in_words(Report.model_validate(old))
