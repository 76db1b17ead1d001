"""Several stages in one run, the way back, and a run that starts from another's result."""

from __future__ import annotations

import gc
import hashlib
import threading
import weakref

import pytest

from tests.helpers import ROWS, tiny_llama
from tests.techniques.test_invariants import config, until
from tunelab import (
    IA3,
    BottleneckAdapter,
    DataSpec,
    FullFineTuning,
    LoRA,
    PrefixTuning,
    Run,
    Stage,
    TrainConfig,
    UserError,
    compare,
    finetune,
    report,
    train_run,
)
from tunelab.cli import main
from tunelab.measure.card.page import page_of
from tunelab.measure.charts import loss_chart

TEXT = Stage(
    data=DataSpec(rows=[{"text": f"words to read {i} " * 5} for i in range(12)], heldout=2),
    learn="text",
    training=TrainConfig(steps=3, batch_size=2, learning_rate=3e-3, eval_every=1, warmup_steps=0),
    name="domain text",
)


def two_stages(tiny, technique):
    after = config(tiny, technique, steps=4)
    return after.model_copy(update={"stages": (TEXT, *after.stages)})


def weights(folder):
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.glob("*.safetensors")}


@pytest.mark.parametrize("technique", [LoRA(r=4), BottleneckAdapter(size=8), FullFineTuning()], ids=lambda t: t.kind)
def test_each_stage_has_its_curve_its_result_and_a_way_back(tiny, technique, capsys):
    run = finetune(two_stages(tiny, technique))
    progress = run.progress()
    assert {e.stage for e in progress.evaluations} == {0, 1}
    # the base is measured on each stage's own rows
    assert sum(e.base_loss is not None for e in progress.evaluations) == 2
    assert "domain text" in loss_chart(progress, run.config)
    assert "stage 2" in loss_chart(progress, run.config)

    last = weights(run.adapter_path)
    assert last == weights(run.stage_path(1))
    assert last != weights(run.stage_path(0))
    assert main(["rollback", run.id, "--stage", "1"]) == 0
    assert "rolled back to the end of stage 1 (step 3)" in capsys.readouterr().out
    assert weights(run.adapter_path) == weights(run.stage_path(0))
    assert run.status == "finished"
    assert compare(run, "say red", max_new_tokens=2).done
    run.roll_back(1)
    assert weights(run.adapter_path) == last
    with pytest.raises(UserError, match="keeps no result of stage 3; it keeps: 1, 2"):
        run.roll_back(2)


def test_a_run_stopped_in_its_second_stage_resumes_there(tiny):
    alone = finetune(two_stages(tiny, LoRA(r=4)))
    run = Run.create(two_stages(tiny, LoRA(r=4)))
    list(until(run, 5))
    assert run.status == "stopped"
    list(train_run(run))
    assert [e.loss for e in run.progress().steps] == [e.loss for e in alone.progress().steps]


@pytest.mark.parametrize("technique", [LoRA(r=4), FullFineTuning(), PrefixTuning(num_virtual_tokens=6)],
                         ids=lambda t: t.kind)  # fmt: skip
def test_a_run_starts_from_anothers_result_and_says_so(tiny, technique):
    first = finetune(config(tiny, technique, steps=6))
    second = finetune(config(tiny, technique, steps=2).model_copy(update={"start_from": first.id, "name": "second"}))
    assert second.lineage == [first.id]
    third = finetune(config(tiny, technique, steps=1).model_copy(update={"start_from": second.id}))
    assert third.lineage == [second.id, first.id]
    fresh = finetune(config(tiny, technique, steps=2))
    assert second.progress().steps[0].loss < fresh.progress().steps[0].loss
    # the base's loss stays the base's
    assert second.progress().evaluations[0].base_loss == pytest.approx(fresh.progress().evaluations[0].base_loss)


PATHS = [(LoRA(r=4), ""), (IA3(), ""), (LoRA(r=4, lora_dropout=0.1), "dropout of the adapter")]


@pytest.mark.parametrize(("technique", "why"), PATHS, ids=[why or technique.title for technique, why in PATHS])
def test_a_run_and_its_card_say_by_which_path_it_is_computed_and_why_not_by_the_fast_one(tiny, technique, why):
    run = finetune(config(tiny, technique, steps=1))
    started = run.progress().started
    assert (started.fast, started.why_plain) == (not why, why)
    said = [note for note in started.notes if "fast path" in note]
    assert said == ([f"computed by the model's own code, not by the fast path: {why}"] if why else [])
    assert (f", plain computation ({why}), " if why else ", fast computation, ") in page_of(report(run))


