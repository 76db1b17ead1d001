"""Runs as processes, without a browser: a queue that survives everything, and what the page says about runs."""

from __future__ import annotations

import errno
import re
import subprocess
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from playground import forms, views
from playground.jobs import CLIMBER, WORKER, Jobs
from playground.owners import Caller
from tests.helpers import ROWS
from tests.measure.test_ladder import config as ladder_config
from tests.measure.test_pages import NAME, Read
from tests.train.test_loop import config
from tunelab import TECHNIQUES, DataSpec, Ladder, LadderConfig, LoRA, ModelSpec, Progress, Run, TrainConfig, UserError
from tunelab.errors import EXIT_USER_ERROR
from tunelab.measure.charts import line_chart, loss_chart, ticks
from tunelab.measure.ladder import PAGE_FILE
from tunelab.measure.pages import ladder_page

SERVER = Caller.server()


def until(condition, seconds=180):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.1)


@pytest.fixture
def jobs():
    made = Jobs()
    made.watch()
    yield made
    made.end()


@pytest.mark.slow
def test_a_second_training_queues_and_follows(tiny, jobs):
    first = jobs.start(config(tiny, steps=100_000), SERVER)
    until(lambda: first.progress().step >= 2)
    second = jobs.start(config(tiny, steps=2), SERVER)
    assert second.status == "queued"
    assert jobs.place(second) == 1
    jobs.stop(first, SERVER)
    until(lambda: second.status == "finished")
    assert first.status == "stopped"
    assert first.has_adapter
    jobs.resume(first, SERVER)
    until(lambda: first.status == "running" and first.progress().step > 2)
    jobs.pause(first, SERVER)
    until(lambda: first.status == "paused")
    assert first.has_adapter
    assert jobs.queued() == []


@pytest.mark.slow
def test_an_app_that_starts_finds_what_is_queued(tiny):
    waiting = Run.create(config(tiny, steps=2))
    waiting.queue()
    jobs = Jobs()
    jobs.watch()
    until(lambda: waiting.status == "finished")
    jobs.end()


@pytest.mark.slow
def test_a_worker_that_fails_says_why_and_the_next_run_starts(tiny, jobs):
    broken = config(tiny, steps=2)
    broken = broken.model_copy(
        update={"stages": (broken.stages[0].model_copy(update={"data": DataSpec(source="gone.csv")}),)}
    )
    first, second = jobs.start(broken, SERVER), jobs.start(config(tiny, steps=2), SERVER)
    until(lambda: second.status == "finished")
    assert first.status == "failed"
    assert "There is no file" in first.progress().message


def test_what_cannot_be_stopped_or_resumed_is_refused(tiny, jobs):
    run = Run.create(config(tiny))
    with pytest.raises(UserError, match="can't be resumed: it is queued"):
        jobs.resume(run, SERVER)


def test_the_page_shows_names_as_text(tiny):
    run = Run.create(config(tiny).model_copy(update={"name": "<b>bold</b>"}))
    shown = views.progress_html(run, run.progress(), None)
    assert "<b>bold</b>" not in shown
    assert "&lt;b&gt;bold" in shown
    run = Run.create(config(tiny).model_copy(update={"name": NAME}))
    failed = Progress("failed", f"there is no file {NAME}")
    page = Read(views.progress_html(run, failed, None))
    assert "script" not in page.elements
    assert page.texts.count(NAME) == 1
    assert f"— ✕ failed · there is no file {NAME}" in page.texts
    assert page.every("data-run") == [run.id]
    assert views.plain_markdown("# [x](y) <i>") == "\\# \\[x\\]\\(y\\) \\&lt;i\\&gt;"


def test_the_status_says_each_thing_once_and_what_was_kept(tiny):
    from tunelab import finetune

    stopped_early = {"steps": 60, "eval_every": 1, "learning_rate": 0.5, "early_stopping_patience": 3}
    run = finetune(config(tiny, **stopped_early))
    progress = run.progress()
    kept = progress.stages[-1].restored_step
    best = min(e.heldout_loss for e in progress.evaluations)
    line = views.status_line(progress, None)
    assert line.startswith("✓ finished early, after ")
    assert line.count("finished") == 1
    assert f"the adapter of step {kept} had the lowest held-out loss and is kept" in line
    assert views.figures(progress).heldout == f"{best:.3f}"
    assert [row[0] for row in views.curve_text(progress) if row[-1] == "lowest: kept"] == [str(kept)]
    notes = views.notes_text(run, progress).replace("\\", "")
    assert str(run.adapter_path) in notes
    assert "memory: about" in notes
    assert f"GB ({progress.started.forecast_bytes / 1e9:.2f} GB were forecast)" in notes
    assert views.status_line(progress, "number 2 in line") == "◔ queued, number 2 in line"


