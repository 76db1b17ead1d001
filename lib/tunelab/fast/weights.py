"""Frozen weights as answering multiplies by them: as they are, or laid out for this CPU beforehand.

oneDNN, which computes PyTorch's matrix products in half precision on CPUs, brings a weight into blocks that suit the
processor before it multiplies, and forgets them afterwards. A frozen weight is the same at every step, so it can be
brought into that form once. The operators for it are private ones of PyTorch: `can_pack` looks whether they are there
and compute the same, and where they don't, the plain weights are used. An answer is made a third
faster by it (`python -m benchmarks.generation`); a training step, whose products have hundreds of rows, is not.

In fp32 it depends on the processor, so it is measured. PyTorch's own products of few rows are as fast on some; on an
AMD EPYC with AVX2 a second row costs as much as the first, and packed weights answer 1.8 times as fast for base and
tuned at once (`packed_over_plain` of the same benchmark).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from tunelab.machine.measured import measured, own_seconds

WORTH = 1.2  # times as fast as plain weights, so that fp32 ones are packed
MEASURED_LAYERS = 16  # of 3.5 MB each, so that they come from memory and not from a cache
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
    """Whether this build of PyTorch packs weights of this dtype on the CPU and multiplies by them rightly, and whether
    that is worth it: always in bf16, in fp32 where it is measured to be."""
    if dtype not in (torch.bfloat16, torch.float32) or not _packs_rightly(dtype):
        return False
    if dtype == torch.bfloat16:
        return True
    gain = measured(
        "packing-fp32", {"rows": ROWS_EXPECTED}, _gain_in_fp32, lambda value: isinstance(value, float) and value > 0
    )
    return gain >= WORTH


def _packs_rightly(dtype: torch.dtype) -> bool:
    """Whether packed weights of this dtype are there and multiply as plain ones do."""
    generator = torch.Generator().manual_seed(0)
    weight, x = (
        torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype) for shape in ((192, 128), (40, 128))
    )
    try:
        packed, plain = Packed(weight).times(x), x @ weight.T
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return bool((packed - plain).abs().max() <= 4 * torch.finfo(dtype).eps * plain.abs().max())


def _gain_in_fp32() -> float:
    """How many times as fast packed fp32 weights are, for base and tuned at once."""
    weights = [torch.randn(1536, 576, dtype=torch.float32) for _ in range(MEASURED_LAYERS)]
    x = torch.randn(ROWS_EXPECTED, 576, dtype=torch.float32)
    sides = [[kind(weight) for weight in weights] for kind in (Plain, Packed)]
    plain, packed = own_seconds(*(lambda side=side: [w.times(x) for w in side] for side in sides), turns=7)
    return round(plain / packed, 2)
