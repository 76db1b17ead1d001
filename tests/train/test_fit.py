"""What 'auto' comes to where a card's memory is short, told by fakes of it; and the optimisers of bitsandbytes."""

from __future__ import annotations

from dataclasses import replace

import bitsandbytes
import pytest
import torch

from tests.helpers import ROWS
from tests.machine.test_devices import machine  # noqa: F401
from tunelab import (
    DataSpec,
    FullFineTuning,
    LoRA,
    ModelSpec,
    PrefixTuning,
    RunConfig,
    Stage,
    TrainConfig,
    UserError,
    finetune,
)
from tunelab.data.encode import encode_all
from tunelab.data.split import read_data
from tunelab.model.load import skeleton
from tunelab.train import memory
from tunelab.train.checkpoints import optimizer_tensors, restore_optimizer
from tunelab.train.fit import fitted
from tunelab.train.optimizer import make_optimizer

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def config_of(tiny, technique=None, **training):
    long = [row | {"completion": row["completion"] * 6} for row in ROWS]
    # the fast path keeps little enough of so small a model that recomputing it on the plain one saves nothing
    settings = {"steps": 2, "eval_rows": 1, "fast": False} | training
    stage = Stage(data=DataSpec(rows=long, heldout=4), training=TrainConfig(**settings))
    model = ModelSpec(repo_id=tiny, dtype="bfloat16")
    return RunConfig(model=model, technique=technique or FullFineTuning(), stages=[stage])


def forecasts_on(device, config):
    """A function that forecasts a configuration on a device."""
    base = replace(skeleton(config.model), device=device)
    split = read_data(config.stages[0].data)
    rows = tuple(encode_all(part, base.tokenizer, 512)[0] for part in (split.train, split.heldout))
    return lambda asked: memory.forecast(asked, base, [rows])


@pytest.fixture
def paged_from_one(monkeypatch):
    """Moments of however small weights are paged."""
    monkeypatch.setattr("tunelab.train.optimizer.PAGED_NUMBERS", 1)


@pytest.mark.usefixtures("machine", "paged_from_one")
def test_the_first_way_that_fits_is_taken_and_told(tiny):
    config = config_of(tiny)
    forecast_of = forecasts_on(CUDA, config)

    def settled(free):
        made = fitted(config, CUDA, free, forecast_of)
        training = made.config.stages[0].training
        return (training.gradient_checkpointing, training.optimizer), made

    totals = {
        (checkpointing, optimizer): forecast_of(
            config_of(tiny, gradient_checkpointing=checkpointing, optimizer=optimizer)
        ).total
        for checkpointing in (False, True)
        for optimizer in ("adamw", "paged_adamw_32bit")
    }
    plain, recomputed = totals[False, "adamw"], totals[True, "adamw"]
    paged, both = totals[False, "paged_adamw_32bit"], totals[True, "paged_adamw_32bit"]
    assert both < min(recomputed, paged) <= max(recomputed, paged) < plain
    assert settled(plain)[0] == ("auto", "auto")
    assert not settled(plain)[1].notes
    assert settled(recomputed)[0] == (True, "auto")
    if paged < recomputed:
        assert settled(paged)[0] == ("auto", "paged_adamw_32bit")
    assert settled(both)[0] == settled(1)[0] == (True, "paged_adamw_32bit")
    (note,) = settled(both)[1].notes
    assert "gradient_checkpointing" in note
    assert "optimizer = paged_adamw_32bit" in note
    assert "moves to the machine's memory" in note


@pytest.mark.usefixtures("machine", "paged_from_one")
def test_what_somebody_chose_stays_and_a_cpu_pages_nothing(tiny):
    chosen = config_of(tiny, optimizer="adamw", gradient_checkpointing=False)
    assert fitted(chosen, CUDA, 1, forecasts_on(CUDA, chosen)).config == chosen
    prefix = config_of(tiny, PrefixTuning(num_virtual_tokens=64))  # whose activations can't be recomputed
    assert fitted(prefix, CPU, 1, forecasts_on(CPU, prefix)).config == prefix
    assert (
        fitted(prefix, CUDA, 1, forecasts_on(CUDA, prefix)).config.stages[0].training.optimizer == "paged_adamw_32bit"
    )
    small = config_of(tiny, LoRA(r=1, target_modules=("q_proj",)))  # whose moments are not worth moving
    training = fitted(small, CUDA, 1, forecasts_on(CUDA, small)).config.stages[0].training
    assert (training.gradient_checkpointing, training.optimizer) == (True, "auto")


