"""Each backward that is written by hand gives what autograd gives of the plain formula, computed in fp64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from tunelab.fast import fused
from tunelab.fast.attention import attend, attend_backward, attention, attention_backward, rotate_, signed
from tunelab.fast.blocks import Around, AttentionBlock, AttentionPart, MLPBlock, MLPPart
from tunelab.fast.fused import Sight
from tunelab.fast.gate import ACTIVATIONS, SILU, gated, gated_backward
from tunelab.fast.head import HEAD_CHUNK, Finish, Head, Norm, ScoredHead
from tunelab.fast.layout import Heads, Layout, Mask
from tunelab.fast.linear import Gradients, Stack, row_lengths
from tunelab.fast.norm import RMS, HeadNorms

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


PLAIN_ACTIVATIONS = {
    "silu": lambda x: x * torch.sigmoid(x),
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "gelu by tanh": lambda x: x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
}
activations = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda one: one.name)


def plain_gated(gate_up, activation=SILU):
    gate, up = gate_up.chunk(2, dim=-1)
    return PLAIN_ACTIVATIONS[activation.name](gate) * up


def plain_around(x, f, around):
    """x + multiplier · norm_out(f(norm_in(x)))."""
    normed = x if around.norm_in is None else plain_norm(x, around.norm_in.weight)
    y = f(normed)
    return x + around.multiplier * (y if around.norm_out is None else plain_norm(y, around.norm_out.weight))


def plain_linear(x, weight, a, b, bias=None):
    y = x @ weight.to(x.dtype).T
    y = y if bias is None else y + bias.to(x.dtype)
    return y if a is None else y + x @ a.to(x.dtype).T @ b.to(x.dtype).T


def plain_rotation(x, angle):
    """Each pair (x_i, x_{i + D/2}) as a complex number, times exp(i · angle)."""
    first, second = x.chunk(2, dim=-1)
    angle = angle.to(x.dtype)
    turned = torch.complex(first, second) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((turned.real, turned.imag), dim=-1)


def plain_attention(qkv, layout=SHARDED, heads=HEADS, window=None, beside=None):
    """Every text by itself, with what is beside and the whole prefix before its own tokens; the key of a group repeated
    for its queries. Flat rows as `layout` has them, those of padding zero."""
    shards, own = layout.parts(qkv)
    prefix, out = shards.flatten(0, 1)[: layout.prefix], []
    for text in own:
        sequence = torch.cat((prefix, text))
        q, k, v = (part.transpose(0, 1) for part in heads.split(sequence))
        if beside is not None:
            k, v = (torch.cat((more, part), dim=1) for more, part in zip(beside, (k, v), strict=True))
        k, v = (part.repeat_interleave(heads.per_group, 0) for part in (k, v))
        scores = q @ k.transpose(1, 2) * (heads.scaling or heads.size**-0.5)
        scores = scores if heads.cap is None else heads.cap * torch.tanh(scores / heads.cap)
        more = k.shape[1] - len(sequence)
        causal = torch.ones(len(sequence), k.shape[1], dtype=torch.bool).tril(more)
        causal = causal if window is None else causal.triu(1 - window + more)
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
        for adds_one in (False, True):
            parameter = (weight - int(adds_one)).requires_grad_()
            y = Norm.apply(leaf, parameter, RMS(parameter, EPSILON, adds_one))
            expected, (dx, d_weight) = by_autograd(plain_norm, dy, x, weight)
            assert close(y.detach(), expected)
            assert all(map(close, torch.autograd.grad(y, (leaf, parameter), dy), (dx, d_weight)))


@activations
def test_a_gated_unit_gives_the_gradient_of_its_formula(activation):
    gate_up, dy = 3 * random(5, 64), random(5, 32, seed=1)
    y, (expected,) = by_autograd(lambda x: plain_gated(x, activation), dy, gate_up)
    assert close(gated(gate_up, activation), y)
    assert close(gated_backward(dy, gate_up, activation.of(gate_up[:, :32], None), activation), expected)


@pytest.mark.parametrize("whole", [False, True], ids=["each head", "all at once"])
def test_norms_of_queries_and_keys_give_the_gradients_of_their_formula(whole):
    norms = head_norms(whole)
    qkv, dy = (random(5, (HEADS.queries + 2 * HEADS.keys) * HEADS.size, seed=seed) for seed in (0, 1))
    weights = [rms.parameter.requires_grad_() for rms in (norms.queries, norms.keys)]
    y, (expected, *of_weights) = by_autograd(lambda qkv, *w: plain_head_norms(qkv, norms, w), dy, qkv, *weights)
    assert close(norms(qkv, HEADS), y)
    assert all(map(close, norms.backward_(dy, qkv, HEADS), of_weights))
    assert close(dy, expected)


def head_norms(whole):
    """HeadNorms with random weights, one near zero: what is divided by it would be lost."""
    sizes = (HEADS.queries * HEADS.size, HEADS.keys * HEADS.size) if whole else (HEADS.size, HEADS.size)
    weights = [1 + 0.3 * random(size, seed=seed) for seed, size in zip((20, 21), sizes, strict=True)]
    weights[0][1] = 1e-9
    return HeadNorms(*(RMS(weight, EPSILON) for weight in weights), whole=whole)


def plain_head_norms(qkv, norms, weights=None, heads=HEADS):
    q, k, v = heads.split(qkv)
    flat = [part.flatten(1) if norms.whole else part for part in (q, k)]
    weights = weights or (norms.queries.weight, norms.keys.weight)
    normed = [plain_norm(x, weight).reshape(len(x), -1) for x, weight in zip(flat, weights, strict=True)]
    return torch.cat((*normed, v.flatten(1)), dim=1)


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
    assert close(layers.forward(buffer, residual=dy, alpha=0.5), 0.5 * y + dy)
    biased = replace(layers, bias=random(24, seed=7))
    assert close(biased.forward(buffer), y + biased.bias)
    assert close(biased.forward(buffer, residual=dy, alpha=0.5), 0.5 * (y + biased.bias) + dy)
    for needed in (True, False):
        gradients = Gradients()
        ours = layers.backward(dy, x, layers.low_rank(buffer), gradients, needs_dx=needed)
        assert close(ours, dx) if needed else ours is None
        assert all(map(close, gradients.of(layers.trained), of_adapters))
    assert len(layers.trained) == len(of_adapters)


def lengths_of(weight, a, b):
    return (weight if a is None else weight + b @ a).norm(dim=1)


ADDED = {
    "factors": lambda x, w, a, b, c, f: f * (plain_linear(x, w, a, b) + c),
    "lengths": lambda x, w, a, b, c, f: f / lengths_of(w, a, b).detach() * plain_linear(x, w, a, b) + c,
    "input factors": lambda x, w, a, b, c, f: plain_linear(x * f[: x.shape[1]], w, a, b) + c,
    "weights": lambda x, w, a, b, c, f: plain_linear(x, w, a, b) + c + 0 * f.sum(),
}


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("kind", ADDED)
def test_what_is_added_to_a_stack_or_trained_of_it_has_its_gradients(kind, rank):
    if kind == "lengths" and not rank:
        pytest.skip("lengths are of rows with a low-rank change")
    layers, weight, a, b = stack(16, 24, rank)
    x, dy, bias, factors = random(5, 16, seed=8), random(5, 24, seed=9), random(24, seed=7), 1 + random(24, seed=6)
    low_rank = [a, b] if rank else [torch.zeros(0, 16), torch.zeros(24, 0)]
    y, expected = by_autograd(ADDED[kind], dy, x, weight, *low_rank, bias, factors[: 16 if "input" in kind else 24])
    squares = weight.square().sum(1)
    changes = {
        "factors": {"factors": factors},
        "lengths": {"factors": factors, "lengths": lambda w: row_lengths(w, squares, a, b), "bias_behind": True},
        "input factors": {"input_factors": factors[:16]},
        "weights": {"weights": [(slice(0, 10), weight[:10]), (slice(10, 24), weight[10:])]},
    }
    layers = replace(layers, bias=bias, biases=[(slice(0, 24), bias)], **changes[kind])
    buffer, place = layers.input_buffer(x)
    place.copy_(x)
    unscaled = layers.scale_input_(place)
    made, gradients = layers.product(buffer), Gradients()
    assert close(layers.finished(made), y)
    du = layers.finished_backward(dy, made, gradients)
    dx = layers.backward(du, place, layers.low_rank(buffer), gradients)
    dx = layers.input_backward(dx, unscaled, gradients)
    d_x, d_weight, d_a, d_b, d_bias, d_factors = expected
    own = [d_weight[:10], d_weight[10:]] if kind == "weights" else [d_factors]
    order = [*[d_a, d_b] * bool(rank), *own, d_bias]
    assert all(map(close, [dx, *gradients.of(layers.trained)], [d_x, *order]))
    assert len(layers.trained) == len(order)


def test_lengths_of_rows_are_those_of_the_whole_matrix():
    weight, a, b = random(24, 16), random(6, 16, seed=1), random(24, 6, seed=2)
    b[:10, 4:] = b[10:, :4] = 0  # two layers, each with rows and columns of its own
    found = row_lengths(torch.cat((weight, b), 1), weight.square().sum(1), a, b)
    assert close(found, lengths_of(weight.double(), a.double(), b.double()))
    gone = row_lengths(torch.cat((-b @ a, b), 1), (b @ a).square().sum(1), a, b)
    assert gone.isfinite().all()  # rounding may make a square less than nothing


# attention


@pytest.mark.parametrize("cap", [None, 1.5])
def test_attention_gives_the_gradients_through_its_softmax(cap):
    q, k, v, do = (random(2, 4, 8, seed=seed) for seed in range(4))
    hides = torch.full((4, 4), float("-inf")).triu_(1)

    def plain(q, k, v):
        scores = q @ k.transpose(1, 2) * 0.4
        scores = scores if cap is None else cap * torch.tanh(scores / cap)
        return ((scores + hides.double()).softmax(-1)) @ v

    o, expected = by_autograd(plain, do, q, k, v)
    ours, weights = attend(q, k, v, Mask(hides, None), 0.4, cap)
    assert close(ours, o)
    for got, theirs in zip(attend_backward(do, q, k, v, weights, 0.4, cap), expected, strict=True):
        assert close(got, theirs)


@pytest.mark.parametrize("layout", [SHARDED, Layout(6, 3, 4), Layout(0, 3, 5), Layout(0, 1, 9)], ids=str)
@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "again"])
@pytest.mark.parametrize("window", [None, 1, 4, 8])
@pytest.mark.parametrize("more", [0, 3])
def test_attention_over_a_sharded_prefix_is_that_of_every_text_by_itself(layout, keeps, window, more, monkeypatch):
    monkeypatch.setattr(Layout, "keeps_weights", lambda self, heads: keeps)
    heads = replace(HEADS, scaling=0.3, cap=2.0) if window == 4 else HEADS
    layout, beside = replace(layout, beside=more), random(2, heads.keys, more, heads.size, seed=3)
    qkv = random(layout.tokens, (heads.queries + 2 * heads.keys) * heads.size)
    dy = without_padding(random(layout.tokens, heads.queries * heads.size, seed=1), layout)
    y, expected = by_autograd(lambda qkv, b: plain_attention(qkv, layout, heads, window, b), dy, qkv, beside)
    mask, out = layout.mask(heads.per_group, qkv, window), torch.empty_like(dy)
    kept = attention(qkv, heads, layout, mask, out=out, beside=beside)
    assert close(without_padding(out, layout), y)
    assert len(kept) == (4 if keeps else 1)
    for given in (kept, (qkv, *kept[3:])):
        assert all(map(close, attention_backward(dy, given, heads, layout, mask, beside), expected))


@pytest.mark.parametrize("layout", [SHARDED, Layout(6, 3, 4), Layout(0, 3, 5), Layout(0, 1, 9)], ids=str)
@pytest.mark.parametrize("window", [None, 1, 4, 8])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_attention_as_a_gpu_has_it_is_that_of_every_text_by_itself(layout, window, cap, monkeypatch):
    monkeypatch.setattr(fused, "CAPPED_NUMBERS", 600)  # a few queries at a time
    heads = replace(HEADS, scaling=0.3, cap=cap)
    qkv = random(layout.tokens, (heads.queries + 2 * heads.keys) * heads.size)
    dy = without_padding(random(layout.tokens, heads.queries * heads.size, seed=1), layout)
    y, (expected,) = by_autograd(lambda qkv: plain_attention(qkv, layout, heads, window), dy, qkv)
    out = torch.empty_like(dy)
    kept = attention(qkv, heads, layout, Sight(window), out=out)
    assert [one.data_ptr() for one in kept] == [qkv.data_ptr()]  # and no weights
    assert close(without_padding(out, layout), y)
    found, of_beside = attention_backward(dy, kept, heads, layout, Sight(window))
    assert close(found, expected)
    assert of_beside is None


@pytest.mark.parametrize("tokens", [1, 7, 64])
@pytest.mark.parametrize("window", [None, 5])
def test_blocks_of_queries_have_all_the_keys_that_they_see_and_few_more(tokens, window):
    sight, seen = Sight(window), torch.zeros(tokens, tokens, dtype=torch.bool)
    for queries, keys in sight.blocks(tokens, 4):
        assert keys.stop == queries.stop
        assert window is None or keys.stop - keys.start < window + 4
        seen[queries, keys] = sight.of(queries, keys, torch.device("cpu"))
    back = torch.arange(tokens)[:, None] - torch.arange(tokens)[None]
    assert torch.equal(seen, (back >= 0) & (back < (window or tokens)))


# the sublayers


RANKS = pytest.mark.parametrize("ranks", [(4, 2), (4, 0), (0, 2), (0, 0)], ids=str)
NORM_IN, NORM_OUT = (RMS(1 + 0.3 * random(16, seed=seed), EPSILON) for seed in (10, 13))
AROUND = pytest.mark.parametrize(
    "around",
    [Around(NORM_IN), Around(None, NORM_OUT), Around(NORM_IN, NORM_OUT, 0.3), Around(NORM_IN, multiplier=0.3)],
    ids=["before", "behind", "both", "before, less"],
)
TRAINED_BELOW = pytest.mark.parametrize("below", [True, False], ids=["trained below", "lowest"])


def check_block(block, part, plain, x, dy, *stacks, below, bias=()):
    """A sublayer against its plain formula: value where dy asks for it, gradients of x, if there is something to train
    `below`, and of both stacks' A and B. `stacks`: W, A and B of each; `bias`: of the first."""
    matrices = [m for _, *pair in stacks for m in pair if m is not None]

    def formula(x, *adapters):
        rest = iter(adapters)
        first, *others = [[weight, *(m if m is None else next(rest) for m in pair)] for weight, *pair in stacks]
        return plain(x, [*first, *bias], *others)

    expected, gradients = by_autograd(formula, dy, x, *matrices)
    given = [matrix.clone().requires_grad_() for matrix in part.trained]
    leaf = x.clone().requires_grad_(below)
    y = block.apply(leaf, part, *given)
    asked = dy.any(1)
    assert close(y.detach()[asked], expected[asked])
    leaves = [leaf] * below + given
    assert y.requires_grad is bool(leaves)
    ours = torch.autograd.grad(y, leaves, dy) if leaves else ()
    for got, theirs in zip(ours, gradients[not below :], strict=True):
        assert close(got, theirs, 1e-5)


