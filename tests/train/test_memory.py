"""The forecast of memory: what it counts is what autograd keeps, and what follows from it."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch

from tests.fast.test_fast import adapted, rows
from tests.helpers import ROWS
from tests.techniques.test_invariants import TECHNIQUES, rows_of, spec_of, trained
from tunelab import (
    DataSpec,
    FullFineTuning,
    LoRA,
    ModelSpec,
    PrefixTuning,
    Run,
    RunConfig,
    Stage,
    TrainConfig,
    finetune,
    load,
    train_run,
)
from tunelab.data.batches import collate
from tunelab.fast.llama import FastLoss, layout_of
from tunelab.machine import hardware
from tunelab.model.load import empty_model, find, skeleton
from tunelab.run.events import StepDone
from tunelab.train import memory


def kept_by(forward, model):
    """Bytes that autograd still holds after `forward()`, each storage once, the model's own left out."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    held = {}

    def pack(tensor):
        token = object.__new__(Token)
        held[id(token)] = tensor.untyped_storage()
        weakref.finalize(token, held.pop, id(token))  # autograd let it go
        token.tensor = tensor
        return token

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda token: token.tensor):
        out = forward()
    kept = {storage.data_ptr(): storage.nbytes() for storage in held.values()}
    assert out is not None
    return sum(size for address, size in kept.items() if address not in own)


class Token:
    """Stands for a saved tensor."""


@pytest.mark.parametrize("name", TECHNIQUES)
def test_what_the_plain_forward_keeps_is_counted_without_computing_it(tiny, name):
    technique = TECHNIQUES[name]
    base = load(spec_of(tiny), attention="eager")  # as the outline has it
    batch = collate(rows_of(base)[:3], 2)
    model = trained(technique, base, rows_of(base)).train()
    ids, mask = batch.input_ids, torch.ones_like(batch.input_ids)
    measured = kept_by(lambda: model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1), model)
    with torch.device("meta"):
        outline = technique.outline(skeleton(spec_of(tiny))).train()
    counted, positions = memory._saved(outline, batch, checkpointing=False)
    assert positions == ids.numel()
    assert counted == pytest.approx(measured, rel=0.02)
    assert memory._saved(outline, batch, checkpointing=True)[0] < counted


def test_of_the_fused_attention_is_counted_what_it_keeps(tiny):
    base = load(spec_of(tiny), attention="sdpa")
    batch = collate(rows(150, 140, 130), 2)  # long enough for attention weights to be most of it
    model = LoRA(r=4).attach(base).train()
    mask = torch.arange(150)[None] < batch.lengths[:, None]
    given = {"attention_mask": mask.long(), "use_cache": False, "logits_to_keep": 1}
    measured = kept_by(lambda: model(input_ids=batch.input_ids, **given), model)

    def counted(attention):
        folder = find(spec_of(tiny))
        empty = replace(skeleton(spec_of(tiny)), model=empty_model(folder, torch.float32, memory._counted(attention)))
        with torch.device("meta"):
            return memory._saved(LoRA(r=4).outline(empty).train(), batch, checkpointing=False)[0]

    assert counted("sdpa") == pytest.approx(measured, rel=0.02)
    assert counted("eager") > 1.3 * measured


@pytest.mark.parametrize("lengths", [(24, 26, 25), (80, 95, 90)], ids=["short", "long"])
@pytest.mark.parametrize("settings", [{"r": 4}, {"r": 4, "layers": (1,)}], ids=["all", "upper"])
def test_what_the_fast_forward_keeps_is_what_its_formula_says(tiny, settings, lengths):
    model = adapted(tiny, **settings)
    loss = FastLoss(model)
    batch = collate(rows(*lengths, common=8), 2)
    short = max(lengths) < 50
    assert layout_of(batch).keeps_weights(loss.llama.heads) is short  # attention weights grow with the square
    copies = [t for a in loss.llama.adapters for t in (a.a, a.b)]
    measured = kept_by(lambda: loss.hidden(batch), torch.nn.ParameterList(copies))
    formula, positions = loss.kept_bytes(batch, torch.device("cpu"))
    assert positions == 3 * (3 + max(lengths) - 8)  # each of three rows has a third of the prefix
    # besides: the rotation's angles, kept once for all layers, and the last norm
    assert formula == pytest.approx(measured, rel=0.1)


