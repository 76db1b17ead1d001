"""What each way of regularising adds to a step, against its formula; and rows that are replayed."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tests.techniques.test_invariants import batch_of, config, rows_of, spec_of, trained
from tunelab import DataSpec, LoRA, ModelSpec, PrefixTuning, TrainConfig, explain, finetune, load, losses
from tunelab.chain import _within
from tunelab.data.encode import Encoded
from tunelab.fast.llama import FastLoss
from tunelab.losses import Objective, PlainLoss, noise, scored_logits


@pytest.fixture
def model_and_batch(tiny):
    base = load(spec_of(tiny))
    rows = rows_of(base)
    return trained(LoRA(r=4), base, rows), batch_of(rows)


@pytest.mark.parametrize("kind", [PlainLoss, FastLoss])
def test_the_loss_plain_and_fast_give_the_same_logits_and_their_cross_entropy(model_and_batch, kind):
    model, batch = model_and_batch
    logits, targets = scored_logits(model, batch)
    loss = kind(model)
    hidden, same = loss.hidden(batch)
    assert torch.equal(same, targets)
    assert torch.allclose(loss.head(hidden), logits, atol=1e-4)
    assert torch.allclose(kind(model)(batch), functional.cross_entropy(logits, targets, reduction="sum"), rtol=1e-5)


@pytest.mark.parametrize("kind", [PlainLoss, FastLoss])
def test_label_smoothing_is_that_of_torch(model_and_batch, kind):
    model, batch = model_and_batch
    logits, targets = scored_logits(model, batch)
    minimised, nll = Objective(kind(model), TrainConfig(label_smoothing=0.2))(batch)
    expected = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.2)
    assert torch.allclose(minimised, expected, rtol=1e-5)
    assert torch.allclose(nll, functional.cross_entropy(logits, targets, reduction="sum"), rtol=1e-5)


@pytest.mark.parametrize("kind", [PlainLoss, FastLoss])
def test_the_pull_is_the_kl_divergence_to_the_base(model_and_batch, kind):
    model, batch = model_and_batch
    technique = LoRA(r=4)
    with technique.off(model):
        p = scored_logits(model, batch)[0].softmax(-1)
    q = scored_logits(model, batch)[0].softmax(-1)
    divergence = (p * (p.log() - q.log())).sum()
    minimised, nll = Objective(kind(model), TrainConfig(kl_weight=0.5), lambda: technique.off(model))(batch)
    assert divergence.item() > 1e-3
    assert torch.allclose(minimised - nll, 0.5 * divergence, rtol=1e-3)
    minimised.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("kind", [PlainLoss, FastLoss])
def test_cut_into_chunks_loss_and_gradients_stay_the_same(model_and_batch, kind, monkeypatch):
    model, batch = model_and_batch
    technique, training = LoRA(r=4), TrainConfig(label_smoothing=0.1, kl_weight=0.5)

    def measured(chunk):
        monkeypatch.setattr(losses, "CHUNK", chunk)
        model.zero_grad()
        loss = kind(model)
        minimised, nll = Objective(loss, training, lambda: technique.off(model))(batch)
        plain = loss(batch)
        (minimised + plain).backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
        return torch.stack((minimised, nll, plain)).detach(), losses.token_losses(loss, batch), gradients

    assert batch.scored_tokens > 14
    for whole, cut in zip(measured(1000), measured(7), strict=True):
        assert torch.allclose(whole, cut, rtol=1e-4, atol=1e-5)


def test_what_a_model_does_to_its_logits_is_not_left_out(model_and_batch):
    model, batch = model_and_batch
    inner = model.get_base_model()
    plain = inner.forward
    inner.forward = lambda *given, **named: (out := plain(*given, **named)).__class__(logits=out.logits.tanh())
    logits, targets = scored_logits(model, batch)
    assert logits.abs().max() <= 1
    expected = functional.cross_entropy(logits, targets, reduction="sum")
    assert torch.allclose(PlainLoss(model)(batch), expected, rtol=1e-5)


def test_the_pull_keeps_the_tuned_model_nearer_to_the_base(tiny):
    def drift(kl_weight):
        run = finetune(config(tiny, LoRA(r=4), steps=12, kl_weight=kl_weight, keep_best=False))
        base = load(run.base_spec)
        model = run.config.technique.load(base, run.adapter_path).eval()
        batch = batch_of(rows_of(base))
        with torch.no_grad():
            tuned = scored_logits(model, batch)[0].log_softmax(-1)
            with run.config.technique.off(model):
                before = scored_logits(model, batch)[0].log_softmax(-1)
        return float(functional.kl_div(tuned, before, reduction="batchmean", log_target=True))

    assert drift(5.0) < 0.7 * drift(0.0)


def test_noise_has_the_size_of_the_paper_and_no_row_depends_on_padding():
    torch.manual_seed(0)
    embeddings = torch.zeros(2, 50, 64)
    noisy = noise(5.0, torch.tensor([50, 10]))(None, None, embeddings)
    for row, length in ((0, 50), (1, 10)):
        bound = 5.0 / (length * 64) ** 0.5
        assert noisy[row].abs().max() <= bound
        assert noisy[row].abs().max() > 0.95 * bound


def test_noise_is_there_in_training_and_not_in_measuring(model_and_batch):
    model, batch = model_and_batch
    noisy, quiet = PlainLoss(model, neftune_alpha=10.0), PlainLoss(model)
    model.eval()
    assert torch.equal(noisy(batch), quiet(batch))
    model.train()
    assert not torch.equal(noisy(batch), quiet(batch))
    assert not torch.equal(noisy(batch), noisy(batch))


def test_the_reported_loss_is_the_plain_one_and_the_penalty_stands_beside_it(tiny):
    plain = finetune(config(tiny, LoRA(r=4), steps=1)).progress().steps[0]
    smoothed = finetune(config(tiny, LoRA(r=4), steps=1, label_smoothing=0.1)).progress().steps[0]
    assert plain.penalty == 0
    assert smoothed.loss == pytest.approx(plain.loss, rel=1e-5)
    assert smoothed.penalty > 0


def test_checkpointing_changes_memory_and_nothing_else(tiny):
    def losses(**training):
        return [e.loss for e in finetune(config(tiny, LoRA(r=4), fast=False, **training)).progress().steps]

    assert losses(gradient_checkpointing=True) == pytest.approx(losses(), rel=1e-5)


def test_prefix_tuning_refuses_checkpointing_and_says_why(tiny):
    with pytest.raises(ValueError, match="attention cache, which gradient checkpointing") as caught:
        config(tiny, PrefixTuning(), gradient_checkpointing=True)
    assert "Set gradient_checkpointing to false" in explain(caught.value)


def replaying(tiny, answers, share):
    """What a run says of replaying rows of these answers: how many, and which share of the rows and of the tokens."""
    general = [{"prompt": f"what is {n}", "completion": answer} for n, answer in enumerate(answers)]
    asked = config(tiny, LoRA(r=4), steps=1, replay_share=share)
    stage = asked.stages[0].model_copy(update={"replay": DataSpec(rows=general, heldout=1)})
    started = finetune(asked.model_copy(update={"stages": (stage,)})).progress().started
    assert started.train_rows == (12,)
    (note,) = (note for note in started.notes if "are replayed" in note)
    said = r"(\d+) rows of \d+ rows in memory are replayed among 12 training rows: (\d+)% of the rows, (\d+)% "
    return tuple(map(int, re.match(said, note).groups()))


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_replayed_rows_make_up_their_share_of_rows_and_no_more_than_it_of_the_tokens(tiny, share):
    rows, of_rows, of_tokens = replaying(tiny, ["yes"] * 5, share)
    assert rows == round(12 * share / (1 - share))
    assert of_tokens <= 100 * share
    longer = replaying(tiny, ["a longer answer than the rows have " * 2] * 5, share)
    assert 1 <= longer[0] < rows
    assert longer[1] < of_rows
    assert longer[2] <= 100 * share


def test_a_long_row_among_short_ones_keeps_no_other_from_being_replayed(tiny):
    short = replaying(tiny, ["yes"] * 6, 0.2)
    assert replaying(tiny, ["an answer that has no end " * 20, *["yes"] * 6], 0.2) == short


def test_where_no_row_fits_into_the_share_the_shortest_is_replayed_and_its_real_share_told(tiny):
    long, longest = ("a long answer " * times for times in (30, 40))
    rows, _of_rows, of_tokens = replaying(tiny, [longest, long, longest], 0.05)
    assert rows == 1
    assert 5 < of_tokens == replaying(tiny, [long], 0.05)[2] < replaying(tiny, [longest], 0.05)[2]


rows_of_tokens = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(rows_of_tokens, st.integers(1, 60), st.integers(1, 400))
def test_as_many_rows_are_replayed_as_fit(lengths, number, tokens):
    rows = [Encoded([0] * length, [True] * length) for length in lengths]
    chosen = _within(rows, number, tokens)
    taken = [sum(row.scored) for row in chosen]
    assert 1 <= len(chosen) <= number
    assert sum(taken) <= tokens or taken == [min(lengths)]
    # none is left that would still fit, and none is there twice more than another that fits as well
    assert len(chosen) == number or sum(taken) + min(lengths) > tokens
    if sum(taken) < tokens - max(lengths):
        counts = [sum(one is row for one in chosen) for row in rows]
        assert max(counts) - min(counts) <= 1


def test_rows_are_replayed_from_the_general_set_unless_said_otherwise(tiny):
    run = finetune(config(tiny, LoRA(r=4), steps=1, replay_share=0.1))
    assert any("of general are replayed" in note for note in run.progress().started.notes)


def test_eight_bit_moments_need_a_gpu(tiny):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    from tunelab import UserError

    with pytest.raises(UserError, match="adamw_8bit' needs a CUDA GPU"):
        finetune(config(tiny, LoRA(r=4), optimizer="adamw_8bit"))


def test_full_fine_tuning_in_bf16_learns_steps_smaller_than_a_bf16_step(tiny):
    """The fp32 copies: a weight of 1 in bf16 does not move by 1e-4, sixty-four such steps do."""
    from tunelab import FullFineTuning

    def run(dtype):
        asked = config(tiny, FullFineTuning(), steps=30, learning_rate=3e-4, keep_best=False)
        model = ModelSpec(repo_id=tiny, dtype=dtype)
        return finetune(asked.model_copy(update={"model": model})).progress().evaluations[-1].heldout_loss

    assert run("bfloat16") == pytest.approx(run("float32"), rel=0.02)


def test_before_the_first_step_the_pull_is_nothing_whatever_the_noise(tiny):
    base = load(spec_of(tiny))
    technique, training = LoRA(r=4), TrainConfig(kl_weight=1.0, neftune_alpha=10.0)
    model = technique.attach(base, rows_of(base)).train()
    objective = Objective(PlainLoss(model, neftune_alpha=10.0), training, lambda: technique.off(model))
    batch = batch_of(rows_of(base))
    teacher = objective._base_hidden(batch)
    assert torch.equal(teacher, objective._base_hidden(batch))
    assert model.training
    with torch.no_grad():
        model.eval()
        expected = scored_logits(model, batch)[0]
        assert torch.allclose(objective.loss.head(teacher), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_moments_of_either_kind_go_through_a_checkpoint_unchanged(kind, tmp_path):
    import bitsandbytes as bnb
    from safetensors.torch import load_file, save_file

    from tunelab.train.checkpoints import optimizer_tensors, restore_optimizer

    def start():
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(128, 128))
        kinds = {"adamw": torch.optim.AdamW, "adamw_8bit": bnb.optim.AdamW8bit}
        return weight, kinds[kind]([weight], lr=1e-2)

    def step(weight, optimizer, seed):
        torch.manual_seed(seed)
        weight.grad = torch.randn_like(weight)
        optimizer.step()

    weight, optimizer = start()
    step(weight, optimizer, 1)
    save_file(optimizer_tensors(optimizer), tmp_path / "state.safetensors")
    kept = weight.detach().clone()
    step(weight, optimizer, 2)
    other, again = start()
    step(other, again, 3)  # the state is there, and another one
    other.data.copy_(kept)
    restore_optimizer(again, load_file(tmp_path / "state.safetensors"))
    step(other, again, 2)
    assert torch.equal(other, weight)


def test_weight_decay_leaves_alone_what_it_would_switch_off(tiny):
    from tunelab.train.loop import make_optimizer

    base = load(spec_of(tiny))
    from tunelab import IA3
    from tunelab.train.checkpoints import trained_parameters

    parameters = trained_parameters(IA3().attach(base))
    decayed, others = make_optimizer(parameters, TrainConfig(weight_decay=0.1), 1e-2).param_groups
    assert decayed["params"] == []
    assert len(others["params"]) == len(parameters)
    with pytest.raises(ValueError, match="weight_decay would also pull at the start"):
        config(tiny, LoRA(r=4, initialisation="pissa"), weight_decay=0.1)