@RANKS
@TRAINED_BELOW
@AROUND
def test_the_mlp_sublayer_gives_the_gradients_of_its_formula(ranks, below, around):
    gate_up, *first = stack(16, 48, ranks[0])
    down, *second = stack(24, 16, ranks[1], seed=5)
    activation = SILU if around.norm_out is None else ACTIVATIONS[1]

    def plain(x, first, second):
        def inside(x):
            return plain_linear(plain_gated(plain_linear(x, *first), activation), *second)

        return plain_around(x, inside, around)

    x, dy = random(5, 16, seed=11), random(5, 16, seed=12)
    check_block(MLPBlock, MLPPart(around, gate_up, down, activation), plain, x, dy, first, second, below=below)


@RANKS
@TRAINED_BELOW
@AROUND
def test_the_attention_sublayer_gives_the_gradients_of_its_formula(ranks, below, around):
    check_attention_block(ranks, below, around, "plain")


@pytest.mark.parametrize("kind", ["bias", "normed heads", "normed whole", "half turned", "not turned"])
@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "again"])
def test_what_stands_between_projections_and_attention_has_its_gradients(kind, keeps, monkeypatch):
    monkeypatch.setattr(Layout, "keeps_weights", lambda self, heads: keeps)
    check_attention_block((4, 2), True, Around(NORM_IN, NORM_OUT, 0.3), kind)


