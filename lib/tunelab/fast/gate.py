"""The gated linear unit in the middle of an MLP, its activations, and its backward."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Activation:
    """f of a gate, and its derivative."""

    name: str
    of: Callable[[Tensor, Tensor | None], Tensor]  # f(x), into a tensor or a new one
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]  # dx from dy and x, into a tensor


def _silu(x: Tensor, out: Tensor | None = None) -> Tensor:
    """x σ(x)."""
    return functional.silu(x) if out is None else torch.ops.aten.silu.out(x, out=out)


def _silu_backward(dy: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """dy · σ(x) (1 + x (1 - σ(x))), for σ' = σ (1 - σ)."""
    return torch.ops.aten.silu_backward.grad_input(dy, x, grad_input=out)


def _gelu(x: Tensor, out: Tensor | None = None, *, approximate: str) -> Tensor:
    """x Φ(x), Φ the normal distribution, or its approximation by tanh."""
    if out is None:
        return functional.gelu(x, approximate=approximate)
    return torch.ops.aten.gelu.out(x, approximate=approximate, out=out)


def _gelu_backward(dy: Tensor, x: Tensor, out: Tensor, *, approximate: str) -> Tensor:
    return torch.ops.aten.gelu_backward.grad_input(dy, x, approximate=approximate, grad_input=out)


def _gelus(name: str, approximate: str) -> Activation:
    of, backward = (functools.partial(f, approximate=approximate) for f in (_gelu, _gelu_backward))
    return Activation(name, of, backward)


SILU = Activation("silu", _silu, _silu_backward)
ACTIVATIONS = (SILU, _gelus("gelu by tanh", "tanh"), _gelus("gelu", "none"))


def gated(gate_up: Tensor, activation: Activation = SILU, out: Tensor | None = None) -> Tensor:
    """y = f(a) · b (N, F) of gate a and up b, stacked (N, 2F): SwiGLU where f is SiLU.

    Source: Shazeer 2020, section 2, equation 6, without biases.
    """
    gate, up = gate_up.chunk(2, dim=-1)
    return activation.of(gate, out).mul_(up)


def gated_backward(dy: Tensor, gate_up: Tensor, activated: Tensor, activation: Activation = SILU) -> Tensor:
    """Gradient of the gate a and up b that `gated` was given, stacked (N, 2F), from dy (N, F):

        da = dy · b · f'(a)
        db = dy · f(a)

    by the product rule. `activated` is f(a) (N, F).
    """
    gate, up = gate_up.chunk(2, dim=-1)
    both = torch.empty_like(gate_up)
    d_gate, d_up = both.chunk(2, dim=-1)
    activation.backward(dy * up, gate, d_gate)
    torch.mul(dy, activated, out=d_up)
    return both
