"""What CUDA GPUs this machine has, and what each of them has instructions for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

AMPERE = (8, 0)  # compute capability from which on a card has bfloat16 and flash attention


def is_ampere(device: torch.device | int) -> bool:
    """Whether a GPU is of Ampere or later. PyTorch and transformers compute bfloat16 on older ones as well, emulated
    and slowly."""
    import torch

    return torch.cuda.get_device_capability(device) >= AMPERE


def half_precision(device: torch.device | int) -> torch.dtype:
    """The half precision that a GPU has instructions for."""
    import torch

    return torch.bfloat16 if is_ampere(device) else torch.float16


def notes_on(device: torch.device, dtype: torch.dtype, processes: int = 1) -> list[str]:
    """What to know of computing in `dtype` on a device, a sentence each; `processes` train together."""
    import torch

    if device.type != "cuda":
        return []
    notes = []
    if dtype == torch.bfloat16 and not is_ampere(device):
        major, minor = torch.cuda.get_device_capability(device)
        notes.append(
            f"dtype = 'bfloat16' is emulated on this GPU (compute capability {major}.{minor}), so it is slow; 'auto' "
            "takes float16"
        )
    if (count := torch.cuda.device_count()) > processes == 1:
        notes.append(
            f"{count} GPUs are here and one of them trains: CUDA_VISIBLE_DEVICES chooses it, `torchrun "
            f"--nproc-per-node {count} -m tunelab.cli train …` takes all"
        )
    return notes


def described() -> dict[str, str]:
    """Every GPU by its name in PyTorch: what it is, its memory, and what models are computed in on it."""
    import torch

    found = {}
    for index in range(torch.cuda.device_count()):
        name, (major, minor) = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
        free, total = torch.cuda.mem_get_info(index)
        dtype = str(half_precision(index)).removeprefix("torch.")
        found[f"cuda:{index}"] = (
            f"{name} (compute capability {major}.{minor}), {free / 1e9:.1f} GB free of {total / 1e9:.0f} GB, {dtype}"
        )
    return found
