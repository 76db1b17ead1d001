"""The one module the techniques need that neither PyTorch nor PEFT has."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
DOWN_STD = 0.01  # Houlsby et al. 2019, section 3.6: small enough to start near the identity


class Bottleneck(nn.Module):
    """A frozen layer with a bottleneck adapter behind it: y + W_up σ(W_down y + b) + b', in fp32 inside."""

    def __init__(self, layer: Any, size: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.layer, self.enabled = layer, True
        device = layer.weight.device
        down = nn.Linear(layer.out_features, size, device=device)
        up = nn.Linear(size, layer.out_features, device=device)
        nn.init.normal_(down.weight, std=DOWN_STD)
        for zero in (down.bias, up.weight, up.bias):
            nn.init.zeros_(zero)
        parts: dict[str, nn.Module] = {"down": down, "activation": ACTIVATIONS[activation](), "up": up}
        if dropout:
            parts = {"down": down, "activation": parts["activation"], "dropout": nn.Dropout(dropout), "up": up}
        self.adapter = nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if not self.enabled:
            return y
        change = y.float()
        for part in self.adapter.values():
            change = part(change)
        return y + change.to(y.dtype)
