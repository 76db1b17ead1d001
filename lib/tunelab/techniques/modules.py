"""The one module the techniques need that neither PyTorch nor PEFT has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
DOWN_STD = 0.01  # Houlsby et al. 2019, section 3.6: small enough to start near the identity


class Bottleneck(nn.Module):
    """A frozen module with a bottleneck adapter behind it: y + W_up σ(W_down y + b) + b', in fp32 inside. Where the
    module gives several results, y is the first."""

    def __init__(self, layer: Any, width: int, size: int, activation: str, dropout: float) -> None:
        """`width`: of y. `size`: of the bottleneck."""
        super().__init__()
        self.layer, self.enabled = layer, True
        device = next(layer.parameters()).device
        down = nn.Linear(width, size, device=device, dtype=torch.float32)
        up = nn.Linear(size, width, device=device, dtype=torch.float32)
        nn.init.normal_(down.weight, std=DOWN_STD)
        for zero in (down.bias, up.weight, up.bias):
            nn.init.zeros_(zero)
        parts: dict[str, nn.Module] = {"down": down, "activation": ACTIVATIONS[activation](), "up": up}
        if dropout:
            parts = {"down": down, "activation": parts["activation"], "dropout": nn.Dropout(dropout), "up": up}
        self.adapter = nn.ModuleDict(parts)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        y = self.layer(*inputs, **named)
        if not self.enabled:
            return y
        return (self.adapted(y[0]), *y[1:]) if isinstance(y, tuple) else self.adapted(y)

    @property
    def draws(self) -> bool:
        """Whether what it computes depends on random numbers: it has dropout."""
        return "dropout" in self.adapter

    def adapted(self, y: Tensor) -> Tensor:
        """What it makes of the module's result y (…, C)."""
        change = y.float()
        for part in self.adapter.values():
            change = part(change)
        return y + change.to(y.dtype)
