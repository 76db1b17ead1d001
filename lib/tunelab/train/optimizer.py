"""What moves the weights: AdamW, on fp32 copies of those in half precision."""

from __future__ import annotations

import torch
from torch import nn

from tunelab.errors import UserError
from tunelab.spec import TrainConfig


def fp32_copy(weight: nn.Parameter) -> nn.Parameter:
    """The weight itself where it is fp32, else an fp32 copy for the optimiser: in half precision a weight of 1 and a
    step of 0.001 add up to 1 (Micikevicius et al. 2018, "Mixed Precision Training", section 3.1)."""
    return weight if weight.dtype == torch.float32 else nn.Parameter(weight.detach().float())


def make_optimizer(
    parameters: dict[str, nn.Parameter], config: TrainConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """AdamW, its weight decay on matrices only.

    Raises:
        UserError: 8-bit moments were asked for, and the parameters are not on a CUDA GPU.
    """
    # factors per channel are no matrices, whatever their shape: at zero they would switch the channel off
    matrices = {name for name, p in parameters.items() if p.ndim >= 2 and min(p.shape) > 1}
    decayed = [p for name, p in parameters.items() if name in matrices]
    others = [p for name, p in parameters.items() if name not in matrices]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    if any(p.device.type != "cuda" for p in parameters.values()):
        raise UserError("optimizer = 'adamw_8bit' needs a CUDA GPU. Choose 'adamw'.")
    import bitsandbytes as bnb

    return bnb.optim.AdamW8bit(groups, lr=learning_rate)
