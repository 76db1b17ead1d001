"""A loss that is recorded and replayed gives what the same loss computed anew gives. Recording itself needs a GPU
(`test_on_a_gpu.py`): here the work is done again in its place.
"""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from tests.fast.test_architectures import adapted, close, tiny, trained
from tests.fast.test_backward import random
from tests.fast.test_fast import loss_and_gradients, rows
from tests.fast.test_techniques import TECHNIQUES, attached
from tunelab import FullFineTuning, LoRA, TrainConfig
from tunelab.data.batches import collate
from tunelab.fast import choose_loss, replay
from tunelab.fast.head import Head, ScoredHead
from tunelab.fast.layout import layout_of, rounded
from tunelab.fast.llama import FastLoss
from tunelab.losses import PlainLoss
from tunelab.run.events import StepDone
from tunelab.train.loop import StageData, Trainer

ALL = {"lora": LoRA(r=4)} | {name: one for name, one in TECHNIQUES.items() if one.kind != "full"}
# of the same sizes once they are rounded
BATCHES = [
    collate(rows(*lengths, common=9, seed=sum(lengths)), 2) for lengths in ((30, 21, 25), (28, 24, 27), (29, 20, 26))
]


@pytest.fixture
def recorded(monkeypatch):
    """How often something was recorded and replayed, on a device that is taken for a GPU."""
    counts = {"recorded": 0, "replayed": 0}

    def recorder_of(_device):
        def record(work):
            counts["recorded"] += 1
            work()

            def again():
                counts["replayed"] += 1
                with torch.enable_grad():
                    work()

            return again

        return record

    monkeypatch.setattr(replay, "recorder_of", recorder_of)
    for name, given in (("rounds", lambda _device: True), ("can_replay", lambda _model, _device: True)):
        monkeypatch.setattr(f"tunelab.fast.llama.{name}", given)
    return counts


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("kind", ALL)
def test_every_batch_gets_the_loss_and_gradients_of_the_plain_path(recorded, name, kind):
    model = attached(tiny(name), ALL[kind])
    loss = choose_loss(model, ALL[kind])
    for batch in BATCHES:
        plain, expected = loss_and_gradients(PlainLoss(model), model, batch)
        fast, got = loss_and_gradients(loss, model, batch)
        assert fast == pytest.approx(plain, rel=1e-5)
        assert all(close(ours, theirs, 1e-4) for ours, theirs in zip(got, expected, strict=True))
    assert recorded == {"recorded": 1, "replayed": 2}


def test_what_is_replayed_follows_the_weights_as_they_are_trained(recorded):
    model = adapted(tiny("llama"))
    loss = FastLoss(model)
    for batch in BATCHES:
        loss(batch)
        for parameter in trained(model):
            parameter.data.mul_(1.5)
    plain, expected = loss_and_gradients(PlainLoss(model), model, BATCHES[0])
    fast, got = loss_and_gradients(loss, model, BATCHES[0])
    assert recorded["recorded"] == 1
    assert fast == pytest.approx(plain, rel=1e-5)
    assert all(close(ours, theirs, 1e-4) for ours, theirs in zip(got, expected, strict=True))


def test_two_batches_can_be_computed_before_gradients_are_asked_for_in_any_order(recorded):
    model = adapted(tiny("llama"))
    loss = FastLoss(model)
    alone = [loss_and_gradients(PlainLoss(model), model, batch)[1] for batch in BATCHES[:2]]
    for batch in BATCHES:
        loss(batch)
    model.zero_grad()
    first, second = (loss(batch) for batch in BATCHES[:2])
    second.backward(retain_graph=True)
    second.backward()
    first.backward()
    got = [p.grad for p in trained(model)]
    assert recorded["replayed"] == 4
    assert all(close(ours, a + 2 * b, 1e-4) for ours, a, b in zip(got, *alone, strict=True))


def test_a_weight_that_moved_or_is_trained_no_more_is_recorded_anew(recorded):
    model = adapted(tiny("llama"))
    loss = FastLoss(model)
    for batch in BATCHES:
        loss(batch)
    moved, fixed = trained(model)[:2]
    moved.data = moved.data * 3
    fixed.requires_grad_(False)
    for batch in BATCHES:
        plain, expected = loss_and_gradients(PlainLoss(model), model, batch)
        fast, got = loss_and_gradients(loss, model, batch)
        assert fast == pytest.approx(plain, rel=1e-5)
        assert all(close(ours, theirs, 1e-4) for ours, theirs in zip(got, expected, strict=True))
    assert recorded["recorded"] == 2


def test_nothing_is_replayed_without_gradients_or_with_the_adapter_off(recorded):
    technique = LoRA(r=4)
    model = attached(tiny("llama"), technique)
    loss = choose_loss(model, technique)
    for batch in BATCHES:
        loss(batch)
    before = dict(recorded)
    with torch.no_grad():
        tuned = float(loss(BATCHES[0]))
    with technique.off(model):
        assert float(loss(BATCHES[0])) != pytest.approx(tuned, rel=1e-3)
    assert recorded == before


def test_nothing_is_recorded_while_a_loss_of_before_is_held(recorded):
    model = adapted(tiny("llama"))
    loss = FastLoss(model)
    held = loss(BATCHES[0])
    for _turn in range(2):
        loss(BATCHES[1])
    held.backward()
    loss(BATCHES[1])
    assert recorded["recorded"] == 0
    del held
    loss(BATCHES[1])
    assert recorded["recorded"] == 1


