"""Each backward that is written by hand gives what autograd gives of the plain formula, computed in fp64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tunelab.fast.attention import attend, attend_backward, attention, attention_backward, rotate_, signed
from tunelab.fast.blocks import AttentionBlock, AttentionPart, MLPBlock, MLPPart, swiglu, swiglu_backward
from tunelab.fast.head import HEAD_CHUNK, Head, Norm, ScoredHead
from tunelab.fast.layout import Heads, Layout, Mask
from tunelab.fast.linear import Stack

EPSILON = 1e-5
SHARDED = Layout(prefix=7, rows=3, length=5)  # shards of 3 tokens, the last with 2 of padding
HEADS = Heads(queries=6, keys=2, size=8)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(ours, theirs, error=2e-6):
    """Within fp32's rounding of the fp64 numbers."""
    return ours.shape == theirs.shape and float((ours.double() - theirs).norm()) <= error * float(theirs.norm()) + 1e-12


def by_autograd(formula, dy, *inputs):
    """What `formula` gives of the inputs in fp64, and their gradients by autograd, from dy."""
    leaves = [x.double().requires_grad_() for x in inputs]
    y = formula(*leaves)
    return y.detach(), torch.autograd.grad(y, leaves, dy.double())


# the plain formulas


def plain_norm(x, weight):
    return x * (x.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * weight.to(x.dtype)


def plain_swiglu(gate_up):
    gate, up = gate_up.chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up


def plain_linear(x, weight, a, b):
    y = x @ weight.to(x.dtype).T
    return y if a is None else y + x @ a.to(x.dtype).T @ b.to(x.dtype).T


def plain_rotation(x, angle):
    """Each pair (x_i, x_{i + D/2}) as a complex number, times exp(i · angle)."""
    first, second = x.chunk(2, dim=-1)
    angle = angle.to(x.dtype)
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((turned.real, turned.imag), dim=-1)


def plain_attention(qkv, layout=SHARDED, heads=HEADS):
    """Every text by itself, with the whole prefix before its own tokens; the key of a group repeated for its queries.
    Flat rows as `layout` has them, those of padding zero."""
    shards, own = layout.parts(qkv)
    prefix, out = shards.flatten(0, 1)[: layout.prefix], []
    for text in own:
        sequence = torch.cat((prefix, text))
        q, k, v = (part.transpose(0, 1) for part in heads.split(sequence))
        k, v = (part.repeat_interleave(heads.per_group, 0) for part in (k, v))
        scores = q @ k.transpose(1, 2) / heads.size**0.5
        causal = torch.ones(len(sequence), len(sequence), dtype=torch.bool).tril()
        out.append((scores.masked_fill(~causal, float("-inf")).softmax(-1) @ v).transpose(0, 1).flatten(1))
    of_prefix = functional.pad(out[0][: layout.prefix], (0, 0, 0, layout.sharded - layout.prefix))
    of_prefix = of_prefix.unflatten(0, (layout.rows, layout.shard))
    return torch.cat((of_prefix, torch.stack([y[layout.prefix :] for y in out])), dim=1).flatten(0, 1)


def without_padding(dy, layout=SHARDED):
    """dy (N, …) with the rows of the prefix' padding zero: nothing is asked of them."""
    dy = dy.clone()
    shards, _ = layout.parts(dy)
    for position in range(layout.prefix, layout.sharded):
        shards[position // layout.shard, position % layout.shard] = 0
    return dy


# the elementwise parts


def test_norm_gives_the_gradient_of_its_formula():
    weight, dy = random(64, seed=1), random(5, 64, seed=2)
    for x in (random(5, 64), 1e-3 * random(5, 64)):  # the second so small that epsilon counts
        leaf = x.clone().requires_grad_()
        y = Norm.apply(leaf, weight, EPSILON)
        expected, (dx,) = by_autograd(lambda x: plain_norm(x, weight), dy, x)
        assert close(y.detach(), expected)
        assert close(torch.autograd.grad(y, leaf, dy)[0], dx)


def test_swiglu_gives_the_gradient_of_its_formula():
    gate_up, dy = 3 * random(5, 64), random(5, 32, seed=1)
    y, (expected,) = by_autograd(plain_swiglu, dy, gate_up)
    assert close(swiglu(gate_up), y)
    assert close(swiglu_backward(dy, gate_up, functional.silu(gate_up[:, :32])), expected)


def test_the_gradient_of_a_rotation_is_the_rotation_back():
    x, angle, dy = random(5, 3, 8), 10 * random(5, 1, 4, seed=1), random(5, 3, 8, seed=2)
    y, (expected,) = by_autograd(lambda x: plain_rotation(x, angle), dy, x)
    angle = torch.cat((angle, angle), dim=-1)
    cos, sin = angle.cos(), signed(angle.sin())
    assert close(rotate_(x.clone(), cos, sin), y)
    assert close(rotate_(dy.clone(), cos, -sin), expected)


# linear layers with adapters


def stack(inputs, outputs, rank, seed=0):
    """A stack with random weights, and its W, A and B."""
    weight = random(outputs, inputs, seed=seed) / inputs**0.5
    if not rank:
        return Stack(lambda: weight, inputs), weight, None, None
    a, b = random(rank, inputs, seed=seed + 1) / inputs**0.5, random(outputs, rank, seed=seed + 2)
    return Stack(lambda: torch.cat((weight, b), dim=1), inputs, a, b), weight, a, b


@pytest.mark.parametrize("rank", [0, 4])
def test_a_stack_gives_the_gradients_of_x_and_of_its_adapters(rank):
    layers, weight, a, b = stack(16, 24, rank)
    x, dy = random(5, 16, seed=8), random(5, 24, seed=9)
    buffer, place = layers.input_buffer(x)
    place.copy_(x)
    adapters = [a, b] if rank else []
    y, (dx, *of_adapters) = by_autograd(lambda x, a=None, b=None: plain_linear(x, weight, a, b), dy, x, *adapters)
    assert close(layers.forward(buffer), y)
    assert close(layers.forward(buffer, residual=dy), y + dy)
    ours, *of_ours = layers.backward(dy, x, layers.low_rank(buffer))
    assert close(ours, dx)
    none, *again = layers.backward(dy, x, layers.low_rank(buffer), needs_dx=False)
    assert none is None
    for kind in (of_ours, again):
        assert all(close(got, expected) for got, expected in zip(kind, of_adapters or (), strict=bool(rank)))
    assert rank or of_ours == again == [None, None]


# attention


def test_attention_gives_the_gradients_through_its_softmax():
    q, k, v, do = (random(2, 4, 8, seed=seed) for seed in range(4))
    hides = torch.full((4, 4), float("-inf")).triu_(1)

    def plain(q, k, v):
        return ((q @ k.transpose(1, 2) / 8**0.5 + hides.double()).softmax(-1)) @ v

    o, expected = by_autograd(plain, do, q, k, v)
    ours, weights = attend(q, k, v, Mask(hides, None))
    assert close(ours, o)
    for got, theirs in zip(attend_backward(do, q, k, v, weights), expected, strict=True):
        assert close(got, theirs)


@pytest.mark.parametrize("layout", [SHARDED, Layout(6, 3, 4), Layout(0, 3, 5), Layout(0, 1, 9)], ids=str)
@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "again"])
def test_attention_over_a_sharded_prefix_is_that_of_every_text_by_itself(layout, keeps, monkeypatch):
    monkeypatch.setattr(Layout, "keeps_weights", lambda self, heads: keeps)
    qkv = random(layout.tokens, (HEADS.queries + 2 * HEADS.keys) * HEADS.size)
    dy = without_padding(random(layout.tokens, HEADS.queries * HEADS.size, seed=1), layout)
    y, (expected,) = by_autograd(lambda qkv: plain_attention(qkv, layout), dy, qkv)
    mask, out = layout.mask(HEADS.per_group, qkv), torch.empty_like(dy)
    kept = attention(qkv, HEADS, layout, mask, out=out)
    assert close(without_padding(out, layout), y)
    assert len(kept) == (4 if keeps else 1)
    assert close(attention_backward(dy, kept, HEADS, layout, mask), expected)


