"""The training loop against independent oracles: transformers.Trainer, a run left alone, gradients before and after."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.helpers import ROWS
from tunelab import DataSpec, LoRA, ModelSpec, Run, RunConfig, Stage, TrainConfig, finetune, load, train_run
from tunelab.data.batches import BatchOrder, collate
from tunelab.data.encode import encode_all
from tunelab.data.split import read_data
from tunelab.fast.llama import FastLoss
from tunelab.losses import PlainLoss
from tunelab.run.events import Evaluated, Failed, Finished, Started, StepDone, Stopped
from tunelab.train.loop import StageData, Trainer


def config(tiny, **training) -> RunConfig:
    settings = {"steps": 6, "batch_size": 4, "eval_every": 3, "checkpoint_every": 2, "learning_rate": 1e-2, **training}
    return RunConfig(
        model=ModelSpec(repo_id=tiny, dtype="float32"),
        technique=LoRA(r=4),
        stages=(Stage(data=DataSpec(rows=ROWS, heldout=4), training=TrainConfig(**settings)),),
    )


def encoded(base, rows=ROWS):
    split = read_data(DataSpec(rows=rows, heldout=4))
    return encode_all(split.train, base.tokenizer, 512)[0], encode_all(split.heldout, base.tokenizer, 512)[0]


def losses(events):
    return [e.loss for e in events if isinstance(e, StepDone)]


def make_b_matter(model):
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)


@pytest.mark.parametrize(("accumulation", "schedule"), [(1, "linear"), (3, "cosine")])
def test_losses_equal_those_of_transformers_trainer(tiny, tmp_path, accumulation, schedule):
    from transformers import Trainer as HFTrainer
    from transformers import TrainingArguments

    training = TrainConfig(
        steps=5, batch_size=2, gradient_accumulation_steps=accumulation, schedule=schedule, warmup_steps=2,
        learning_rate=1e-2, weight_decay=0.1, keep_best=False, length_buckets=False, max_grad_norm=0.5,
    )  # fmt: skip
    base = load(ModelSpec(repo_id=tiny, dtype="float32"))
    train, _ = encoded(base)
    torch.manual_seed(3)
    model = LoRA(r=4).attach(base)
    order = BatchOrder([len(r.input_ids) for r in train], 2, training.seed, False, accumulation)
    ours = losses(Trainer(model, FastLoss(model), StageData(train, []), training, 1e-2, pad_id=2).train())

    other = load(ModelSpec(repo_id=tiny, dtype="float32"))
    torch.manual_seed(3)
    theirs_model = LoRA(r=4).attach(other)
    batches = []
    for rows in (rows for step in range(5) for rows in order.batches(step)):
        batch = collate([train[row] for row in rows], 2)
        labels = batch.input_ids.masked_fill(~batch.scored, -100)
        mask = (torch.arange(labels.shape[1])[None] < batch.lengths[:, None]).long()
        batches.append({"input_ids": batch.input_ids, "labels": labels, "attention_mask": mask})

    class SameBatches(HFTrainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(batches, batch_size=None)

    arguments = TrainingArguments(
        tmp_path, max_steps=5, gradient_accumulation_steps=accumulation, learning_rate=1e-2, warmup_steps=2,
        lr_scheduler_type=schedule, weight_decay=0.1, max_grad_norm=0.5, logging_steps=1, use_cpu=True, report_to=[],
        save_strategy="no", disable_tqdm=True, seed=0,
    )  # fmt: skip
    trainer = SameBatches(theirs_model, arguments, train_dataset=batches)
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert ours == pytest.approx(theirs, rel=2e-4)  # their log is rounded
    assert ours[-1] < ours[0]


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_fast_loss_and_gradients_equal_the_plain_ones(tiny, quantization):
    for keep in (True, False) if quantization == "nf4" else (True,):
        base = load(ModelSpec(repo_id=tiny, dtype="float32", quantization=quantization, keep_dequantized=keep))
        model = LoRA(r=4).attach(base)
        make_b_matter(model)
        batch = collate(encoded(base)[0][:5], 2)
        results = []
        for loss in (PlainLoss(model), FastLoss(model)):
            model.zero_grad()
            value = loss(batch)
            value.backward()
            results.append((value.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}))
        (plain, plain_gradients), (fast, fast_gradients) = results
        assert fast == pytest.approx(plain, rel=1e-5)
        for name, gradient in plain_gradients.items():
            assert torch.allclose(gradient, fast_gradients[name], rtol=1e-3, atol=1e-4 * gradient.abs().max()), name


@pytest.mark.parametrize("keep_dequantized", [True, False])
def test_evaluating_and_generating_do_not_change_the_gradients_that_follow(tiny, keep_dequantized):
    base = load(ModelSpec(repo_id=tiny, quantization="nf4", dtype="bfloat16", keep_dequantized=keep_dequantized))
    model = LoRA(r=4).attach(base)
    make_b_matter(model)
    batch = collate(encoded(base)[0][:4], 2)

    def gradients():
        model.train()
        model.zero_grad()
        PlainLoss(model)(batch).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])

    before = gradients()
    model.eval()
    with torch.no_grad():
        PlainLoss(model)(batch)
        model.generate(input_ids=batch.input_ids[:1], max_new_tokens=3, do_sample=False)
    assert torch.equal(before, gradients())


@pytest.mark.parametrize("buckets", [True, False])
def test_accumulating_small_batches_equals_one_large_batch(tiny, buckets):
    whole = finetune(config(tiny, batch_size=5, length_buckets=buckets))
    parts = finetune(config(tiny, batch_size=1, gradient_accumulation_steps=5, length_buckets=buckets))
    assert losses(parts.events()) == pytest.approx(losses(whole.events()), rel=1e-4)


def test_the_same_seed_gives_the_same_losses_and_another_does_not(tiny):
    first, again, other = (losses(finetune(config(tiny, seed=s)).events()) for s in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_losses_of_one_left_alone(tiny, tmp_path):
    alone = finetune(config(tiny, steps=12), root=tmp_path / "a")
    run = Run.create(config(tiny, steps=12), tmp_path / "b")
    # the worker is slowed down, so that the kill falls between two steps' checkpoints
    code = (
        "import sys, time, tunelab.train.loop as t; from tunelab.worker import main\n"
        "step = t.Trainer._step\n"
        "def slow(self):\n    time.sleep(0.2)\n    return step(self)\n"
        "t.Trainer._step = slow\nmain(sys.argv[1:])"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, str(run.path)], stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while run.progress().step < 7 and time.time() < deadline:
        time.sleep(0.05)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert 7 <= run.progress().step < 12
    assert list(run.checkpoints_path.glob("step-*"))
    for _ in train_run(run):
        pass
    resumed = run.progress()
    assert resumed.status == "finished"
    assert [e.loss for e in resumed.steps] == losses(alone.events())
    assert [e.heldout_loss for e in resumed.evaluations] == [e.heldout_loss for e in alone.progress().evaluations]


def test_a_damaged_checkpoint_is_passed_over(tiny):
    from tunelab.train.checkpoints import newest_checkpoint

    run = finetune(config(tiny))
    newest, older = sorted(run.checkpoints_path.iterdir(), reverse=True)
    weights = newest / "parameters.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert newest_checkpoint(run.checkpoints_path).position.step == int(older.name.removeprefix("step-"))


def test_stopping_keeps_a_loadable_adapter_and_resuming_goes_on(tiny):
    alone = finetune(config(tiny))
    run = Run.create(config(tiny))
    for event in train_run(run):
        if isinstance(event, StepDone) and event.step == 3:
            run.request_stop()
    assert isinstance(event, Stopped)
    assert event.step == 3
    assert run.status == "stopped"
    assert LoRA(r=4).load(load(run.config.model), run.adapter_path)
    for _ in train_run(run):
        pass
    assert [e.loss for e in run.progress().steps] == losses(alone.events())


def test_a_reader_that_ends_early_keeps_the_adapter(tiny):
    run = Run.create(config(tiny))
    for event in train_run(run):
        if isinstance(event, StepDone) and event.step == 2:
            break
    del event
    import gc

    gc.collect()
    assert run.status == "stopped"
    assert run.has_adapter


def test_interrupting_stops_after_the_step_and_keeps_the_adapter(tiny):
    run = Run.create(config(tiny))
    for event in train_run(run):
        if isinstance(event, StepDone) and event.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
    assert isinstance(event, Stopped)
    assert run.has_adapter


def test_early_stopping_restores_the_best_adapter(tiny):
    run = finetune(config(tiny, steps=60, eval_every=1, learning_rate=0.5, early_stopping_patience=3))
    progress = run.progress()
    best = min(progress.evaluations, key=lambda e: e.heldout_loss)
    assert progress.status == "finished"
    assert progress.step < 60
    assert progress.stages[-1].restored_step == best.step
    base = load(run.config.model)
    model = LoRA(r=4).load(base, run.adapter_path).eval()
    batch = collate(encoded(base)[1], 2)
    with torch.no_grad():
        assert PlainLoss(model)(batch).item() / batch.scored_tokens == pytest.approx(best.heldout_loss, rel=1e-4)


def test_only_the_adapter_moves_and_the_base_stays_as_it_was(tiny):
    base = load(ModelSpec(repo_id=tiny, dtype="float32"))
    model = LoRA(r=4).attach(base)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train, heldout = encoded(base)
    list(Trainer(model, FastLoss(model), StageData(train, heldout), TrainConfig(steps=2), 1e-2, pad_id=2).train())
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) != ("lora_" in name), name


def test_a_run_trains_on_its_device_after_one_on_another_in_the_same_process(tiny):
    """accelerate keeps the device of the first run in a process, and refuses or forces it on those that follow."""
    from accelerate.state import AcceleratorState, PartialState

    model = LoRA(r=4).attach(load(ModelSpec(repo_id=tiny, dtype="float32", device="cpu")))

    def trainer():
        return Trainer(
            model,
            FastLoss(model),
            StageData(*encoded(load(ModelSpec(repo_id=tiny)))),
            TrainConfig(steps=1),
            1e-2,
            pad_id=2,
        )

    list(trainer().train())
    for state in (AcceleratorState, PartialState):
        state._shared_state["device"] = torch.device("cuda")  # as after a run on a GPU
    (_loss, *_), ours = trainer().train(), trainer()
    assert ours.accelerator.device.type == "cpu"


def test_base_loss_is_measured_with_the_adapter_off(tiny):
    run = finetune(config(tiny, steps=2))
    first = next(e for e in run.events() if isinstance(e, Evaluated))
    base = load(run.config.model)
    batch = collate(encoded(base)[1], 2)
    with torch.no_grad():
        assert first.base_loss == pytest.approx(PlainLoss(base.model)(batch).item() / batch.scored_tokens, rel=1e-5)


def test_a_diverging_run_says_so_and_fails_with_a_next_step(tiny, monkeypatch):
    from tunelab.errors import UserError

    monkeypatch.setattr(FastLoss, "__call__", lambda self, batch: next(self.llama_parameters()).sum() * float("nan"))
    monkeypatch.setattr(
        FastLoss, "llama_parameters", lambda self: (f for f in [torch.zeros(1, requires_grad=True)]), raising=False
    )
    run = Run.create(config(tiny))
    with pytest.raises(UserError, match="Lower learning_rate"):
        list(train_run(run))
    assert run.status == "failed"


def test_a_full_disk_gives_one_message_and_keeps_the_older_checkpoint(tiny, monkeypatch):
    import errno

    from tunelab.errors import UserError
    from tunelab.train import checkpoints

    real, calls = checkpoints.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    run = Run.create(config(tiny, eval_every=100, keep_best=False))
    with pytest.raises(UserError, match="disk is full"):
        list(train_run(run))
    assert [p.name for p in run.checkpoints_path.iterdir()] == ["step-000002"]
    failed = run.progress()
    assert isinstance(failed.ending, Failed)
    assert "disk is full" in failed.message
    monkeypatch.setattr(checkpoints, "save_file", real)
    list(train_run(run))
    assert run.status == "finished"


def test_stages_are_trained_in_order_and_plain_text_is_scored_everywhere(tiny):
    text = Stage(data=DataSpec(rows=[{"text": f"words to read {i} " * 5} for i in range(12)], heldout=2), learn="text",
                 training=TrainConfig(steps=2, batch_size=2), name="text")  # fmt: skip
    run = finetune(config(tiny).model_copy(update={"stages": (text, *config(tiny, steps=3).stages)}))
    progress = run.progress()
    assert [(e.step, e.stage) for e in progress.steps] == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]
    assert progress.steps[0].scored_tokens > 0.95 * progress.steps[0].tokens
    assert run.stage_path(0).is_dir()


def test_a_resumed_run_refuses_data_that_changed(tiny, tmp_path):
    from tunelab.errors import UserError

    file = tmp_path / "rows.csv"
    lines = ["prompt,completion", *(f"{r['prompt']},answer {i}" for i, r in enumerate(ROWS))]
    file.write_text("\n".join(lines))
    changed = config(tiny).stages[0].model_copy(update={"data": DataSpec(source=str(file), heldout=4)})
    run = Run.create(config(tiny).model_copy(update={"stages": (changed,)}))
    for event in train_run(run):
        if isinstance(event, StepDone) and event.step == 3:
            run.request_stop()
    file.write_text("\n".join([*lines[:-1], "say nothing,something else"]))
    with pytest.raises(UserError, match="data of run"):
        list(train_run(run))


def test_the_started_and_finished_events_say_what_was_used(tiny):
    run = finetune(config(tiny))
    started = next(e for e in run.events() if isinstance(e, Started))
    finished = [e for e in run.events() if isinstance(e, Finished)]
    assert (started.device, started.dtype, started.fast) == ("cpu", "float32", True)
    assert started.trainable_parameters == sum(
        4 * (i + o) for i, o in 2 * [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)]
    )
    assert len(finished) == 1


def test_a_run_without_a_checkpoint_begins_anew_and_counts_its_steps_once(tiny):
    run = Run.create(config(tiny, checkpoint_every=1000))
    events = []
    for event in train_run(run):
        events.append(event)
        if isinstance(event, StepDone) and event.step == 3:
            break
    for path in run.checkpoints_path.iterdir():  # as if it had been killed before the first one
        import shutil

        shutil.rmtree(path)
    list(train_run(run))
    assert [e.step for e in run.progress().steps] == list(range(1, 7))


def test_a_stop_that_comes_while_it_starts_is_heeded(tiny):
    run = Run.create(config(tiny))
    run.queue()
    run.request_stop()
    list(train_run(run))
    assert run.status == "stopped"
    assert run.progress().step == 0


def test_a_reader_that_leaves_finds_the_adapter_recorded_and_kept(tiny):
    run = Run.create(config(tiny))
    for event in train_run(run):
        if isinstance(event, StepDone) and event.step == 3:
            break
    import gc

    gc.collect()
    ending = run.progress().ending
    assert isinstance(ending, Stopped)
    assert (ending.reason, ending.adapter) == ("its reader ended", "adapter")
    assert run.has_adapter


def test_the_last_loss_is_reported_where_the_last_adapter_is_kept(tiny, monkeypatch):
    rising = itertools.count(1.0)
    monkeypatch.setattr("tunelab.train.loop.heldout_loss", lambda trainer, rows: (next(rising), 1))
    kept = finetune(config(tiny, keep_best=False)).progress()
    assert kept.heldout_loss == kept.ending.heldout_loss == kept.evaluations[-1].heldout_loss
    assert kept.heldout_loss > kept.evaluations[0].heldout_loss