@pytest.mark.usefixtures("machine", "paged_from_one")
def test_a_resumed_run_goes_on_in_the_way_it_began_or_says_why_it_can_not(tiny):
    config = config_of(tiny)
    started = finetune(config_of(tiny, LoRA(r=4), steps=1)).progress().started
    assert started.optimizer == "auto"
    before = started.model_copy(update={"optimizer": "paged_adamw_32bit", "gradient_checkpointing": False})
    made = fitted(config, CUDA, 10**12, forecasts_on(CUDA, config), before)
    assert made.config.stages[0].training.optimizer == "paged_adamw_32bit"
    assert made.config.stages[0].training.gradient_checkpointing == "auto"
    with pytest.raises(UserError, match="Resume it where it began"):
        fitted(config, CPU, 10**12, forecasts_on(CPU, config), before)


@pytest.mark.usefixtures("machine", "paged_from_one")
def test_paged_moments_are_no_part_of_what_a_card_has_to_hold_and_are_told(tiny):
    def ahead(optimizer):
        config = config_of(tiny, optimizer=optimizer)
        return forecasts_on(CUDA, config)(config)

    plain, paged, small = (ahead(name) for name in ("adamw", "paged_adamw_32bit", "paged_adamw_8bit"))
    weights = plain.weights // 2
    assert paged.paged == 8 * weights
    assert small.paged == 2 * weights
    assert plain.trained - paged.trained == 8 * weights
    assert paged.trained == small.trained
    assert paged.checkpoint == plain.checkpoint  # on the disk they are all there
    assert "paged moments" in paged.note(10**12)
    assert "paged" not in plain.note(10**12)


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"])
def test_an_optimiser_of_a_gpu_is_refused_without_one_before_anything_is_loaded(tiny, optimizer, monkeypatch):
    monkeypatch.setattr("tunelab.model.load.load", None)
    config = config_of(tiny, LoRA(r=4), optimizer=optimizer)
    config = config.model_copy(update={"model": config.model.model_copy(update={"device": "cpu"})})
    with pytest.raises(UserError, match=f"optimizer = '{optimizer}' needs a CUDA GPU; this run computes on cpu"):
        finetune(config)


def step(weight, optimizer, seed):
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    optimizer.step()


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", ["paged_adamw_32bit", "paged_adamw_8bit"])
def test_paged_moments_are_put_into_pages_again_from_a_checkpoint(name, monkeypatch):
    monkeypatch.setattr("tunelab.train.optimizer.check_optimizer", lambda name, device: None)
    made, buffers = bitsandbytes.optim.optimizer.Optimizer8bit.get_state_buffer, []

    def in_pages(self, parameter, dtype=torch.float32):
        buffers.append(made(self, parameter, dtype))
        return buffers[-1]

    monkeypatch.setattr(bitsandbytes.optim.optimizer.Optimizer8bit, "get_state_buffer", in_pages)

    def start():
        weight = torch.nn.Parameter(torch.ones(128, 128))
        return weight, make_optimizer({"a": weight}, TrainConfig(optimizer=name), 1e-2)

    weight, optimizer = start()
    step(weight, optimizer, 1)
    kept, tensors = weight.detach().clone(), {k: v.clone() for k, v in optimizer_tensors(optimizer).items()}
    step(weight, optimizer, 2)
    other, again = start()
    other.data.copy_(kept)
    restore_optimizer(again, tensors)
    assert all(again.state[other][part] is page for part, page in zip(("state1", "state2"), buffers[2:], strict=True))
    step(other, again, 2)
    assert torch.equal(other, weight)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_paged_adamw_moves_weights_as_adamw_does(monkeypatch):
    monkeypatch.setattr("tunelab.train.optimizer.check_optimizer", lambda name, device: None)
    weights = []
    for name in ("auto", "adamw", "paged_adamw_32bit"):
        weight = torch.nn.Parameter(torch.ones(64, 64))
        optimizer = make_optimizer({"a": weight}, TrainConfig(optimizer=name, weight_decay=0.1), 1e-2)
        for seed in range(5):
            step(weight, optimizer, seed)
        weights.append(weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert torch.allclose(weights[2], weights[1], atol=1e-6)