# the sublayers


RANKS = pytest.mark.parametrize("ranks", [(4, 2), (4, 0), (0, 2), (0, 0)], ids=str)
TRAINED_BELOW = pytest.mark.parametrize("below", [True, False], ids=["trained below", "lowest"])


def check_block(block, part, plain, x, dy, *stacks, below):
    """A sublayer against its plain formula: value where dy asks for it, gradients of x, if there is something to train
    `below`, and of both stacks' A and B. `stacks`: W, A and B of each."""
    matrices = [m for _, *pair in stacks for m in pair if m is not None]

    def formula(x, *adapters):
        rest = iter(adapters)
        return plain(x, *([weight, *(m if m is None else next(rest) for m in pair)] for weight, *pair in stacks))

    expected, gradients = by_autograd(formula, dy, x, *matrices)
    given = [m if m is None else m.clone().requires_grad_() for m in part.matrices]
    leaf = x.clone().requires_grad_(below)
    y = block.apply(leaf, part, *given)
    asked = dy.any(1)
    assert close(y.detach()[asked], expected[asked])
    leaves = [leaf] * below + [m for m in given if m is not None]
    assert y.requires_grad is bool(leaves)
    ours = torch.autograd.grad(y, leaves, dy) if leaves else ()
    for got, theirs in zip(ours, gradients[not below :], strict=True):
        assert close(got, theirs, 1e-5)


