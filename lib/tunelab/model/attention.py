"""How the plain path attends: eagerly, or by PyTorch's fused kernels ('sdpa'), which keep no (T, T) scores.

Two things undo on a GPU what fused kernels are for. Where keys have fewer heads than queries (grouped queries) and
there is no mask, transformers leaves it to the kernel to share them, which flash attention alone can: in fp32, and on
cards before Ampere, PyTorch makes the scores in full instead, without a word. There keys are repeated (`REPEATED`).
And a mask for rows padded on the right is a tensor of (B, T, T) that every layer keeps: under a causal mask nothing
that counts sees the padding, so there is none (`needs_mask`).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tunelab.machine import gpus, hardware
from tunelab.model import folder as folders

if TYPE_CHECKING:
    import torch

REPEATED = "sdpa_repeated"  # 'sdpa', with the keys of a group repeated for each of its queries
FUSED = ("sdpa", REPEATED)


def choose_attention(folder: Path, device: torch.device, dtype: torch.dtype, asked: str | None = None) -> str:
    """What the plain path attends with, 'eager', 'sdpa' or REPEATED: what is asked for, or faster here. Models whose
    scores are changed before the softmax (Gemma 2 caps them, BLOOM adds ALiBi) have no 'sdpa'."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config = folders.read_config(folder)
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if not getattr(kind, "_supports_sdpa", False):
        return "eager"
    chosen = asked or ("sdpa" if device.type != "cpu" else hardware.best_cpu_attention(dtype))
    if chosen == "sdpa" and device.type == "cuda" and not shares_keys(device, dtype) and groups_queries(config):
        # models with attention of their own do not ask transformers' table for it
        chosen = register() if getattr(kind, "_supports_attention_backend", False) else chosen
    return chosen


def groups_queries(config: Any) -> bool:
    """Whether several heads of queries share one of keys."""
    config = config.get_text_config()
    queries = getattr(config, "num_attention_heads", None)
    return (getattr(config, "num_key_value_heads", None) or queries) != queries


def shares_keys(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a CUDA GPU has a kernel for grouped queries: flash attention, for half precision, from Ampere on."""
    return dtype.itemsize == 2 and gpus.is_ampere(device)


def register() -> str:
    """Have transformers know REPEATED."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def repeated(module: Any, query: Any, key: Any, value: Any, mask: Any, **given: Any) -> Any:
        groups = query.shape[1] // key.shape[1]
        # a module without groups of its own: nothing is repeated again
        stand_in: Any = SimpleNamespace(is_causal=getattr(module, "is_causal", True))
        return sdpa_attention_forward(stand_in, query, repeat_kv(key, groups), repeat_kv(value, groups), mask, **given)

    AttentionInterface.register(REPEATED, repeated)
    AttentionMaskInterface.register(REPEATED, sdpa_mask)
    return REPEATED


def prepare(device: torch.device) -> None:
    """Leave cuDNN out of PyTorch's choice of fused kernels, for this process. It plans anew for every length of rows,
    2 ms of a call that computes for 20 µs, and batches have many lengths; flash attention does not."""
    import torch

    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def needs_mask(attention: str, device: torch.device) -> bool:
    """Whether a forward of rows that are padded on the right has to be told where they end. On a CPU the fused kernel
    has its own way with masks, and is slower without."""
    return attention not in FUSED or device.type != "cuda"