def check_attention_block(ranks, below, around, kind):
    layout, heads, n = SHARDED, HEADS, HEADS.queries + HEADS.keys
    qkv, *first = stack(16, (heads.queries + 2 * heads.keys) * heads.size, ranks[0])
    out, *second = stack(heads.queries * heads.size, 16, ranks[1], seed=5)
    if kind == "bias":
        qkv, first = replace(qkv, bias=random(len(first[0]), seed=14)), [*first, random(len(first[0]), seed=14)]
    norms = head_norms(kind == "normed whole") if "normed" in kind else None
    width = 4 if kind == "half turned" else heads.size
    angle = layout.positions[:, None, None] * torch.tensor([1.0, 0.5, 0.2, 0.1])[: width // 2]  # (N, 1, D / 2)

    def plain(x, first, second):
        def inside(x):
            made = plain_linear(x, *first)
            made = made if norms is None else plain_head_norms(made, norms)
            parts = made.unflatten(1, (-1, heads.size))
            if kind != "not turned":
                turned = torch.cat((plain_rotation(parts[:, :n, :width], angle), parts[:, :n, width:]), dim=2)
                parts = torch.cat((turned, parts[:, n:]), dim=1)
            return plain_linear(plain_attention(parts.flatten(1), layout), *second)

        return plain_around(x, inside, around)

    both = torch.cat((angle, angle), dim=-1)
    rotation = None if kind == "not turned" else (both.cos(), signed(both.sin()))
    x, dy = random(layout.tokens, 16, seed=11), without_padding(random(layout.tokens, 16, seed=12))
    mask = layout.mask(heads.per_group, x)
    part = AttentionPart(around, qkv, out, heads, layout, rotation, mask, norms)
    check_block(AttentionBlock, part, plain, x, dy, first[:3], second, below=below, bias=first[3:])


# the head


@pytest.mark.parametrize("count", [5, HEAD_CHUNK, 2 * HEAD_CHUNK + 40])
@pytest.mark.parametrize("finish", [None, Finish(4.0), Finish(cap=3.0), Finish(2.0, 3.0)], ids=str)
def test_the_head_gives_cross_entropy_and_its_gradient_in_whole_and_part_chunks(count, finish):
    matrix, x = random(50, 16, seed=1), random(count + 7, 16)
    targets = torch.randint(50, (count,), generator=torch.Generator().manual_seed(2))
    leaf, trained = x.clone().requires_grad_(), matrix.requires_grad_()
    loss = ScoredHead.apply(leaf, Head(matrix, finish), targets, trained)
    ours, of_matrix = torch.autograd.grad(loss, (leaf, trained), torch.tensor(0.25))

    def plain(x, matrix):
        logits = x[:count] @ matrix.T
        if finish is not None:
            logits = logits / finish.divisor
            logits = logits if finish.cap is None else finish.cap * torch.tanh(logits / finish.cap)
        return functional.cross_entropy(logits, targets, reduction="sum")

    expected, (theirs, their_matrix) = by_autograd(plain, torch.tensor(0.25), x, matrix.detach())
    assert loss.item() == pytest.approx(float(expected), rel=1e-6)
    assert close(ours, theirs)
    assert close(of_matrix, their_matrix)
    assert not ours[count:].any()  # rows without a target