def one_stage(tiny, technique=None, rows=ROWS, **training):
    return RunConfig(
        model=ModelSpec(repo_id=tiny, dtype="float32"),
        technique=technique or LoRA(r=4),
        stages=[Stage(data=DataSpec(rows=rows, heldout=4), training=TrainConfig(**({"steps": 2} | training)))],
    )


def test_larger_batches_and_more_trained_parameters_take_more(tiny):
    small = memory.read_and_forecast(one_stage(tiny, batch_size=2))
    wide = memory.read_and_forecast(one_stage(tiny, batch_size=8))
    full = memory.read_and_forecast(one_stage(tiny, FullFineTuning(), batch_size=2))
    assert small.kept < wide.kept
    assert small.trained < full.trained
    # AdamW's two moments, the weight and the best of it, all in fp32
    assert full.trained == 16 * sum(p.numel() for p in skeleton(spec_of(tiny)).model.parameters())
    assert full.gradients == full.trained // 4


def test_a_quantised_base_is_forecast_both_ways(tiny):
    def weights(keep):
        spec = ModelSpec(repo_id=tiny, dtype="float32", quantization="nf4", keep_dequantized=keep)
        return memory.read_and_forecast(one_stage(tiny).model_copy(update={"model": spec}))

    packed, unpacked = weights(False), weights(True)
    assert packed.weights < unpacked.weights
    assert (packed.otherwise, unpacked.otherwise) == (unpacked.weights, packed.weights)
    assert "packed they would be" in unpacked.note(10**12)


def test_the_run_says_what_it_forecast_and_what_it_took(tiny):
    progress = finetune(one_stage(tiny)).progress()
    started = progress.started
    assert 0 < started.libraries_bytes < started.forecast_bytes
    assert any(note.startswith("memory: about") for note in started.notes)


def test_checkpointing_comes_on_by_itself_only_when_memory_is_short(tiny, monkeypatch):
    assert finetune(one_stage(tiny)).progress().started.fast
    monkeypatch.setattr(hardware, "available_memory_bytes", lambda *_device: 0)
    short = finetune(one_stage(tiny)).progress()
    assert not short.started.fast
    assert any("gradient checkpointing" in note for note in short.started.notes)
    assert any("lower batch_size" in note for note in short.started.notes)
    assert finetune(one_stage(tiny, gradient_checkpointing=False)).progress().started.fast
    prefix = finetune(one_stage(tiny, PrefixTuning(num_virtual_tokens=4))).progress()
    assert not any("gradient checkpointing" in note for note in prefix.started.notes)


def test_a_resumed_run_computes_as_it_started_whatever_is_free_by_then(tiny, monkeypatch):
    def until_step(count, run, **more):
        for event in train_run(run, **more):
            if isinstance(event, StepDone) and event.step == count:
                run.request_stop()

    monkeypatch.setattr(hardware, "available_memory_bytes", lambda *_device: 0)
    run = Run.create(one_stage(tiny, steps=4))
    until_step(2, run)
    assert run.progress().started.gradient_checkpointing
    monkeypatch.undo()
    until_step(None, run)
    assert run.status == "finished"
    assert run.progress().started.gradient_checkpointing


def test_recomputing_is_forecast_to_take_less(tiny):
    long = [{"prompt": row["prompt"], "completion": row["completion"] * 20} for row in ROWS]
    kept = memory.read_and_forecast(one_stage(tiny, rows=long, gradient_checkpointing=False, fast=False))
    again = memory.read_and_forecast(one_stage(tiny, rows=long, gradient_checkpointing=True))
    assert again.checkpointing
    assert again.kept < kept.kept / 1.5
