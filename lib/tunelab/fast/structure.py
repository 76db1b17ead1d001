"""A decoder as the fast path computes it: its layers by what they do, and which linear layers stand side by side.

`reading.py` reads it from the modules of a model and touches nothing. `Linears.join` lays frozen weights side by side
for good, the model's own become views of them, and `Linears.separate` is the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from tunelab.fast.blocks import Around
from tunelab.fast.changes import Change, Unsupported, change_of
from tunelab.fast.gate import Activation
from tunelab.fast.head import Finish
from tunelab.fast.layout import Heads
from tunelab.fast.linear import Adapters, Stack, row_lengths
from tunelab.fast.norm import RMS, HeadNorms
from tunelab.model import quantization
from tunelab.techniques.modules import Bottleneck


@dataclass
class Linears:
    """Linear layers that read the same input, computed as one product."""

    names: list[str]  # in the base model, e.g. "model.layers.0.self_attn.q_proj"
    changes: list[Change]  # of each
    dtype: torch.dtype  # in which they are computed
    inputs: int = field(init=False)
    widths: list[int] = field(init=False)
    adapters: Adapters | None = field(init=False)
    behind: Bottleneck | None = field(init=False)
    _matrix: Tensor | None = field(default=None, init=False)  # None: they are not joined
    _squares: Tensor | None = field(default=None, init=False)  # (O,), of the rows of W

    def __post_init__(self) -> None:
        self.inputs, self.widths = self.bases[0].in_features, [base.out_features for base in self.bases]
        self.adapters, self.behind = self._adapters(), self.changes[0].behind

    @property
    def bases(self) -> list[Any]:
        """The layers themselves: nn.Linear, or bitsandbytes'."""
        return [change.base for change in self.changes]

    @property
    def rank(self) -> int:
        """R, of all adapters."""
        return sum(0 if change.a is None else len(change.a) for change in self.changes)

    @property
    def scaled(self) -> bool:
        """Whether what they give is multiplied by factors."""
        return any(change.factors is not None or change.lengths is not None for change in self.changes)

    @property
    def trained_inside(self) -> list[Tensor]:
        """Every parameter of theirs, or of what is added to them, that is trained; without what stands behind them."""
        every = [p for base in self.bases for p in base.parameters()]
        for one in self.changes:
            every += [p for p in (one.a, one.b, one.lengths, one.factors, one.input_factors) if p is not None]
        return [parameter for parameter in every if parameter.requires_grad]

    @property
    def trained(self) -> list[Tensor]:
        """Every parameter of theirs, or of what is added to them, that is trained."""
        behind = [] if self.behind is None else self.behind.adapter.parameters()
        return [*self.trained_inside, *(parameter for parameter in behind if parameter.requires_grad)]

    @property
    def changed(self) -> bool:
        """Whether something is added to them, or they are trained: what they give is not the same at every step."""
        return bool(self.trained) or any(change.is_on is not None for change in self.changes)

    @property
    def bias(self) -> Tensor | None:
        """(O,)"""
        return _bias(self.bases, self.dtype)

    def join(self) -> None:
        """Lay the weights W one below the other for good, not for each use, with room for the adapters' B beside them.
        They are held once: those of the model become views of it. Quantised ones stay as they are, and are unpacked for
        each use, and so do those that are trained."""
        if all(type(base) is nn.Linear and not base.weight.requires_grad for base in self.bases):
            self._matrix = _joined_in_place(self.bases, self.rank, self.dtype)
            self.adapters = self._adapters(beside=self._matrix[:, self.inputs :].zero_())

    def separate(self) -> None:
        """Give the model's layers weights of their own again, unless they were joined anew meanwhile."""
        if self._matrix is None:
            return
        for base in self.bases:
            weight = base.weight.data
            if weight.untyped_storage().data_ptr() == self._matrix.untyped_storage().data_ptr():
                base.weight.data = weight.clone(memory_format=torch.contiguous_format)
        self._matrix, self.adapters = None, self._adapters()

    def _adapters(self, beside: Tensor | None = None) -> Adapters | None:
        if not self.rank:
            return None
        factors, scale = _low_rank(self.changes)
        return Adapters(factors, scale, self.dtype, b=beside)

    def joined(self) -> Tensor:
        """W and B: (O, C + R)."""
        return _joined_for_once(self.bases, self.adapters, self.dtype) if self._matrix is None else self._matrix

    def matrix(self) -> Tensor:
        """W (O, C) alone."""
        return self.joined()[:, : self.inputs]

    def stack(self, matrices: Mapping[Adapters | None, tuple[Tensor, Tensor]] | None) -> Stack:
        """The layers as they compute in this step, with the adapters' A and B; None: with all that is added to them
        switched off."""
        places = self._places()
        own: dict[str, Any] = {
            "weights": [(rows, base.weight) for rows, base in places if base.weight.requires_grad],
            "biases": [(r, base.bias) for r, base in places if base.bias is not None and base.bias.requires_grad],
        }
        if matrices is None:
            return Stack(self.joined, self.inputs, bias=self.bias, **own)
        a, b = matrices.get(self.adapters, (None, None))
        measured = any(change.lengths is not None for change in self.changes)
        return Stack(
            self.joined, self.inputs, a, b, self.bias, self._factors(), self._lengths if measured else None,
            bias_behind=measured, input_factors=self._input_factors(), **own,
        )  # fmt: skip

    def _places(self) -> list[tuple[slice, Any]]:
        """Each layer, and which rows of W are its."""
        ends = list(accumulate(self.widths))
        return [(slice(end - base.out_features, end), base) for end, base in zip(ends, self.bases, strict=True)]

    def _factors(self) -> Tensor | None:
        """The factors or lengths of all rows (O,), with their graph; one where a layer has none."""
        if not self.scaled:
            return None
        every = [change.factors if change.lengths is None else change.lengths for change in self.changes]
        like = next(one for one in every if one is not None)
        parts = [
            like.new_ones(width) if one is None else one.flatten()
            for one, width in zip(every, self.widths, strict=True)
        ]
        return torch.cat(parts).float()

    def _input_factors(self) -> Tensor | None:
        learned = self.changes[0].input_factors
        return None if learned is None else learned.flatten().float()

    def _lengths(self, joined: Tensor) -> Tensor:
        """Those of the rows of W + B A (O,), with the A and B that `joined` holds; one where a layer learns none."""
        assert self.adapters is not None
        if self._squares is None:
            self._squares = torch.linalg.vector_norm(joined[:, : self.inputs], dim=1, dtype=torch.float32).square_()
        found = row_lengths(joined, self._squares, self.adapters.a, self.adapters.b)
        for (rows, _base), change in zip(self._places(), self.changes, strict=True):
            if change.lengths is None:
                found[rows] = 1
        return found


