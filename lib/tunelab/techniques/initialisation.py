"""Where LoRA can start other than at zero, without touching the base.

PiSSA and OLoRA start at A₀ and B₀ taken from W itself and subtract s B₀ A₀ from W, so that the first output stays the
base's. Then the adapter can't be switched off: what is left is not the base. Here W is left alone and the subtraction
is made in the adapter: it holds [A; A₀] and [B, -B₀], twice the rank, of which the second half never moves:

    y = W x + s (B A - B₀ A₀) x

which is the same function with the same gradients. It is also what PEFT writes when such an adapter is to be loaded on
the plain base, so a saved one is an ordinary LoRA of rank 2 r.

EVA only chooses A: the main directions of the layer's inputs on the training rows; B stays zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunelab.errors import UserError
from tunelab.techniques.places import linear_layers, weight_of

if TYPE_CHECKING:
    from tunelab.data import Encoded
    from tunelab.model.load import Base

EVA_ROWS = 64


@torch.no_grad()
def start_at_weights(model: nn.Module, kind: str) -> None:
    """Set A = A₀ and B = B₀ from each layer's W, and the halves that take them away again."""
    for layer in adapted_layers(model):
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        rank = a.shape[0] // 2
        weight, scale = weight_of(layer.get_base_layer()).float(), layer.scaling["default"]
        out_factor, in_factor = _olora(weight, rank) if kind == "olora" else _pissa(weight, rank, scale)
        a.copy_(torch.cat((in_factor, in_factor)))
        b.copy_(torch.cat((out_factor, -out_factor), dim=1))


def _pissa(weight: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """B₀ (out, r) = U √S and A₀ (r, in) = √S Vᵀ of the r largest singular values, both over √s, so that s B₀ A₀ is
    that part of W.

    Source: Meng et al. 2024, "PiSSA: Principal Singular Values and Singular Vectors Adaptation", equations 2 and 3.
    """
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    root = (s[:rank] / scale).sqrt()
    return u[:, :rank] * root, root[:, None] * v[:rank]


def _olora(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """B₀ (out, r) = Q and A₀ (r, in) = R of W = Q R, the first r of each.

    Source: Büyükakyüz 2024, "OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models", section 3.
    """
    q, r = torch.linalg.qr(weight)
    return q[:, :rank], r[:rank]


def freeze_start(model: nn.Module) -> None:
    """Keep the second half of every A and B where it is: no gradient reaches it."""
    for layer in adapted_layers(model):
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        rank = a.shape[0] // 2
        a.register_hook(_without(slice(rank, None)))
        b.register_hook(_without((slice(None), slice(rank, None))))


def _without(part: Any) -> Any:
    def clear(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[part] = 0
        return gradient

    return clear


@torch.no_grad()
def input_directions(base: Base, names: Sequence[str], rows: Sequence[Encoded]) -> dict[str, Tensor]:
    """The directions (in, in) of the inputs x of each named layer, the one with most of E[x xᵀ] first, as rows.

    The eigenvectors of Σ x xᵀ over the tokens of the first rows: the right singular vectors of all inputs at once. The
    paper finds them incrementally, and may give layers different ranks; here every layer keeps its rank.

    Source: Paischer et al. 2024, "One Initialization to Rule them All: Fine-tuning via Explained Variance Adaptation",
    section 3.
    """
    layers = linear_layers(base.model)
    sums: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def add(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            x = inputs[0].flatten(0, -2).float()
            sums[name] = sums.get(name, 0) + x.T @ x

        return add

    hooks = [layers[name].register_forward_pre_hook(watch(name)) for name in names]
    try:
        for row in rows[:EVA_ROWS]:
            base.model(input_ids=torch.tensor([row.input_ids], device=base.device), use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.linalg.eigh(total).eigenvectors.T.flip(0) for name, total in sums.items()}


@torch.no_grad()
def start_at_inputs(model: Any, directions: dict[str, Tensor]) -> None:
    """Set every A to the first directions of its layer's inputs."""
    for name, layer in model.get_base_model().named_modules():
        if name in directions:
            a = layer.lora_A["default"].weight
            if a.shape[0] > len(directions[name]):
                raise UserError(f"r = {a.shape[0]} is more than {name} has inputs ({len(directions[name])}).")
            a.copy_(directions[name][: a.shape[0]])


def adapted_layers(model: nn.Module) -> Iterator[Any]:
    """PEFT's LoRA layers."""
    from peft.tuners.lora import LoraLayer

    yield from (module for module in model.modules() if isinstance(module, LoraLayer))