def test_the_ladder_in_the_app_is_the_table_of_its_page_and_names_where_that_lies(tmp_path):
    ladder = Ladder.create(ladder_config("starter", "ia3", "lora"), tmp_path / NAME)
    shown, page = Read(views.ladder_html(ladder)), Read(ladder_page(ladder))
    assert "script" not in shown.elements
    assert shown.texts[-1] == f"As a page of its own: {ladder.path / PAGE_FILE}"
    table = shown.texts[shown.texts.index("Technique") : -1]
    assert {"IA³", "LoRA"} < set(table)
    assert page.texts[-len(table) :] == table


def test_an_upload_cut_short_by_a_full_disk_is_not_taken_for_the_file(tmp_path, monkeypatch, jobs):
    upload = tmp_path / "rows.csv"
    upload.write_text("prompt,completion\na,b\nc,d\n")

    def full(source, target):
        Path(target).write_text("prompt,comp")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", full)
        with pytest.raises(OSError, match="No space left"):
            jobs.keep_upload(str(upload))
    assert Path(jobs.keep_upload(str(upload))).read_text() == upload.read_text()


def test_a_full_disk_is_one_sentence_in_the_page_and_an_unknown_failure_names_the_terminal(caplog):
    from playground.errors import UNEXPECTED, words_for

    full = words_for(OSError(errno.ENOSPC, "No space left on device", "config.json"))
    assert full.startswith("The disk is full while writing config.json.")
    assert words_for(KeyError("x")) == UNEXPECTED
    assert "KeyError: 'x'" in caplog.text


def test_widgets_follow_from_fields():
    number = forms.widget(TrainConfig, "steps")
    assert number.value == 60
    assert number.info == TrainConfig.model_fields["steps"].description
    assert forms.widget(TrainConfig, "learning_rate").value == "auto"
    given = {"steps": 5, "learning_rate": "2e-4", "early_stopping_patience": "", "schedule": "linear"}
    assert TrainConfig(**forms.values_for(TrainConfig, given)) == TrainConfig(
        steps=5, learning_rate=2e-4, schedule="linear"
    )
    assert LoRA(**forms.values_for(LoRA, {"target_modules": "q_proj, v_proj"})).target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize("spec", [TrainConfig, ModelSpec, LadderConfig, *TECHNIQUES.values()])
def test_what_is_wrong_with_a_number_is_said_by_its_field_and_by_nobody_before(spec):
    numbers = {
        name: forms.widget(spec, name) for name in spec.model_fields if spec.model_fields[name].annotation is int
    }
    for name, widget in numbers.items():
        for written in (-7, 2.6):
            assert widget.preprocess(written) == written
            with pytest.raises(ValidationError, match=name):
                spec.model_validate(forms.values_for(spec, {name: written}))
        with pytest.raises(UserError, match=f"{re.escape(forms.label_of(name))} is empty"):
            forms.values_for(spec, {name: None})


def test_a_chart_says_in_words_what_it_draws(tiny):
    from tunelab import finetune

    chart = loss_chart(finetune(config(tiny)).progress())
    assert chart.count("<polyline") == 3
    assert "held-out from" in chart
    assert "base from" in chart
    assert ">0.2<" not in line_chart({}, title="t")  # no numbers where nothing was measured
    assert "nan" not in line_chart({"a": [(0, 1.0), (1, float("nan")), (2, 2.0)]}, title="t")
    assert "<svg" in line_chart({}, title="<empty>")
    assert "<empty>" not in line_chart({}, title="<empty>")


@pytest.mark.parametrize(("low", "high"), [(0, 60), (1.3, 4.7), (-3, -2.5), (0, 0.001), (4.41, 4.42)])
def test_ticks_are_few_round_and_span_the_values(low, high):
    made = ticks(low, high)
    assert made[0] <= low
    assert made[-1] >= high
    assert 3 <= len(made) <= 12


def test_rows_in_memory_stay_in_the_run(tiny):
    run = Run.create(config(tiny))
    assert run.config.stages[0].data.rows == tuple(ROWS)


@pytest.mark.parametrize("command", [WORKER, CLIMBER], ids=["worker", "climber"])
def test_what_the_app_starts_is_a_program_that_says_what_it_lacks(command, tmp_path):
    result = subprocess.run([*command, str(tmp_path / "nothing")], capture_output=True, text=True)
    assert result.returncode == EXIT_USER_ERROR
    assert "nothing" in result.stderr