@RANKS
@TRAINED_BELOW
def test_the_mlp_sublayer_gives_the_gradients_of_its_formula(ranks, below):
    gate_up, *first = stack(16, 48, ranks[0])
    down, *second = stack(24, 16, ranks[1], seed=5)
    weight = 1 + 0.3 * random(16, seed=10)

    def plain(x, first, second):
        return x + plain_linear(plain_swiglu(plain_linear(plain_norm(x, weight), *first)), *second)

    x, dy = random(5, 16, seed=11), random(5, 16, seed=12)
    check_block(MLPBlock, MLPPart(weight, EPSILON, gate_up, down), plain, x, dy, first, second, below=below)


@RANKS
@TRAINED_BELOW
def test_the_attention_sublayer_gives_the_gradients_of_its_formula(ranks, below):
    layout, heads, n = SHARDED, HEADS, HEADS.queries + HEADS.keys
    qkv, *first = stack(16, (heads.queries + 2 * heads.keys) * heads.size, ranks[0])
    out, *second = stack(heads.queries * heads.size, 16, ranks[1], seed=5)
    weight = 1 + 0.3 * random(16, seed=10)
    angle = layout.positions[:, None, None] * torch.tensor([1.0, 0.5, 0.2, 0.1])  # (N, 1, D / 2)

    def plain(x, first, second):
        parts = plain_linear(plain_norm(x, weight), *first).unflatten(1, (-1, heads.size))
        turned = torch.cat((plain_rotation(parts[:, :n], angle), parts[:, n:]), dim=1)
        return x + plain_linear(plain_attention(turned.flatten(1), layout), *second)

    both = torch.cat((angle, angle), dim=-1)
    rotation = (both.cos(), signed(both.sin()))
    x, dy = random(layout.tokens, 16, seed=11), without_padding(random(layout.tokens, 16, seed=12))
    mask = layout.mask(heads.per_group, x)
    part = AttentionPart(weight, EPSILON, qkv, out, heads, layout, rotation, mask)
    check_block(AttentionBlock, part, plain, x, dy, first, second, below=below)


# the head


@pytest.mark.parametrize("count", [5, HEAD_CHUNK, 2 * HEAD_CHUNK + 40])
def test_the_head_gives_cross_entropy_and_its_gradient_in_whole_and_part_chunks(count):
    matrix, x = random(50, 16, seed=1), random(count + 7, 16)
    targets = torch.randint(50, (count,), generator=torch.Generator().manual_seed(2))
    leaf = x.clone().requires_grad_()
    loss = ScoredHead.apply(leaf, Head(matrix), targets)
    (ours,) = torch.autograd.grad(loss, leaf, torch.tensor(0.25))

    def plain(x):
        return functional.cross_entropy(x[:count] @ matrix.double().T, targets, reduction="sum")

    expected, (theirs,) = by_autograd(plain, torch.tensor(0.25), x)
    assert loss.item() == pytest.approx(float(expected), rel=1e-6)
    assert close(ours, theirs)
    assert not ours[count:].any()  # rows without a target
