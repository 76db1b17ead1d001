"""Frozen linear layers that read the same input, and their LoRA factors, as one product: forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class Adapters:
    """The LoRA factors of linear layers that read the same x, as two matrices: y += (x Aᵀ) Bᵀ.

    Layer i alone adds scale · x A_iᵀ B_iᵀ. A (R, C) holds scale · A_i of all layers below each other, B (O, R) their
    B_i on its diagonal blocks, zero elsewhere. One product for all costs less than a thin one for each. The matrices
    are copies in the model's dtype; `Joined` makes them anew from the parameters.

    Source: Hu et al. 2021, section 4.1, equation 3, with scale = lora_alpha / r.
    """

    def __init__(self, factors: Sequence[Tensor], scale: float, dtype: torch.dtype, b: Tensor | None = None) -> None:
        """`factors`: A_1 (r_1, C), B_1 (O_1, r_1), A_2, …; `b`: where B is to lie, zero."""
        self.factors = list(factors)
        self.ranks = [a.shape[0] for a in factors[::2]]
        self.widths = [b.shape[0] for b in factors[1::2]]
        self.scale = scale
        self.a = factors[0].new_zeros((sum(self.ranks), factors[0].shape[1]), dtype=dtype, requires_grad=False)
        self.b = self.a.new_zeros(sum(self.widths), sum(self.ranks)) if b is None else b
        self.blocks = self.of_factors(self.a, self.b)

    def of_factors(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Where the factors lie in matrices like A and B, in their order: views."""
        blocks: list[Tensor] = []
        rank = out = 0
        for r, width in zip(self.ranks, self.widths, strict=True):
            blocks += (a[rank : rank + r], b[out : out + width, rank : rank + r])
            rank, out = rank + r, out + width
        return blocks


class Joined(Function):
    """The matrices A and B of every stack, from the factors of all: apply to (adapters, *factors of all adapters).

    The gradients of the factors are the blocks where they lie: dA_i = scale · (rows i of dA), dB_i = block i of dB;
    what dB holds beside the blocks belongs to zeros that nobody trains. All at once, in both directions: there are
    hundreds of factors, and a call for each costs more than its copy.
    """

    @staticmethod
    def forward(ctx: Any, adapters: Sequence[Adapters], *factors: Tensor) -> tuple[Tensor, ...]:
        torch._foreach_copy_([block for x in adapters for block in x.blocks], list(factors))
        torch._foreach_mul_([x.a for x in adapters], [x.scale for x in adapters])
        ctx.adapters = adapters
        return tuple(matrix.detach() for x in adapters for matrix in (x.a, x.b))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        adapters: Sequence[Adapters] = ctx.adapters
        pairs = zip(adapters, gradients[::2], gradients[1::2], strict=True)
        blocks = [block for x, d_a, d_b in pairs for block in x.of_factors(d_a, d_b)]
        of_factors = [torch.empty_like(factor) for x in adapters for factor in x.factors]
        torch._foreach_copy_(of_factors, blocks)
        torch._foreach_mul_(of_factors[::2], [x.scale for x in adapters for _ in x.ranks])
        return None, *of_factors


@dataclass
class Stack:
    """Frozen linear layers side by side with their adapters, for x (N, C) and its low-rank part h = x Aᵀ (N, R):

        y = x Wᵀ + h Bᵀ = [x, h] [W, B]ᵀ        (N, O), plus the bias of layers that have one

        [g, dh] = dy [W, B]                     (N, C + R), g through W alone
        dx = g + dh A                           (N, C), through W and through h
        dA = dhᵀ x                              (R, C)
        dB = dyᵀ h                              (O, R)

    For y changes by δx Wᵀ + δh Bᵀ + h δBᵀ and h by δx Aᵀ + x δAᵀ; W is frozen. With W and B side by side, one product
    gives what takes two: y in the forward, g and dh in the backward. So x lies in a buffer with R spare columns behind
    it, for h.

    Source: Hu et al. 2021, section 4.1, equation 3; the gradients are derived here.
    """

    joined: Callable[[], Tensor]  # W and B: (O, C + R)
    inputs: int  # C
    a: Tensor | None = None  # (R, C); None: without adapters
    b: Tensor | None = None  # (O, R): lies in `joined`, stands here to be given its gradient
    bias: Tensor | None = None  # (O,)

    @property
    def matrices(self) -> tuple[Tensor | None, Tensor | None]:
        """The adapters', as a `Function` is applied to them."""
        return self.a, self.b

    def input_buffer(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """For the input of as many rows as `like` has: what `forward` takes (N, C + R), and the part to fill (N, C)."""
        buffer = like.new_empty(len(like), self.inputs + (0 if self.a is None else len(self.a)))
        return buffer, buffer[:, : self.inputs]

    def low_rank(self, buffer: Tensor) -> Tensor:
        """h = x Aᵀ (N, R), as `forward` left it in its buffer: a copy, the rest need not stay."""
        return buffer[:, self.inputs :].clone()

    def forward(self, buffer: Tensor, residual: Tensor | None = None, alpha: float = 1.0) -> Tensor:
        """y (N, O) of the x in a buffer (N, C + R), whose spare columns are filled; or residual + alpha · y."""
        if self.a is not None:
            torch.mm(buffer[:, : self.inputs], self.a.T, out=buffer[:, self.inputs :])
        weight = self.joined()[:, : buffer.shape[1]].T
        if residual is None:
            return buffer @ weight if self.bias is None else torch.addmm(self.bias, buffer, weight)
        y = torch.addmm(residual, buffer, weight, alpha=alpha)
        return y if self.bias is None else y.add_(self.bias, alpha=alpha)

    def backward(self, dy: Tensor, x: Tensor, low_rank: Tensor, needs_dx: bool = True) -> tuple[Any, Any, Any]:
        """Gradients of x (N, C), None unless `needs_dx`, and of the adapters' A and B, from dy (N, O), x and h."""
        joined = self.joined()
        if self.a is None:
            return dy @ joined[:, : self.inputs] if needs_dx else None, None, None
        if not needs_dx:
            d_low_rank = dy @ joined[:, self.inputs :]
            return None, d_low_rank.T @ x, dy.T @ low_rank
        dx, d_low_rank = (dy @ joined).split([self.inputs, len(self.a)], dim=1)
        return dx.addmm_(d_low_rank, self.a), d_low_rank.T @ x, dy.T @ low_rank
