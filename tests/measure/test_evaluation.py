"""A run measured against its base: the figures are those of the plain loss and of plain answers, row by row."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing

import pytest
import torch

from tests.helpers import ROWS
from tests.techniques.test_invariants import config, spec_of
from tests.test_chain import two_stages
from tunelab import (
    BottleneckAdapter,
    DataSpec,
    FullFineTuning,
    LoRA,
    PrefixTuning,
    UserError,
    evaluate,
    finetune,
    load,
    read_data,
    read_report,
)
from tunelab.cli import main
from tunelab.data.batches import collate
from tunelab.data.encode import encode_all
from tunelab.losses import PlainLoss
from tunelab.measure.answered import rows_of
from tunelab.measure.evaluation import evaluate_all
from tunelab.measure.known import Known, bases_folder, known_base
from tunelab.measure.measured_run import MeasuredRun
from tunelab.measure.metrics import ChrF
from tunelab.measure.scoring import row_losses
from tunelab.measure.settings import Measuring


@pytest.mark.parametrize(
    "technique",
    [LoRA(r=4), LoRA(r=4, use_dora=True), FullFineTuning(), PrefixTuning(num_virtual_tokens=6), BottleneckAdapter()],
    ids=["lora", "dora", "full", "prefix", "bottleneck"],
)
def test_losses_and_answers_are_those_of_the_models_themselves(tiny, technique):
    from tunelab import Comparer

    run = finetune(config(tiny, technique, steps=6))
    report = evaluate(run, rows=4, max_new_tokens=6, questions=12, instructions=8)
    assert report.selected_on == 4  # there are no others, and it says so
    held = read_data(run.config.stages[0].data).heldout
    fresh = load(run.base_spec)
    rows = encode_all(held, fresh.tokenizer, 512)[0]
    with torch.no_grad():
        losses = [float(PlainLoss(fresh.model)(collate([row], 2))) for row in rows]
    tokens = sum(sum(row.scored[1:]) for row in rows)
    assert report.heldout_loss.base == pytest.approx(sum(losses) / tokens, rel=1e-4)
    tuned = technique.load(load(run.base_spec), run.adapter_path).eval()
    with torch.no_grad():
        losses = [float(PlainLoss(tuned)(collate([row], 2))) for row in rows]
    assert report.heldout_loss.tuned == pytest.approx(sum(losses) / tokens, rel=1e-4)
    assert report.heldout_loss.change.value == pytest.approx(report.heldout_loss.tuned - report.heldout_loss.base)

    with Comparer(run.root) as comparer:
        answers = comparer.answers([run], [row.asked for row in held], max_new_tokens=6)
    references = [row.answer for row in held]
    for column, side in ((0, "base"), (1, "tuned")):
        expected = ChrF()([a[column] for a in answers], references)
        assert getattr(report.metrics["chrf"], side) == pytest.approx(expected)
    assert report.probe_rows == 8
    assert report.ability.questions == 12
    assert read_report(run.path) == report


def test_losses_of_rows_in_one_batch_are_those_of_each_alone(tiny):
    base = load(spec_of(tiny))
    rows = encode_all(read_data(DataSpec(rows=ROWS, heldout=4)).train, base.tokenizer, 512)[0]
    together = row_losses(PlainLoss(base.model), rows, base)
    with torch.no_grad():
        alone = [float(PlainLoss(base.model)(collate([row], 2))) for row in rows]
    assert [loss for loss, _count in together] == pytest.approx(alone, rel=1e-4)
    assert [count for _loss, count in together] == [sum(row.scored[1:]) for row in rows]


def kept(folder):
    """What is kept there: its keys, and how often each was found on disk is told by their times."""
    with closing(sqlite3.connect(folder / "known.sqlite")) as file:
        return {key for (key,) in file.execute("SELECT key FROM known")}


FEW = {"instructions": 4, "questions": 0, "max_new_tokens": 4}


def test_what_the_base_makes_of_rows_is_measured_once_for_all_runs_on_it(tiny, monkeypatch):
    first, second = (finetune(config(tiny, LoRA(r=4), steps=2, seed=seed)) for seed in (0, 1))
    alone = evaluate(second, rows=4, **FEW)
    shutil.rmtree(bases_folder(second))
    (second.path / "known.sqlite").unlink()
    evaluate(first, rows=4, **FEW)
    before = kept(bases_folder(first))
    assert len(before) == 4 + 4 + 4  # losses of the rows, of the instructions, answers
    again = evaluate(second, rows=4, **FEW)
    assert kept(bases_folder(first)) == before
    assert (again.heldout_loss, again.metrics, again.general_loss) == (
        alone.heldout_loss,
        alone.metrics,
        alone.general_loss,
    )
    evaluate(second, rows=3, **FEW)  # of the same rows
    assert kept(bases_folder(first)) == before
    evaluate(second, rows=4, **FEW | {"max_new_tokens": 5})  # longer answers to the same rows
    assert len(kept(bases_folder(first)) - before) == 4


def test_a_measurement_that_was_interrupted_goes_on_where_it_was(tiny, monkeypatch):
    from tunelab.answer import generation

    run = finetune(config(tiny, LoRA(r=4), steps=2))
    expected = evaluate(run, rows=4, **FEW)
    shutil.rmtree(bases_folder(run))
    (run.path / "known.sqlite").unlink()
    whole, asked = generation.answer_many, []

    def by_one(prompts, *args, **kwargs):
        asked.append(len(prompts))
        for done, each in enumerate(whole(prompts, *args, at_once=1, **kwargs)):
            if done == 3 and len(asked) == 1:
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(generation, "answer_many", by_one)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, rows=4, **FEW)
    again = evaluate(run, rows=4, **FEW)
    assert asked == [4, 1, 4]  # the base's, the one that was left of them, the tuned model's
    assert (again.metrics, again.heldout_loss) == (expected.metrics, expected.heldout_loss)


def test_a_model_is_asked_anew_where_what_was_kept_is_damaged_or_can_not_be_kept(tiny, monkeypatch):
    run = finetune(config(tiny, LoRA(r=4), steps=2))
    report = evaluate(run, rows=4, **FEW)
    file = bases_folder(run) / "known.sqlite"
    file.write_bytes(b"half of it" * 1000)
    assert evaluate(run, rows=4, **FEW).metrics == report.metrics
    assert kept(file.parent)  # it is whole again
    with closing(sqlite3.connect(file)) as damaged, damaged:
        damaged.execute("UPDATE known SET value = '{half of it'")
    assert evaluate(run, rows=4, **FEW).metrics == report.metrics
    file.unlink()
    file.mkdir()  # nothing can be kept there
    assert evaluate(run, rows=4, **FEW).metrics == report.metrics


def test_bases_of_another_precision_or_another_way_of_computing_are_others(tiny):
    from dataclasses import replace

    run = finetune(config(tiny, LoRA(r=4), steps=1))
    base = load(spec_of(tiny))

    def ask(known: Known, value):
        return known.ask("losses", ["this"], lambda missing: [(index, value) for index in missing])

    assert ask(known_base(run, base, True), 1.0) == ask(known_base(run, base, True), 2.0) == [1.0]
    assert ask(known_base(run, base, False), 3.0) == [3.0]
    assert ask(known_base(run, replace(base, sha256="0" * 64), True), 4.0) == [4.0]


def test_a_question_that_stands_twice_is_measured_once(tmp_path):
    known, measured = Known(tmp_path, ["one"]), []

    def measure(missing):
        for index in reversed(missing):
            measured.append(index)
            yield index, index * 10

    assert known.ask("what", ["a", "b", "a", "c"], measure) == [0, 10, 0, 30]
    assert known.ask("what", ["c", "d", "a"], measure) == [30, 10, 0]
    assert measured == [3, 1, 0, 1]
    assert known.ask("other", ["a"], measure) == [0]


def test_each_stage_can_be_measured_and_plain_text_has_no_answers(tiny):
    run = finetune(two_stages(tiny, LoRA(r=4)))
    text = evaluate(run, rows=2, stage=0, **FEW)
    assert text.metrics == {}
    assert text.main is None
    assert text.verdict == text.heldout_loss.verdict
    assert evaluate(run, rows=4, **FEW).main_metric == "chrf"
    with pytest.raises(UserError, match=r"stage = 3: run .* has the stages 1 to 2"):
        evaluate(run, stage=2)


def test_on_the_command_line(tiny, tmp_path, capsys):
    run = finetune(config(tiny, LoRA(r=4), steps=2))
    few = ["--rows", "4", "--max-new-tokens", "4", "--questions", "8", "--instructions", "4"]
    assert main(["evaluate", run.id, *few]) == 0
    printed = capsys.readouterr().out
    assert "Verdict on 4 held-out rows:" in printed
    assert "a rise is forgetting" in printed
    assert re.search(r"general questions: base [\d.]+ % right, tuned [\d.]+ % of 8; \d lost, \d gained", printed)
    assert main(["evaluate", run.id, *few, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 4
    for arguments, message in ((["--rows", "1"], "rows = 1: at least 2"), (["--max-new-tokens", "0"], "allowed are 1")):
        assert main(["evaluate", run.id, *arguments]) == 2
        assert message in capsys.readouterr().err


def test_rows_that_chose_the_result_are_left_out_where_there_are_others(tiny):
    run = finetune(config(tiny, LoRA(r=4), steps=2, eval_rows=1))
    report = evaluate(run, rows=3, **FEW)
    held = read_data(run.config.stages[0].data).heldout
    base = load(run.base_spec)
    rows = encode_all(held[1:], base.tokenizer, 512)[0]
    losses = row_losses(PlainLoss(base.model), rows, base)
    assert report.selected_on == 0
    assert report.heldout_loss.base == pytest.approx(sum(a for a, _ in losses) / sum(n for _, n in losses), rel=1e-4)


def test_a_report_goes_when_the_result_changes(tiny):
    run = finetune(two_stages(tiny, LoRA(r=4)))
    evaluate(run, rows=4, **FEW)
    assert read_report(run.path)
    run.roll_back(0)
    assert read_report(run.path) is None


def test_rows_and_report_stay_of_one_measurement_where_the_next_one_fails(tiny, monkeypatch):
    first, second = (finetune(config(tiny, LoRA(r=4), steps=2, seed=seed)) for seed in (0, 1))
    report = evaluate(first, rows=4, **FEW)
    rows, whole = rows_of(first), MeasuredRun.report

    def fails(measured, *given):
        if measured.run is second:
            raise UserError("It stops in the middle.")
        return whole(measured, *given)

    monkeypatch.setattr(MeasuredRun, "report", fails)
    with pytest.raises(UserError, match="in the middle"):
        evaluate_all([first, second], Measuring(rows=2, **FEW))
    assert (rows_of(first), read_report(first.path)) == (rows, report)


def test_another_base_under_the_same_name_is_refused(tiny, tmp_path):
    from tests.helpers import tiny_llama

    folder = tmp_path / "model"
    run = finetune(config(str(tiny_llama(folder)), LoRA(r=4), steps=1))
    tiny_llama(folder, seed=1)
    with pytest.raises(UserError, match="was trained on other weights"):
        evaluate(run, rows=4)
