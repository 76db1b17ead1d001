"""fp16: the loss is scaled, so that small gradients are not lost, and a step whose gradients overflow is made again."""

from __future__ import annotations

import pytest
import torch

from tests.fast.test_fast import rows
from tests.helpers import ROWS
from tunelab import (
    DataSpec,
    FullFineTuning,
    LoRA,
    ModelSpec,
    Run,
    RunConfig,
    Stage,
    TrainConfig,
    UserError,
    finetune,
    load,
    train_run,
)
from tunelab.data.batches import collate
from tunelab.fast import choose_loss
from tunelab.fast.head import Head, ScoredHead
from tunelab.losses import PlainLoss
from tunelab.run.events import StepDone
from tunelab.train.checkpoints import newest_checkpoint
from tunelab.train.loop import StageData, Trainer

SCORED = 128_000  # tokens of a step, most of them in other batches of it
SETTINGS = {"steps": 5, "batch_size": 2, "eval_every": 9, "checkpoint_every": 2, "eval_rows": 2}


def trainer_of(tiny, dtype, technique, loss=None, **settings):
    """A trainer of an adapter that is not at its start, and the rows it learns."""
    base = load(ModelSpec(repo_id=tiny, dtype=dtype))
    torch.manual_seed(0)
    model = technique.attach(base)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    config = TrainConfig(**{"steps": 3, "batch_size": 3} | settings)
    made = loss(model) if loss else choose_loss(model, technique, config)
    return Trainer(model, made, StageData(rows(20, 24, 22), []), config, 1e-3, pad_id=2)


def gradients(trainer):
    """Those of a step of SCORED tokens, unscaled, of which one batch is computed here."""
    trainer.backward([collate(trainer.data.train, 2)], SCORED)
    scale = trainer.scaler.get_scale()
    return torch.cat([weight.grad.float().flatten() / scale for weight in trainer.weights.values()])


def error(found, right):
    return float((found - right).norm() / right.norm())


@pytest.mark.parametrize("technique", [LoRA(r=4), FullFineTuning()], ids=["adapter in fp32", "weights in fp16"])
@pytest.mark.parametrize("loss", [None, PlainLoss], ids=["chosen", "plain"])
def test_gradients_in_fp16_are_those_of_fp32_however_many_tokens_a_step_has(tiny, technique, loss):
    right = gradients(trainer_of(tiny, "float32", technique, PlainLoss))
    trainer = trainer_of(tiny, "float16", technique, loss)
    assert error(gradients(trainer), right) < 0.01
    unscaled = trainer_of(tiny, "float16", technique, loss)
    unscaled.scaler = torch.amp.GradScaler("cpu", enabled=False)
    assert error(gradients(unscaled), right) > 0.03  # what it is there for


def test_what_a_nearly_certain_token_still_teaches_is_not_lost_in_fp16():
    generator = torch.Generator().manual_seed(0)
    x, head = torch.randn(3, 32, generator=generator), 0.1 * torch.randn(320, 32, generator=generator)
    targets = torch.tensor([5, 9, 200])
    head[targets] = 17 * x / x.square().sum(1, keepdim=True)  # logits of 17 among small ones: p = 1 - 1e-5, about
    x, head = x.half(), head.half()

    def gradient(dtype, scale):
        hidden = x.to(dtype, copy=True).requires_grad_()
        matrix = head.to(dtype)
        (ScoredHead.apply(hidden, Head(matrix), targets, matrix) * scale).backward()
        return hidden.grad.float() / scale

    right = gradient(torch.float64, 1.0)
    assert 0 < float(right.abs().max()) < 1e-4
    assert error(gradient(torch.float16, 2.0**16), right) < 0.002