@dataclass
class Layer:
    """One decoder layer's parts, by what they do."""

    around: Around  # of attention
    qkv: Linears
    out: Linears
    around_mlp: Around
    gate_up: Linears
    down: Linears
    activation: Activation
    head_norms: HeadNorms | None
    window: int | None  # tokens that a query sees, itself the last; None: all before it
    rope: str | None  # which of the model's rotations; None: none

    @property
    def linears(self) -> tuple[Linears, ...]:
        return (self.qkv, self.out, self.gate_up, self.down)

    @property
    def norms(self) -> list[Tensor]:
        """What is trained of all norms."""
        of_heads = () if self.head_norms is None else self.head_norms.trained
        return [*self.around.trained, *self.around_mlp.trained, *of_heads]

    @property
    def changed(self) -> bool:
        """Whether what it gives is not the same at every step, for the same input."""
        return bool(self.norms) or any(part.changed for part in self.linears)


@dataclass(frozen=True)
class Structure:
    """A whole decoder."""

    layers: list[Layer]
    heads: Heads
    embedding: Tensor  # (V, C)
    padding: int | None  # the token whose embedding learns nothing where it is read
    embedding_scale: float  # of the tokens' embeddings, by their module
    input_scale: float  # of whatever stands in their place, by the model
    norm: RMS  # the last one
    head: Tensor  # (V, C)
    finish: Finish | None  # of the logits
    rotation: Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]  # which, like, positions (1, T) -> cos, sin
    rows_alone: bool  # what a row becomes depends on it alone, not on the longest row of its batch

    @property
    def trained(self) -> list[Tensor]:
        """Every parameter that is given a gradient."""
        own = [tensor for tensor in (self.embedding, self.head) if tensor.requires_grad]
        of_layers = [p for layer in self.layers for p in (*layer.norms, *(q for x in layer.linears for q in x.trained))]
        return [*own, *self.norm.trained, *of_layers]