@pytest.mark.parametrize("differing", [{}, {"cache_frozen": False}, {"neftune_alpha": 5.0}], ids=str)
def test_no_stage_keeps_the_joined_weights_or_the_rows_of_the_one_before(tiny, monkeypatch, differing):
    from tunelab.fast import llama, structure
    from tunelab.train import memory

    made, alive, caches = [], [], []
    join, cache = structure.Linears.join, llama.FrozenCache

    def watched_join(stacked):
        join(stacked)
        if stacked.joined().device.type == "cpu":  # the forecast makes them of shapes alone
            made.append(weakref.ref(stacked.joined()))
            alive.append(sum(matrix() is not None for matrix in made))

    def watched_cache():
        caches.append(cache())
        return caches[-1]

    asked = config(tiny, LoRA(r=4, layers=(1,)), steps=2, eval_every=1, batch_size=4)
    (stage,) = asked.stages
    texts = [DataSpec(rows=[{"text": f"of stage {n}: {i}"} for i in range(12)], heldout=2) for n in range(4)]
    stages = [
        stage.model_copy(update={"data": text, "learn": "text",
                                 "training": stage.training.model_copy(update=differing if number % 2 else {})})
        for number, text in enumerate(texts)
    ]  # fmt: skip
    run = Run.create(asked.model_copy(update={"stages": tuple(stages)}))
    monkeypatch.setattr(memory, "_seconds", lambda *_asked: {})  # which trains small models of its own
    monkeypatch.setattr(structure.Linears, "join", watched_join)
    monkeypatch.setattr(llama, "FrozenCache", watched_cache)
    list(train_run(run))
    assert run.status == "finished"
    assert max(alive) == 8  # two layers of four
    assert len(made) == 8 * {"{}": 1, "{'cache_frozen': False}": 4, "{'neftune_alpha': 5.0}": 2}[str(differing)]
    # each holds the rows of one stage, and only the last one is held
    assert max(len(one.rows) for one in caches) <= 12
    references = [weakref.ref(one) for one in caches]
    caches.clear()
    gc.collect()
    assert not any(reference() for reference in references)


def test_what_does_not_fit_is_refused_by_name(tiny, tmp_path):
    first = finetune(config(tiny, LoRA(r=4), steps=1))
    with pytest.raises(UserError, match=r"r is 4 there and 8 here\. Take the same technique and settings"):
        finetune(config(tiny, LoRA(r=8)).model_copy(update={"start_from": first.id}))
    other = str(tiny_llama(tmp_path / "other", seed=1))
    with pytest.raises(UserError, match="Take the same base"):
        finetune(config(other, LoRA(r=4)).model_copy(update={"start_from": first.id}))
    with pytest.raises(UserError, match="There is no run 'nobody'"):
        finetune(config(tiny, LoRA(r=4)).model_copy(update={"start_from": "nobody"}))
    waiting = Run.create(config(tiny, LoRA(r=4)))
    with pytest.raises(UserError, match="has no adapter yet"):
        finetune(config(tiny, LoRA(r=4)).model_copy(update={"start_from": waiting.id}))


def test_going_on_at_another_precision_of_the_base_is_said(tiny):
    first = finetune(config(tiny, LoRA(r=4), "nf4", steps=1))
    for quantization in ("nf4", "none"):
        later = config(tiny, LoRA(r=4), quantization, steps=1).model_copy(update={"start_from": first.id})
        notes = " ".join(finetune(later).progress().started.notes)
        told = "trained on a base with quantization nf4, this one has none"
        assert (told in notes) == (quantization == "none")


def test_the_command_line_starts_from_a_run_by_its_name(tiny, tmp_path, capsys):
    import json

    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in ROWS))
    shared = ["--data", str(rows), "--heldout", "4", "--model", tiny, "--dtype", "float32", "--r", "4", "--steps", "2"]
    assert main(["train", *shared, "--name", "first"]) == 0
    assert main(["train", *shared, "--name", "second", "--start-from", "first"]) == 0
    assert Run.open("second").lineage == [Run.open("first").id]
    capsys.readouterr()
    assert main(["runs"]) == 0
    assert "started from" in capsys.readouterr().out


def test_a_name_or_latest_is_kept_as_the_id_of_that_run(tiny):
    first = finetune(config(tiny, LoRA(r=4), steps=1).model_copy(update={"name": "parent"}))
    second = finetune(config(tiny, LoRA(r=4), steps=1).model_copy(update={"start_from": "latest"}))
    third = finetune(config(tiny, LoRA(r=4), steps=1).model_copy(update={"start_from": "parent"}))
    assert second.lineage == third.lineage == [first.id]


def test_word_of_a_download_is_in_the_log_while_it_goes_on(tiny, monkeypatch):
    """The download here goes on only once its first message has been read by somebody else."""
    from tunelab.model import load

    run, read, real = Run.create(config(tiny, LoRA(r=4), steps=1)), threading.Event(), load.find
    fetched = []

    def slow(spec, progress=None):
        if progress and not fetched:
            fetched.append(spec)
            progress("fetching the model")
            assert read.wait(60), "nobody heard of it"
            progress("half of it is here")
        return real(spec, progress)

    monkeypatch.setattr(load, "find", slow)
    messages = []
    for event in train_run(run):
        if event.event == "Preparing":
            messages.append(event.message)
            if event.message == "fetching the model":
                assert [e.message for e in run.events()] == messages
                assert run.progress().message == "fetching the model"
                read.set()
    assert messages == [f"loading {tiny} and the data", "fetching the model", "half of it is here", messages[-1]]
    assert messages[-1].startswith("timing")
    assert run.status == "finished"


