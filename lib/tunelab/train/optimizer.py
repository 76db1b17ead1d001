"""What moves the weights: AdamW, on fp32 copies of those in half precision.

Its two moments take 8 bytes a trained weight, more than anything else in full fine-tuning. On a CUDA GPU bitsandbytes
keeps them in 8 bits, or in pages that move to the machine's memory where the card has no room for them, or both.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from tunelab.errors import UserError
from tunelab.spec import TrainConfig

# name -> the class of bitsandbytes
OF_BITSANDBYTES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw_32bit": "PagedAdamW32bit",
    "paged_adamw_8bit": "PagedAdamW8bit",
}
PAGED_NUMBERS = 100_000  # bitsandbytes pages the moments of weights of so many numbers or more
MOMENTS = ("state1", "state2")  # bitsandbytes' names of them


def moment_bytes(optimizer: str) -> int:
    """Bytes that the moments of one trained weight take."""
    return 2 if optimizer.endswith("8bit") else 8


def is_paged(optimizer: str) -> bool:
    return optimizer.startswith("paged")


def unpaged(optimizer: str) -> str:
    """The optimiser that computes the same and keeps its moments where they are."""
    return {"paged_adamw_32bit": "adamw", "paged_adamw_8bit": "adamw_8bit"}.get(optimizer, optimizer)


def fp32_copy(weight: nn.Parameter) -> nn.Parameter:
    """The weight itself where it is fp32, else an fp32 copy for the optimiser: in half precision a weight of 1 and a
    step of 0.001 add up to 1 (Micikevicius et al. 2018, "Mixed Precision Training", section 3.1)."""
    return weight if weight.dtype == torch.float32 else nn.Parameter(weight.detach().float())


def check_optimizer(optimizer: str, device: torch.device) -> None:
    """Refuse an optimiser that this device has no kernels for.

    Raises:
        UserError: it is one of bitsandbytes, and the device is no CUDA GPU, or bitsandbytes does not load.
    """
    if optimizer not in OF_BITSANDBYTES:
        return
    if device.type != "cuda":
        raise UserError(
            f"optimizer = '{optimizer}' needs a CUDA GPU; this run computes on {device.type}. Choose 'auto'."
        )
    if reason := _missing():
        raise UserError(f"optimizer = '{optimizer}' needs bitsandbytes, which does not load: {reason}. Choose 'adamw'.")


def can_page(device: torch.device) -> bool:
    """Whether moments on this device can be paged."""
    return device.type == "cuda" and not _missing()


def _missing() -> str:
    """Why bitsandbytes does not load; nothing where it does."""
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return str(error)[:200]
    return ""


def make_optimizer(
    parameters: dict[str, nn.Parameter], config: TrainConfig, learning_rate: float
) -> torch.optim.Optimizer:
    """AdamW, its weight decay on matrices only; 'auto' is 'adamw' unless it was settled otherwise (`fit`).

    Raises:
        UserError: as `check_optimizer`.
    """
    # factors per channel are no matrices, whatever their shape: at zero they would switch the channel off
    matrices = {name for name, p in parameters.items() if p.ndim >= 2 and min(p.shape) > 1}
    decayed = [p for name, p in parameters.items() if name in matrices]
    others = [p for name, p in parameters.items() if name not in matrices]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer not in OF_BITSANDBYTES:
        return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    for device in {p.device for p in parameters.values()}:
        check_optimizer(config.optimizer, device)
    from bitsandbytes import optim

    made: torch.optim.Optimizer = getattr(optim, OF_BITSANDBYTES[config.optimizer])(groups, lr=learning_rate)
    return made


def placed(optimizer: torch.optim.Optimizer, parameter: Tensor, name: str, value: Tensor) -> Tensor:
    """A tensor of a parameter's state, read from a checkpoint, where the optimiser has its own: moments that are paged
    go into pages again, all else to where the parameter is."""
    bnb: Any = sys.modules.get("bitsandbytes")
    if bnb and isinstance(optimizer, bnb.optim.optimizer.Optimizer8bit) and optimizer.is_paged and name in MOMENTS:
        pages: Tensor = optimizer.get_state_buffer(parameter, dtype=value.dtype)
        return pages.copy_(value)
    return value.to(parameter.device, copy=True)