def stacked(names: list[str], modules: list[Any], dtype: torch.dtype) -> Linears:
    """Layers as one product.

    Raises:
        Unsupported: one of them, or what is added to it, is something that is not computed here.
    """
    changes = [change_of(module) for module in modules]
    bases = [change.base for change in changes]
    if not (all(type(base) is nn.Linear for base in bases) or all(quantization.is_nf4(base) for base in bases)):
        raise Unsupported(f"linear layers of type {type(bases[0]).__name__}")
    if len(changes) > 1 and any(one.input_factors is not None or one.behind is not None for one in changes):
        raise Unsupported("something before or behind one of several layers that read the same input")
    if any(one.factors is not None for one in changes) and any(one.lengths is not None for one in changes):
        raise Unsupported("factors beside lengths")
    _low_rank(changes)
    return Linears(names, changes, dtype)


def _bias(bases: list[Any], dtype: torch.dtype) -> Tensor | None:
    """The biases of stacked layers behind each other, zero where one has none; None where none has."""
    if all(base.bias is None for base in bases):
        return None
    like = next(base.bias for base in bases if base.bias is not None).detach()
    each = (like.new_zeros(base.out_features) if base.bias is None else base.bias.detach() for base in bases)
    return torch.cat(list(each)).to(dtype)


def _joined_in_place(bases: list[nn.Linear], rank: int, dtype: torch.dtype) -> Tensor:
    """The weights one below the other, with `rank` columns to fill beside them; the layers' own become views of it."""
    joined = _below_each_other([base.weight.data for base in bases], rank, dtype)
    for base, weight in zip(bases, joined.split([base.out_features for base in bases]), strict=True):
        base.weight.data = weight[:, : base.in_features]
    return joined


def _joined_for_once(bases: list[Any], adapters: Adapters | None, dtype: torch.dtype) -> Tensor:
    """The same for one use: the layers stay as they are, quantised ones are unpacked for it."""
    if len(bases) == 1 and adapters is None and type(bases[0]) is nn.Linear and bases[0].weight.dtype == dtype:
        return bases[0].weight.data
    weights = [
        base.weight.data if type(base) is nn.Linear else quantization.dequantize_weight(base, dtype) for base in bases
    ]
    joined = _below_each_other(weights, 0 if adapters is None else adapters.b.shape[1], dtype)
    if adapters:
        joined[:, bases[0].in_features :] = adapters.b
    return joined


def _below_each_other(weights: list[Tensor], rank: int, dtype: torch.dtype) -> Tensor:
    """Weights (O_i, C) in one matrix (O, C + rank), whose last columns are not filled."""
    inputs = weights[0].shape[1]
    joined = weights[0].new_empty((sum(len(weight) for weight in weights), inputs + rank), dtype=dtype)
    torch.cat(weights, out=joined[:, :inputs])
    return joined


def _low_rank(changes: list[Change]) -> tuple[list[Tensor], float]:
    """A and B of each of the stacked layers, of rank 0 where there is none, and the scale."""
    factors: list[Tensor] = []
    for one in changes:
        if one.a is not None and one.b is not None:
            factors += [one.a, one.b]
        else:
            device, base = one.base.weight.device, one.base
            factors += [
                torch.empty(size, device=device, dtype=torch.float32)
                for size in ((0, base.in_features), (base.out_features, 0))
            ]
    scales = {one.scale for one in changes if one.a is not None}
    if len(scales) > 1:
        raise Unsupported(f"layers of one stack with different scales {sorted(scales)}")
    return factors, scales.pop() if scales else 1.0