def test_a_download_that_fails_fails_the_run_in_its_own_words(tiny, monkeypatch):
    def fail(spec, progress=None):
        progress("fetching the model")
        raise UserError("The cable is cut. Mend it.")

    monkeypatch.setattr("tunelab.model.load.find", fail)
    run = Run.create(config(tiny, LoRA(r=4), steps=1))
    with pytest.raises(UserError, match="The cable is cut"):
        list(train_run(run))
    assert (run.status, run.progress().message) == ("failed", "The cable is cut. Mend it.")


def test_only_a_finished_run_is_rolled_back(tiny):
    run = Run.create(two_stages(tiny, LoRA(r=4)))
    list(until(run, 5))
    with pytest.raises(UserError, match=r"is stopped\. Only a finished run"):
        run.roll_back(0)


def test_figures_of_a_run_are_those_of_its_last_stage(tiny):
    progress = finetune(two_stages(tiny, LoRA(r=4))).progress()
    last = [e for e in progress.evaluations if e.stage == 1]
    assert progress.heldout_loss == min(e.heldout_loss for e in last)
    assert progress.base_loss == last[0].base_loss


@pytest.mark.parametrize("keep_best", [True, False])
def test_after_a_rollback_every_figure_is_that_of_the_stage_it_went_back_to(tiny, tmp_path, keep_best, capsys):
    import json
    import zipfile

    from playground import views
    from tunelab import export_adapter

    asked = two_stages(tiny, LoRA(r=4))
    reading, answering = (s.model_copy(update={"training": s.training.model_copy(update={"keep_best": keep_best})})
                          for s in asked.stages)  # fmt: skip
    answering = answering.model_copy(update={"data": DataSpec(rows=ROWS, heldout=4, system="Be brief.")})
    run = finetune(asked.model_copy(update={"stages": (reading, answering)}))
    for stage in (0, 1, 0):
        run.roll_back(stage)
        progress = run.progress()
        of_it = [e for e in progress.evaluations if e.stage == stage]
        expected = min(of_it, key=lambda e: e.heldout_loss) if keep_best else of_it[-1]
        assert progress.heldout_loss == expected.heldout_loss
        assert progress.base_loss == of_it[0].base_loss
        last = [e for e in progress.steps if e.stage == stage][-1]
        assert progress.step == last.step
        figures = views.figures(progress)
        assert figures.heldout == f"{expected.heldout_loss:.3f}"
        assert figures.base == f"(base {of_it[0].base_loss:.3f})"
        assert (figures.step, figures.loss) == (f"{last.step} of 7", f"{last.loss:.3f}")
        assert [row[0] for row in views.curve_text(progress) if "kept" in row[-1]] == [str(expected.step)]
        assert views.loss_text(run.progress()) == f"{of_it[0].base_loss:.2f} → {expected.heldout_loss:.2f}"
        capsys.readouterr()
        assert main(["runs", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["heldout_loss"] == expected.heldout_loss
        made = export_adapter(run, tmp_path / f"{len(list(tmp_path.iterdir()))}.zip")
        card = zipfile.ZipFile(made.path).read("README.md").decode()
        loss = f"{expected.heldout_loss:.4f} (base: {of_it[0].base_loss:.4f})"
        assert f"| held-out loss, nats per token | {loss} |" in card
        assert f"| optimiser steps | {last.step} of 7 |" in card
        assert ("System prompt it was trained with" in card) == (stage == 1)
        assert ("This is the result of stage 1 (domain text): nothing of a later stage is in it" in card) == (
            stage == 0
        )
        assert compare(run, "say red", max_new_tokens=1).system == ("Be brief." if stage else None)


@pytest.mark.parametrize("technique", [LoRA(r=4), BottleneckAdapter(size=8), FullFineTuning()], ids=lambda t: t.kind)
def test_answers_follow_the_result_when_it_is_rolled_back(tiny, technique):
    from tunelab import Comparer

    after = config(tiny, technique, steps=30, learning_rate=2e-2)
    run = finetune(after.model_copy(update={"stages": (TEXT, *after.stages)}))
    with Comparer(run.root) as comparer:

        def answer():
            *_, last = comparer.stream([run], "say red", max_new_tokens=12)
            return last.answers[1].text

        tuned = answer()
        run.roll_back(0)
        before = answer()
        run.roll_back(1)
        assert answer() == tuned
    assert before != tuned


def test_two_who_replace_a_directory_at_once_leave_one_whole_and_nothing_else(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from tunelab.machine.files import replacing

    def put(number):
        with replacing(tmp_path / "adapter") as folder:
            (folder / "a").write_text(str(number))
            (folder / "b").write_text(str(number))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, range(200)))
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert (tmp_path / "adapter" / "a").read_text() == (tmp_path / "adapter" / "b").read_text()


def test_a_directory_that_is_not_finished_leaves_the_old_one(tmp_path):
    from tunelab.machine.files import replacing

    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "a").write_text("old")

    def put():
        with replacing(tmp_path / "adapter") as folder:
            (folder / "a").write_text("new")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        put()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert (tmp_path / "adapter" / "a").read_text() == "old"
