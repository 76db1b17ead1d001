"""What stands behind the last layer: the norm, and the head over scored positions only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tunelab.fast.norm import RMS, norm, norm_backward, normalised, weight_gradient

HEAD_CHUNK = 256  # scored positions whose (chunk, V) logits exist at a time, where the vocabulary is not very large
CHUNK_NUMBERS = 2**25  # of logits at a time, at most: 64 MB in half precision
SOFTMAX_ROWS = 16  # of those positions, how many are in fp32 at a time on a CPU: they stay in its cache
SOFTMAX_NUMBERS = 2**20  # of them at most
# in fp16 dz is kept so many times as large: of a token that is nearly certain it would be lost before the loss scale,
# which comes after it, could save it. dz is at most 1, so that dx stays far below what fp16 can hold (65,504)
FP16_SCALE = 256.0


class Norm(Function):
    """`norm` alone and its backward, for the last one, before the head; apply to (x, the norm's parameter, the
    norm)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameter: Tensor, rms: RMS) -> Tensor:
        y, inverse = norm(x, rms.weight, rms.epsilon)
        ctx.rms = rms
        ctx.save_for_backward(x, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, inverse = ctx.saved_tensors
        x_hat, rms = normalised(x, inverse), ctx.rms
        of_parameter = weight_gradient(dy, x_hat).to(rms.parameter.dtype) if ctx.needs_input_grad[1] else None
        return norm_backward(dy, x_hat, rms.weight, inverse), of_parameter, None


def chunk_rows(vocabulary: int) -> int:
    """How many rows of logits exist at a time."""
    return max(SOFTMAX_ROWS, min(HEAD_CHUNK, CHUNK_NUMBERS // vocabulary // SOFTMAX_ROWS * SOFTMAX_ROWS))


def softmax_rows(device: torch.device, vocabulary: int) -> int:
    """How many rows of logits are in fp32 at a time."""
    if device.type != "cpu":
        return chunk_rows(vocabulary)
    return max(1, min(SOFTMAX_ROWS, SOFTMAX_NUMBERS // vocabulary))


@dataclass(frozen=True)
class Finish:
    """What some models do to their logits z: z / divisor (Granite), or m · tanh(z / m) with a cap m (Gemma 2)."""

    divisor: float = 1.0
    cap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """The logits, finished, with their graph."""
        logits = logits / self.divisor
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def apply_(self, logits: Tensor, slope: Tensor | None = None) -> Tensor:
        """The logits, finished in place; `slope`, of their shape: becomes their derivative, with a cap."""
        logits.div_(self.divisor)
        if self.cap is None:
            return logits
        logits.div_(self.cap).tanh_()
        if slope is not None:
            torch.square(logits, out=slope).neg_().add_(1)
        return logits.mul_(self.cap)

    def backward_(self, d: Tensor, slope: Tensor | None) -> Tensor:
        """The gradient of logits out of that of finished ones, in place."""
        if slope is not None:
            d.mul_(slope)
        return d.div_(self.divisor)


class Head:
    """The output matrix E (V, C), with buffers for the logits of a chunk.

    They are used again at every step: memory of that size comes from the operating system anew each time, which takes
    longer than what is computed in it.
    """

    def __init__(self, matrix: Tensor, finish: Finish | None = None) -> None:
        self.matrix, self.finish = matrix, finish
        self.chunk = chunk_rows(len(matrix))
        self._made: tuple[Tensor, ...] | None = None

    def logits(self, x: Tensor) -> Tensor:
        """x Eᵀ (n, V) of x (n, C): overwritten by the next."""
        return torch.mm(x, self.matrix.T, out=self._buffers()[0][: len(x)])

    def scratch(self, rows: int) -> Tensor:
        """An fp32 buffer for as many rows of logits (rows, V): overwritten by the next."""
        return self._buffers()[1][:rows]

    def slope(self, rows: int) -> Tensor | None:
        """Another one, for what `Finish` asks, if it does."""
        return None if self.finish is None or self.finish.cap is None else self._buffers()[2][:rows]

    @property
    def rows_at_a_time(self) -> int:
        """How many rows `scratch` holds."""
        return softmax_rows(self.matrix.device, len(self.matrix))

    def _buffers(self) -> tuple[Tensor, ...]:
        if self._made is None:
            count, width = 1 if self.finish is None or self.finish.cap is None else 2, len(self.matrix)
            wide = (self.matrix.new_empty(self.rows_at_a_time, width, dtype=torch.float32) for _ in range(count))
            self._made = (self.matrix.new_empty(self.chunk, width), *wide)
        return self._made


class ScoredHead(Function):
    """The cross-entropy summed over N scored positions, with its gradient computed on the way; apply to (x, head,
    targets, the head's matrix). Rows of x (N or more, C) without a target (N,) count nothing, nor do those that
    `counted` (N,), a fifth tensor of ones and zeros in fp32, holds a zero for. With t the targets:

        z = x Eᵀ                                    logits (N, V), finished as the model does (`Finish`)
        loss = Σ_n log Σ_v exp(z_nv) - z_n,t_n      = -Σ_n log softmax(z_n)[t_n]

        dz = softmax(z) - onehot(t)                 as ∂(log Σ exp z)/∂z_v = exp(z_v) / Σ exp z
        dx = dz E                                   (N, C), times the gradient of the loss
        dE = dzᵀ x                                  (V, C), likewise, where E is trained

    They are made in the forward, chunk by chunk, dz in the place of z, and (N, V) logits never exist as a whole. Each
    row is moved by its greatest logit before exp, which changes neither. In fp16 they are FP16_SCALE times as large
    until the backward, and dE, a sum over all positions, is kept in fp32: it would be beyond fp16 before the loss scale
    could bring it back.

    Source: Hsu et al. 2024 (Liger Kernel), section 3.2, fused linear cross-entropy.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, head: Head, targets: Tensor, matrix: Tensor, counted: Tensor | None = None
    ) -> Tensor:
        needs_dx, needs_matrix = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
        dx = torch.empty_like(x) if needs_dx else None
        half = x.dtype == torch.float16
        d_matrix = torch.zeros_like(matrix, dtype=torch.float32 if half else None) if needs_matrix else None
        scale = (FP16_SCALE if half else 1.0) if needs_dx or needs_matrix else None
        total = x.new_zeros((), dtype=torch.float32)
        chunks = max(1, -(-len(x) // head.chunk))
        size = -(-len(x) // chunks // SOFTMAX_ROWS) * SOFTMAX_ROWS or 1  # alike: few rows would cost as much as many
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            logits, known = head.logits(x[rows]), targets[rows]
            logits[len(known) :].zero_()
            total += _losses(logits[: len(known)], head, known, scale, None if counted is None else counted[rows])
            if dx is not None:
                torch.mm(logits, matrix, out=dx[rows])
            if d_matrix is not None:
                d_matrix.addmm_(logits.T.to(d_matrix.dtype), x[rows].to(d_matrix.dtype))
        ctx.save_for_backward(dx, d_matrix)
        ctx.dtype = x.dtype
        return total

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> Any:
        scaled = [d if d is None else _times(d, d_total, ctx.dtype) for d in ctx.saved_tensors]
        return scaled[0], None, None, scaled[1], None


def _times(d: Tensor, d_total: Tensor, dtype: torch.dtype) -> Tensor:
    """A gradient of the sum of losses, times that of what follows from the sum, in the dtype of what it belongs to."""
    if dtype == torch.float16:  # in fp32, for the factor alone may be beyond fp16
        return (d.float() * (d_total / FP16_SCALE)).to(dtype)
    return d * d_total.to(d.dtype)


def _losses(logits: Tensor, head: Head, targets: Tensor, scale: float | None, counted: Tensor | None = None) -> Tensor:
    """The sum of the cross-entropies of logits (n, V), which are overwritten by `scale` times their gradients where
    there is one (`ScoredHead`)."""
    total = logits.new_zeros((), dtype=torch.float32)
    size = head.rows_at_a_time
    counts = [None] * len(targets) if counted is None else counted[:, None].split(size)
    for part, of_part, count in zip(logits.split(size), targets.split(size), counts, strict=False):
        # in place: a call that makes its own fp32 copy waits longer for that memory than it computes
        wide = head.scratch(len(part)).copy_(part)
        if head.finish is not None:
            slope = head.slope(len(part))
            head.finish.apply_(wide, slope)
        wide.sub_(wide.amax(1, keepdim=True))
        of_target = wide.gather(1, of_part[:, None])
        normaliser = wide.exp_().sum(1, keepdim=True)
        nll = normaliser.log() - of_target
        total += (nll if count is None else nll * count).sum()
        if scale is not None:
            p = wide.div_(normaliser)
            p.scatter_add_(1, of_part[:, None], p.new_full((len(p), 1), -1.0))
            if scale != 1:
                p.mul_(scale)
            if count is not None:
                p.mul_(count)
            part.copy_(p if head.finish is None else head.finish.backward_(p, slope))
    return total