def test_what_many_tokens_teach_a_trained_head_stays_within_fp16():
    generator = torch.Generator().manual_seed(0)
    x, head = 1 + torch.randn(4096, 32, generator=generator), 0.05 * torch.randn(64, 32, generator=generator)
    targets = torch.randint(8, (len(x),), generator=generator)  # few tokens are frequent: their parts add up
    x, head = x.half(), head.half()

    def gradient(dtype, scale):
        matrix = head.to(dtype, copy=True).requires_grad_()
        (ScoredHead.apply(x.to(dtype), Head(matrix), targets, matrix) * (scale / len(x))).backward()
        return matrix.grad.float() / scale

    assert error(gradient(torch.float16, 2.0**16), gradient(torch.float64, 1.0)) < 0.002


def test_loss_and_norm_are_told_unscaled(tiny):
    steps = {dtype: trainer_of(tiny, dtype, LoRA(r=4))._step() for dtype in ("float32", "float16")}
    assert steps["float16"].loss == pytest.approx(steps["float32"].loss, rel=1e-3)
    assert steps["float16"].gradient_norm == pytest.approx(steps["float32"].gradient_norm, rel=0.02)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_is_scaled_where_small_numbers_are_not_lost(tiny, dtype):
    trainer = trainer_of(tiny, dtype, LoRA(r=4))
    assert not trainer.scaler.is_enabled()
    trainer._step()
    assert trainer.scaler.get_scale() == 1


def test_a_step_that_overflows_is_made_again_at_half_the_scale_and_none_is_lost(tiny):
    usual, high = trainer_of(tiny, "float16", LoRA(r=4)), trainer_of(tiny, "float16", LoRA(r=4))
    high.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    updates = []
    # the optimiser is called each time, and told to move nothing where a gradient is infinite
    high.optimizer.register_step_pre_hook(lambda *_: updates.append(1))
    for _ in range(3):
        mine, its = usual._step(), high._step()
        assert (mine.step, mine.learning_rate) == (its.step, its.learning_rate)
        assert its.loss == pytest.approx(mine.loss, rel=1e-3)
    assert high.scaler.get_scale() < 2.0**30
    assert len(updates) > 3
    assert all(state["step"] == 3 for state in high.optimizer.state.values())
    for name, weight in usual.parameters.items():
        assert torch.allclose(weight, high.parameters[name], atol=2e-4), name


def test_gradients_that_no_scale_makes_finite_end_the_run_with_a_next_step(tiny, monkeypatch):
    trainer = trainer_of(tiny, "float16", LoRA(r=4))
    weight = next(iter(trainer.weights.values()))
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(UserError, match="bfloat16"):
        trainer._step()
    assert torch.isfinite(weight).all()


def test_a_resumed_run_goes_on_at_the_scale_it_had(tiny, tmp_path, monkeypatch):
    # the first step overflows, and after two good ones it grows
    real = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda d, enabled: real(d, 2.0**24, growth_interval=2, enabled=enabled)
    )
    config = RunConfig(
        model=ModelSpec(repo_id=tiny, dtype="float16"),
        technique=LoRA(r=4),
        stages=[Stage(data=DataSpec(rows=ROWS[:8], heldout=2), training=TrainConfig(**SETTINGS))],
    )
    alone = finetune(config, root=tmp_path / "a")
    run = Run.create(config, tmp_path / "b")
    for event in train_run(run):
        if isinstance(event, StepDone) and event.step == 3:
            run.request_stop()
    assert newest_checkpoint(run.checkpoints_path).optimizer["scaler.scale"] < 2.0**24
    assert list(train_run(run))
    assert [e.loss for e in run.progress().steps] == [e.loss for e in alone.progress().steps]
    kept = [newest_checkpoint(r.checkpoints_path).optimizer for r in (alone, run)]
    for name in ("scaler.scale", "scaler._growth_tracker"):
        assert kept[0][name] == kept[1][name]


def test_a_process_without_a_batch_of_its_own_takes_part_in_the_step(tiny):
    trainer = trainer_of(tiny, "float16", LoRA(r=4))
    trainer.backward([], SCORED)
    for parameter in trainer.parameters.values():
        parameter.grad = torch.zeros_like(parameter)  # where the others' gradients are added up
    assert trainer.update() == 0
