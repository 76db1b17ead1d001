"""A decoder as the fast path computes it: its layers by what they do, and which linear layers stand side by side.

`reading.py` reads it from the modules of a model and touches nothing. `Linears.join` lays frozen weights side by side
for good, the model's own become views of them, and `Linears.separate` is the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tunelab.fast.blocks import Around
from tunelab.fast.gate import Activation
from tunelab.fast.head import Finish
from tunelab.fast.layout import Heads
from tunelab.fast.linear import Adapters, Stack
from tunelab.fast.norm import RMS, HeadNorms
from tunelab.model import quantization


class Unsupported(Exception):
    """Why the fast path can't compute this model; the plain one is used."""


@dataclass
class Linears:
    """Linear layers that read the same input, computed as one product."""

    names: list[str]  # in the base model, e.g. "model.layers.0.self_attn.q_proj"
    modules: list[Any]  # nn.Linear, a bitsandbytes layer, or PEFT's LoRA layer around one of them
    dtype: torch.dtype  # in which they are computed
    factors: list[Tensor]  # A and B of each, of rank 0 where there is no adapter
    scale: float
    bias: Tensor | None  # (O,)
    bases: list[Any] = field(init=False)  # the frozen layers
    inputs: int = field(init=False)
    widths: list[int] = field(init=False)
    adapters: Adapters | None = field(init=False)
    _matrix: Tensor | None = field(default=None, init=False)  # None: they are not joined

    def __post_init__(self) -> None:
        self.bases = [base_linear(module) for module in self.modules]
        self.inputs, self.widths = self.bases[0].in_features, [base.out_features for base in self.bases]
        self.adapters = self._adapters()

    @property
    def rank(self) -> int:
        """R, of all adapters."""
        return sum(a.shape[0] for a in self.factors[::2])

    def join(self) -> None:
        """Lay the weights W one below the other for good, not for each use, with room for the adapters' B beside them.
        They are held once: those of the model become views of it. Quantised ones stay as they are, and are unpacked for
        each use."""
        if type(self.bases[0]) is nn.Linear:
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
        return Adapters(self.factors, self.scale, self.dtype, b=beside) if self.rank else None

    def joined(self) -> Tensor:
        """W and B: (O, C + R)."""
        return _joined_for_once(self.bases, self.adapters, self.dtype) if self._matrix is None else self._matrix

    def matrix(self) -> Tensor:
        """W (O, C) alone."""
        return self.joined()[:, : self.inputs]

    def stack(self, matrices: Mapping[Adapters | None, tuple[Tensor, Tensor]]) -> Stack:
        """The layers as they compute, with their adapters or, where `matrices` has none of theirs, without."""
        a, b = matrices.get(self.adapters, (None, None))
        return Stack(self.joined, self.inputs, a, b, self.bias)


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


@dataclass(frozen=True)
class Structure:
    """A whole decoder."""

    layers: list[Layer]
    heads: Heads
    embedding: Tensor  # (V, C)
    embedding_scale: float
    norm: RMS  # the last one
    head: Tensor  # (V, C)
    finish: Finish | None  # of the logits
    rotation: Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]  # which, like, positions (1, T) -> cos, sin
    rows_alone: bool  # what a row becomes depends on it alone, not on the longest row of its batch


def base_linear(module: Any) -> Any:
    """The frozen linear layer inside PEFT's, or the layer itself."""
    return module.get_base_layer() if is_lora(module) else module


def is_lora(module: Any) -> bool:
    """Whether it is PEFT's LoRA layer around a linear one."""
    from peft.tuners.lora import LoraLayer

    return isinstance(module, LoraLayer)


def stacked(names: list[str], modules: list[Any], dtype: torch.dtype) -> Linears:
    """Layers as one product.

    Raises:
        Unsupported: one of them, or its adapter, is something that is not computed here.
    """
    for module in modules:
        _check_adapter(module)
    bases = [base_linear(module) for module in modules]
    if not (all(type(base) is nn.Linear for base in bases) or all(quantization.is_nf4(base) for base in bases)):
        raise Unsupported(f"linear layers of type {type(bases[0]).__name__}")
    factors, scale = _factors(modules)
    return Linears(names, modules, dtype, factors, scale, _bias(bases, dtype))


def _check_adapter(module: Any) -> None:
    if not is_lora(module):
        return
    if len(module.active_adapters) > 1:
        raise Unsupported("several adapters at once")
    for name in module.active_adapters:
        if getattr(module, "use_dora", {}).get(name):
            raise Unsupported("DoRA")
        if name in module.lora_dropout and not isinstance(module.lora_dropout[name], nn.Identity):
            raise Unsupported("dropout of the adapter")
        if getattr(module, "lora_bias", {}).get(name):
            raise Unsupported("an adapter with a bias")


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


def _factors(modules: list[Any]) -> tuple[list[Tensor], float]:
    """A and B of the active adapter of each of the stacked layers, rank 0 where there is none, and the scale."""
    names = [module.active_adapters[0] if is_lora(module) else None for module in modules]
    factors: list[Tensor] = []
    scales = set()
    for name, module in zip(names, modules, strict=True):
        base = base_linear(module)
        if name is not None and name in module.lora_A:
            factors += [module.lora_A[name].weight, module.lora_B[name].weight]
            scales.add(module.scaling[name])
        else:
            device = base.weight.device
            factors += [torch.empty(size, device=device) for size in ((0, base.in_features), (base.out_features, 0))]
    if len(scales) > 1:
        raise Unsupported(f"layers of one stack with different scales {sorted(scales)}")
    return factors, scales.pop() if scales else 1.0
