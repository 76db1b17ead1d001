"""Frozen weights as answering multiplies by them: as they are, or laid out for this CPU beforehand.

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

    def times(self, x: Tensor) -> Tensor:
        """x Wᵀ (…, O) of x (…, C)."""


class Plain:
    """W as it is."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def times(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


class Unpacking:
    """A quantised W that is unpacked whenever it is used, and never kept: slower, and one at a time takes memory."""

    def __init__(self, unpacked: Callable[[], Tensor]) -> None:
        self.unpacked = unpacked

    def times(self, x: Tensor) -> Tensor:
        return x @ self.unpacked().T


class Packed:
    """W in blocks: the memory of W once more."""

    def __init__(self, weight: Tensor) -> None:
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_EXPECTED)

    def times(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")


@functools.cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch packs weights of this dtype on the CPU and multiplies by them rightly. In fp32 its
    own products are as fast without."""
    if dtype != torch.bfloat16:
        return False
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(shape, generator=generator).to(dtype) for shape in ((192, 128), (40, 128)))
    try:
        packed, plain = Packed(weight).times(x), x @ weight.T
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return bool((packed - plain).abs().max() <= 4 * torch.finfo(dtype).eps * plain.abs().max())
