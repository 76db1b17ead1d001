"""RMSNorm and its backward: of hidden states, and of queries and keys before they are rotated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tunelab.fast.layout import Heads


@dataclass(frozen=True)
class RMS:
    """An RMSNorm, by what a model's code computes."""

    weight: Tensor  # (C,), 1 + w where the code adds one; in fp32 where it multiplies before it rounds
    epsilon: float


def norm(x: Tensor, weight: Tensor, epsilon: float, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """y (…, C) and r (…, 1) of x (…, C), in fp32 inside, with g (C) the weight:

        r = 1 / √(mean(x · x) + epsilon)        the inverse of the root mean square of each row
        y = g · x̂   with x̂ = r · x

    An fp32 weight is multiplied by before y is rounded to x's dtype (Gemma, OLMo 2), another after (Llama).

    Source: Zhang and Sennrich 2019, section 4, equation 4; epsilon as in Llama.
    """
    wide = x.float()
    inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    y = torch.empty_like(x) if out is None else out
    if wide is x:  # fp32: `float()` made no copy that could be overwritten
        return torch.mul(x, inverse, out=y).mul_(weight), inverse
    if weight.dtype == torch.float32:
        return y.copy_(wide.mul_(inverse).mul_(weight)), inverse
    return y.copy_(wide.mul_(inverse)).mul_(weight), inverse


def normalised(x: Tensor, inverse: Tensor) -> Tensor:
    """x̂ = r · x (…, C) in fp32, from the r that `norm` gave."""
    return x * inverse if x.dtype == torch.float32 else x.float().mul_(inverse)


def norm_backward(dy: Tensor, x_hat: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """Gradient of the x that `norm` was given, in dy's dtype:

        dx̂ = g · dy
        dx = r · (dx̂ - x̂ · mean(dx̂ · x̂))

    For x̂ = r · x, and r falls with x: ∂r/∂x_j = -r³ x_j / C = -r² x̂_j / C. So dx_j = r dx̂_j + Σ_i dx̂_i x_i ∂r/∂x_j,
    in which r x_i is x̂_i. g is frozen.
    """
    d_x_hat = (dy * weight).float()
    minus_mean = torch.linalg.vecdot(d_x_hat, x_hat)[..., None].div_(-dy.shape[-1])
    return d_x_hat.addcmul_(x_hat, minus_mean).mul_(inverse).to(dy.dtype)


@dataclass(frozen=True)
class HeadNorms:
    """RMSNorms of queries and keys: over each head (Qwen3, Gemma 3), or over the whole projection (OLMo 2).

    Source: Henry et al. 2020, with the root mean square in place of the length.
    """

    queries: RMS
    keys: RMS
    whole: bool

    def __call__(self, qkv: Tensor, heads: Heads) -> Tensor:
        """qkv (N, (H + 2K) · D) with q and k normed: a copy."""
        y = torch.empty_like(qkv)
        (q, k, v), (to_q, to_k, to_v) = self._parts(qkv, heads), self._parts(y, heads)
        norm(q, self.queries.weight, self.queries.epsilon, out=to_q)
        norm(k, self.keys.weight, self.keys.epsilon, out=to_k)
        to_v.copy_(v)
        return y

    def backward_(self, d_qkv: Tensor, qkv: Tensor, heads: Heads) -> None:
        """Makes the gradient of what was given out of that of the copy, in place; qkv is what was given."""
        gradients, given = self._parts(d_qkv, heads), self._parts(qkv, heads)
        for d, x, rms in zip(gradients[:2], given[:2], (self.queries, self.keys), strict=True):
            wide = x.float()
            inverse = wide.square().mean(-1, keepdim=True).add_(rms.epsilon).rsqrt_()
            d.copy_(norm_backward(d, wide * inverse, rms.weight, inverse))

    def _parts(self, qkv: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, their last dimension the one that is normed: views."""
        if not self.whole:
            return heads.split(qkv)
        queries, keys = heads.queries * heads.size, heads.keys * heads.size
        q, k, v = qkv.split([queries, keys, keys], dim=1)
        return q, k, v
