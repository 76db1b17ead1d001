"""Models of random weights in the shapes of published ones, for speed does not depend on what the weights are.

They have the tokenizer of the built-in model: the head is as wide as theirs, and only words of that tokenizer occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

RANK = 16  # of the adapters
SCORED = 0.26  # share of scored tokens in python-docs


@dataclass(frozen=True)
class Shape:
    """What a published model's configuration says of its sizes."""

    kind: str  # transformers' prefix of its classes
    steps: int  # in a turn on a CPU
    settings: dict[str, Any]


_QWEN = {"vocab_size": 151936, "tie_word_embeddings": True, "max_position_embeddings": 32768}
SHAPES = {
    "qwen2.5-0.5b": Shape(
        "Qwen2",
        3,
        _QWEN | {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
                 "num_key_value_heads": 2},
    ),
    "qwen3-0.6b": Shape(
        "Qwen3",
        3,
        _QWEN | {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
                 "num_key_value_heads": 8, "head_dim": 128},
    ),
    "llama-3.2-1b": Shape(
        "Llama",
        2,
        {"vocab_size": 128256, "tie_word_embeddings": True, "max_position_embeddings": 131072, "hidden_size": 2048,
         "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
    ),
    "llama-3.1-8b": Shape(
        "Llama",
        1,
        {"vocab_size": 128256, "tie_word_embeddings": False, "max_position_embeddings": 131072, "hidden_size": 4096,
         "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
    ),
    "gemma-3-270m": Shape(
        "Gemma3Text",
        3,
        {"vocab_size": 262144, "tie_word_embeddings": True, "max_position_embeddings": 32768, "hidden_size": 640,
         "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1,
         "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 512},
    ),
}  # fmt: skip
CPU_SHAPES = ("qwen2.5-0.5b", "qwen3-0.6b", "llama-3.2-1b", "gemma-3-270m")
GPU_SHAPES = ("qwen2.5-0.5b", "llama-3.2-1b", "llama-3.1-8b")


def save(shape: Shape, folder: Path, device: str = "cpu", tokenizer: str = "starter") -> float:
    """Saves a model of random weights, drawn on a device, with a model's tokenizer; what training needs per token at
    least, in operations (as `train_speed`)."""
    import torch
    import transformers

    from tunelab import ModelSpec
    from tunelab.model.load import load_tokenizer

    words = load_tokenizer(ModelSpec(repo_id=tokenizer))
    special = {f"{name}_token_id": getattr(words, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = getattr(transformers, f"{shape.kind}Config")(**special, **shape.settings)
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    flops = flops_per_token(model)
    del model
    if device == "cuda":
        torch.cuda.empty_cache()  # the sides need the card
    return flops


def flops_per_token(model: Any) -> float:
    """What a token needs at least, with adapters of RANK on all linear layers but the head."""
    import torch

    layers = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n]
    body, head = sum(layer.weight.numel() for layer in layers), model.get_output_embeddings().weight.numel()
    adapter = sum(RANK * (layer.in_features + layer.out_features) for layer in layers)
    return 4.0 * body + 4.0 * head * SCORED + 6.0 * adapter
