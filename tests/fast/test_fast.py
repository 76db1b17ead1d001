"""The fast path computes what the plain one computes, whatever the rows of a batch have in common."""

from __future__ import annotations

import pytest
import torch

from tests.helpers import ROWS
from tunelab import DataSpec, LoRA, ModelSpec, RunConfig, Stage, TrainConfig, finetune, load
from tunelab.data.batches import collate
from tunelab.data.encode import Encoded
from tunelab.fast import choose_loss
from tunelab.fast.attention import rotate_, signed
from tunelab.fast.decode import FastDecoder
from tunelab.fast.layout import Layout, shared_prefix
from tunelab.fast.linear import Adapters, Joined
from tunelab.fast.llama import FastLlama, FastLoss
from tunelab.fast.norm import norm
from tunelab.fast.weights import Packed, can_pack
from tunelab.losses import PlainLoss


def rows(*lengths, common=0, scored_from=None, seed=0):
    """Random rows that begin with the same `common` tokens; scored from `scored_from` on (default: after them)."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(3, 300, (common,), generator=generator).tolist()
    made = []
    for length in lengths:
        rest = torch.randint(3, 300, (length - common,), generator=generator).tolist()
        start = common + 2 if scored_from is None else scored_from
        made.append(Encoded(first + rest, [i >= start for i in range(length)]))
    return made


def adapted(tiny, **settings):
    """A model with an adapter that is not zero, in fp32."""
    base = load(ModelSpec(repo_id=tiny, dtype="float32"))
    model = LoRA(**settings).attach(base)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.05)
    return model


def loss_and_gradients(loss, model, batch):
    model.zero_grad()
    value = loss(batch.to(model.device))
    value.backward()
    return value.item(), [p.grad.clone() for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize(
    "batch",
    [
        rows(20, 31, 25, common=12),  # a prefix worth sharing
        rows(20, 31, 25, common=11),  # one that three rows can't share evenly
        rows(20, 31, 25, common=3),  # one that is not
        rows(20, 31, 25),  # none
        rows(20, 20, common=20, scored_from=5),  # equal rows: the prefix ends where learning begins
        rows(40, common=30),  # a row alone
        rows(9, 60, common=8, scored_from=8),  # much padding, scored right after what is shared
    ],
    ids=["shared", "uneven", "short", "none", "equal", "alone", "padded"],
)
@pytest.mark.parametrize("settings", [{"r": 4}, {"r": 8, "target_modules": ("q_proj", "up_proj")}], ids=["all", "some"])
def test_loss_and_gradients_are_those_of_the_plain_path(tiny, batch, settings):
    model = adapted(tiny, **settings)
    collated = collate(batch, pad_id=2)
    plain, expected = loss_and_gradients(PlainLoss(model), model, collated)
    fast, got = loss_and_gradients(FastLoss(model), model, collated)
    assert fast == pytest.approx(plain, rel=1e-5)
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-7


def test_what_is_shared_holds_nothing_that_predicts_a_learned_token():
    assert shared_prefix(collate(rows(20, 31, common=12), 2)) == 12
    assert shared_prefix(collate(rows(20, 31, common=12, scored_from=12), 2)) == 11
    assert shared_prefix(collate(rows(20, 31, common=7), 2)) == 0
    assert shared_prefix(collate(rows(20, common=12), 2)) == 0
    assert Layout(3, 2, 2).positions.tolist() == [0, 1, 3, 4, 2, 2, 3, 4]  # sharded, its padding at the end
    assert Layout(0, 2, 3).positions.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.slow
def test_bf16_gradients_are_as_near_to_the_truth_as_those_of_the_plain_path(starter):
    base = load(ModelSpec(repo_id=starter, dtype="bfloat16"))
    model = LoRA(r=4).attach(base)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.02)
    batch = collate(rows(30, 40, 35, common=12), 2)
    _, fast = loss_and_gradients(FastLoss(model), model, batch)
    _, plain = loss_and_gradients(PlainLoss(model), model, batch)
    _, truth = loss_and_gradients(PlainLoss(model.float()), model, batch)

    def error(gradients):
        return torch.cat([(g - t).flatten() for g, t in zip(gradients, truth, strict=True)]).norm()

    assert error(fast) < 1.3 * error(plain)


# whether it multiplies rightly is what the tests are for
has_packing = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
needs_packing = pytest.mark.skipif(not has_packing, reason="this PyTorch packs no weights")
needs_half = pytest.mark.skipif(not can_pack(torch.bfloat16), reason="this processor packs no weights in bf16")


@needs_half
def test_packed_products_are_those_of_the_weight():
    torch.manual_seed(0)
    weight, x = (torch.randn(shape).bfloat16() for shape in ((96, 64), (5, 64)))
    assert torch.allclose(Packed(weight).times(x).float(), x.float() @ weight.float().T, rtol=0.02, atol=0.1)


@needs_packing
@pytest.mark.parametrize(("gain", "packs"), [(1.0, False), (2.5, True)])
def test_fp32_is_packed_where_it_is_measured_to_be_worth_it(monkeypatch, gain, packs):
    monkeypatch.setattr("tunelab.fast.weights.measured", lambda *_: gain)
    assert can_pack.__wrapped__(torch.float32) == packs  # not what this process has measured and keeps


@needs_packing
@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize(("dtype", "rounding"), [pytest.param("bfloat16", 0.02, marks=needs_half), ("float32", 1e-5)])
def test_packed_weights_give_the_logits_of_plain_ones_within_rounding(tiny, monkeypatch, quantization, dtype, rounding):
    monkeypatch.setattr("tunelab.fast.llama.can_pack", lambda _dtype: True)
    base = load(ModelSpec(repo_id=tiny, dtype=dtype, quantization=quantization, device="cpu"))
    ids = torch.tensor([rows(20)[0].input_ids, rows(20, seed=1)[0].input_ids])
    llama = FastLlama(base.model, packed=True)
    assert llama.packed
    packed = FastDecoder(llama, [None, None], 40)(ids).float()
    plain = FastDecoder(FastLlama(base.model), [None, None], 40)(ids).float()
    assert (packed - plain).norm() < rounding * plain.norm()


def test_twenty_steps_learn_the_same(tiny):
    def losses(fast):
        config = RunConfig(
            model=ModelSpec(repo_id=tiny, dtype="float32"),
            technique=LoRA(r=4),
            stages=[
                Stage(data=DataSpec(rows=ROWS, heldout=4), training=TrainConfig(steps=20, batch_size=4, fast=fast))
            ],
        )
        progress = finetune(config).progress()
        assert progress.started.fast is fast
        return torch.tensor([e.loss for e in progress.steps])

    assert torch.allclose(losses(True), losses(False), rtol=1e-3)


def test_frozen_layers_are_computed_once_per_row_and_change_nothing(tiny):
    model = adapted(tiny, r=4, layers=(1,))
    plain, cached = FastLoss(model), FastLoss(model, cache_frozen=True)
    first, second = collate(rows(20, 31, 25, common=11), 2), collate(rows(20, 31, common=11), 2)
    lowest = []
    spied = cached.llama._through
    cached.llama._through = lambda x, layers, *rest, **more: (
        lowest.append(len(layers)) if layers else None,
        spied(x, layers, *rest, **more),
    )[1]
    for batch in (first, second, first):
        expected, gradients = loss_and_gradients(plain, model, batch)
        got, same = loss_and_gradients(cached, model, batch)
        assert got == pytest.approx(expected, rel=1e-5)
        for ours, theirs in zip(same, gradients, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert lowest == [1]  # the rows of the second and third batch are those of the first
    with torch.no_grad(), LoRA().off(model):
        assert float(cached(first)) == pytest.approx(float(plain(first)), rel=1e-5)
    assert FastLoss(adapted(tiny, r=4), cache_frozen=True).cache is None


def test_what_the_fast_path_does_not_know_is_left_to_the_plain_one(tiny):
    base = load(ModelSpec(repo_id=tiny, dtype="float32"))
    dropout = LoRA(r=4, lora_dropout=0.1)
    assert isinstance(choose_loss(dropout.attach(base), dropout), PlainLoss)
    assert isinstance(choose_loss(adapted(tiny), LoRA(), TrainConfig(fast=False)), PlainLoss)
    assert isinstance(choose_loss(adapted(tiny), LoRA()), FastLoss)


def test_switched_off_the_adapter_adds_exactly_nothing(tiny):
    model, batch = adapted(tiny), collate(rows(20, 31, common=12), 2)
    bare = load(ModelSpec(repo_id=tiny, dtype="float32")).model
    with torch.no_grad(), LoRA().off(model):
        off = FastLoss(model)(batch)
    assert float(off) == float(FastLoss(bare)(batch))


def test_factors_as_they_are_read_from_a_file_go_where_the_base_is(tiny):
    """A device without numbers stands for a GPU."""
    model = load(ModelSpec(repo_id=tiny, dtype="bfloat16", device="cpu")).model.to("meta")
    factors = {"model.layers.1.mlp.up_proj": (torch.randn(4, 64), torch.randn(128, 4), 2.0)}
    decoder = FastDecoder(FastLlama(model), [None, factors], 8)
    placed = [part for layer in decoder.layers for part in layer if part.a is not None]
    (factor,) = ((part.a, part.b, part.mask) for part in placed)
    assert {(tensor.device.type, tensor.dtype) for tensor in factor} == {("meta", torch.bfloat16)}
    assert decoder(torch.tensor([[3], [4]]), torch.tensor([0, 0])).device.type == "meta"


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "up_proj")], ids=["all", "some"])
def test_factors_of_stacked_layers_lie_where_the_layers_are(tiny, targets):
    model = adapted(tiny, r=4, target_modules=targets).to("meta")
    factors = [
        f for layer in FastLlama(model).layers for part in layer.linears if part.adapters for f in part.adapters.factors
    ]
    assert {factor.device.type for factor in factors} == {"meta"}


def test_stacked_factors_are_blocks_that_keep_their_gradients_apart():
    torch.manual_seed(0)
    factors = [torch.randn(shape, requires_grad=True) for shape in ((2, 8), (5, 2), (3, 8), (4, 3))]
    adapters = Adapters(factors, scale=0.5, dtype=torch.float32)
    x, weights = torch.randn(6, 8), torch.randn(6, 9)

    def by_stack():
        a, b = Joined.apply([adapters], *factors)
        return x @ a.T @ b.T

    def one_by_one():
        return torch.cat([0.5 * x @ a.T @ b.T for a, b in (factors[:2], factors[2:])], dim=1)

    assert torch.allclose(by_stack(), one_by_one(), atol=1e-5)
    got, expected = (torch.autograd.grad((made() * weights).sum(), factors) for made in (by_stack, one_by_one))
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    factors[1].data.zero_()
    assert not by_stack()[:, :5].any()


def test_norm_and_rotation_are_those_of_transformers():
    from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

    torch.manual_seed(0)
    module = LlamaRMSNorm(64, eps=1e-5)
    module.weight.data.uniform_(0.5, 1.5)
    x = torch.randn(3, 64)
    assert torch.allclose(norm(x, module.weight.data, 1e-5)[0], module(x), atol=1e-6)
    q, angle = torch.randn(1, 2, 5, 64), torch.randn(1, 5, 64)
    turned, _ = apply_rotary_pos_emb(q, q, angle.cos(), angle.sin())
    assert torch.allclose(rotate_(q, angle.cos(), signed(angle.sin())), turned, atol=1e-6)