def test_the_batches_of_a_step_are_replayed_one_after_the_other(recorded):
    config = TrainConfig(steps=3, batch_size=2, gradient_accumulation_steps=3, learning_rate=1e-2, length_buckets=False)
    data = rows(*range(22, 34), common=9, scored_from=20)

    def losses(way):
        model = adapted(tiny("llama"))
        trainer = Trainer(model, way(model), StageData(data, []), config, 1e-2, pad_id=2)
        return [event.loss for event in trainer.train() if isinstance(event, StepDone)]

    assert losses(FastLoss) == pytest.approx(losses(PlainLoss), rel=1e-4)
    assert recorded["recorded"] > 1
    assert recorded["replayed"] == 3 * 2 * 3 // 2 - 1


def test_a_loss_goes_with_whoever_holds_it(recorded, monkeypatch):
    # as a GPU's recorder, which keeps addresses and not what asked for the work
    monkeypatch.setattr(replay, "recorder_of", lambda _device: lambda work: (work(), lambda: None)[1])
    model = adapted(tiny("llama"))
    loss = FastLoss(model)
    for batch in BATCHES:
        loss(batch)
    gone = [weakref.ref(loss), weakref.ref(model)]
    gc.disable()
    try:
        del loss, model
        assert [one() for one in gone] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_step_is_the_same_to_the_last_bit_recorded_or_not(recorded, monkeypatch, dtype):
    def gradients():
        model = adapted(tiny("llama", dtype, spread=0.08))
        loss = FastLoss(model)
        for batch in BATCHES:
            model.zero_grad()
            (loss(batch) / 37).backward()
        return [p.grad for p in trained(model)]

    replayed = gradients()
    assert recorded["replayed"] == 2
    monkeypatch.setattr("tunelab.machine.hardware.affords", lambda count, device: False)
    assert all(torch.equal(*pair) for pair in zip(replayed, gradients(), strict=True))
    assert recorded["replayed"] == 2


def test_sizes_of_which_memory_is_short_are_not_recorded(recorded, monkeypatch):
    monkeypatch.setattr("tunelab.machine.hardware.affords", lambda count, device: False)
    loss = FastLoss(adapted(tiny("llama")))
    for batch in BATCHES:
        loss(batch)
    assert recorded["recorded"] == 0


def test_recordings_that_were_not_used_lately_go(recorded, monkeypatch):
    monkeypatch.setattr(replay, "MOST", 2)
    loss = FastLoss(adapted(tiny("llama")))
    for length in (40, 20, 60, 60, 100, 20):
        loss(collate(rows(length, length - 3), 2))
    assert recorded["recorded"] == 4
    assert len(loss.replays.made) == 2


def test_in_fp16_gradients_are_computed_at_the_scale_they_were_asked_for_before(recorded):
    model = adapted(tiny("llama", torch.float16, spread=0.08))
    loss, small = FastLoss(model), 2.0**-20
    exact = FastLoss(adapted(tiny("llama", spread=0.08)))
    _, expected = loss_and_gradients(exact, exact.model, BATCHES[0])
    for scale in (1.0, small, 512.0, 512.0, 512.0):
        model.zero_grad()
        (loss(BATCHES[0]) * scale).backward()
        got = [p.grad.float() / scale for p in trained(model)]
    assert float(loss.replays.shared.scale) == 512
    assert all(close(ours, theirs, 0.05) for ours, theirs in zip(got, expected, strict=True))


def test_only_a_gpu_replays_and_only_what_is_small_beside_the_base():
    model = attached(tiny("llama"), LoRA(r=1))
    assert not replay.can_replay(model, torch.device("cpu"))
    assert replay.can_replay(model, torch.device("cuda"))
    assert not replay.can_replay(tiny("llama"), torch.device("cuda"))
    assert not replay.can_replay(attached(tiny("llama"), FullFineTuning()), torch.device("cuda"))


def test_what_recordings_hold_is_told_where_something_is_recorded():
    loss = FastLoss(adapted(tiny("llama"), r=1))
    share = sum(p.nbytes for p in trained(loss.model))
    assert loss.replayed_bytes(torch.device("cpu")) == 0
    assert loss.replayed_bytes(torch.device("cuda")) == share + replay.WORKSPACES
    loss = choose_loss(attached(tiny("llama"), FullFineTuning()), FullFineTuning())
    assert loss.replayed_bytes(torch.device("cuda")) == 0


def test_batches_have_few_sizes_and_little_padding():
    sizes = {rounded(count) for count in range(1, 4097)}
    assert len(sizes) < 60
    assert all(0 <= rounded(count) - count <= max(15, count / 8) for count in range(1, 4097))
    kinds = {layout_of(batch, rounds=True) for batch in BATCHES}
    assert len(kinds) == 1
    (layout,) = kinds
    assert (layout.prefix, layout.length) == (8, 32)


@pytest.mark.parametrize("count", [0, 5, 20])
def test_a_row_that_does_not_count_gives_nothing_and_is_given_nothing(count):
    x, matrix = random(20, 16).requires_grad_(), random(64, 16, seed=1)
    targets, head = torch.arange(20), Head(matrix)
    alone = ScoredHead.apply(x, head, targets[:count], matrix)
    (expected,) = torch.autograd.grad(alone, x)
    counted = (torch.arange(20) < count).float()
    together = ScoredHead.apply(x, head, targets, matrix, counted)
    (got,) = torch.autograd.grad(together, x)
    assert float(together.detach()) == pytest.approx(float(alone.detach()), rel=1e-6)
    assert torch.allclose(got, expected, atol=1e-7)


def test_a_batch_on_another_device_knows_the_one_it_came_from():
    batch = BATCHES[0].to(torch.device("meta"))
    assert batch.here is BATCHES[0]
    assert (batch.tokens, batch.scored_tokens) == (BATCHES[0].tokens, BATCHES[0].scored_tokens)
    assert batch.to(torch.device("meta")).here is BATCHES[0]
    assert BATCHES[0].to(torch.device("cpu")).origin is None
