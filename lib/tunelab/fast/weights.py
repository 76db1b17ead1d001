"""Frozen weights as the fast path multiplies by them: as they are, or laid out for this CPU beforehand.

oneDNN, which computes PyTorch's matrix products in half precision on CPUs, brings a weight into blocks that suit the
processor before it multiplies, and forgets them afterwards. A frozen weight is the same at every step, so it can be
brought into that form once. The operators for it are private ones of PyTorch: `can_pack` looks whether they are there
and compute the same, and where they don't, the plain weights are used. An answer is made a third
faster by it (`python -m benchmarks.generation`); a training step, whose products have hundreds of rows, is not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

ROWS_EXPECTED = 2  # base and tuned; the layout depends a little on how many rows there will be


class Weight(Protocol):
    """A frozen W (O, C)."""

    def times(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """x Wᵀ (N, O) of x (N, C), plus the residual."""

    def back(self, dy: Tensor) -> Tensor:
        """dy W (N, C) of dy (N, O): the gradient of x."""


class Plain:
    """W as it is. `weight` gives it when it is needed, so that quantised weights need not stay unpacked."""

    def __init__(self, weight: Callable[[], Tensor]) -> None:
        self.weight = weight

    def times(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        weight = self.weight().T
        return x @ weight if residual is None else torch.addmm(residual, x, weight)

    def back(self, dy: Tensor) -> Tensor:
        return dy @ self.weight()


class Packed:
    """W in blocks, to answer: the memory of W once more."""

    def __init__(self, weight: Tensor) -> None:
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_EXPECTED)

    def times(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if residual is None:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.packed, None, "add")

    def back(self, dy: Tensor) -> Tensor:
        raise NotImplementedError("weights are packed to answer, not to train")


@functools.cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch packs weights of this dtype on the CPU and multiplies by them rightly. In fp32 its
    own products are as fast without."""
    if dtype != torch.bfloat16:
        return False
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(shape, generator=generator).to(dtype) for shape in ((192, 128), (40, 128)))
    try:
        packed = Packed(weight)
        pairs = [
            (packed.times(x), x @ weight.T),
            (packed.times(x, x[:, :1].expand(-1, 192).contiguous()), x[:, :1] + x @ weight.T),
        ]
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    nearest = 4 * torch.finfo(dtype).eps
    return all(bool((a - b).abs().max() <= nearest * b.abs().max()) for a, b in pairs)
