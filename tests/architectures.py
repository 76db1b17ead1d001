"""Tiny random models of many architectures, two layers and 64 wide, with the byte-level tokenizer of `helpers.py`: what
a test of one room needs of a family. (What whole families promise, templates and stops included, is tested elsewhere.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers import VOCABULARY, byte_tokenizer

POSITIONS = 256
INITIALIZER_RANGE = 0.2
SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}  # fmt: skip
GROUPED = SIZES | {"num_key_value_heads": 2}
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
FALCON = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LATENT = {
    "q_lora_rank": 32, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 24,
    "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
    "moe_intermediate_size": 64,
}  # fmt: skip
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", GROUPED),
    "mistral": ("Mistral", GROUPED | {"sliding_window": 32}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", GROUPED | {"head_dim": 16}),
    "gemma2": ("Gemma2", GROUPED | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 32}),
    "gemma3": (
        "Gemma3Text",
        GROUPED | {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 32,
                   "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "phi3": ("Phi3", GROUPED),
    "olmo2": ("Olmo2", GROUPED),
    "gpt2": ("GPT2", GPT | {"n_positions": POSITIONS}),
    "gpt_bigcode": ("GPTBigCode", GPT | {"n_positions": POSITIONS}),
    "gptj": ("GPTJ", GPT | {"n_positions": POSITIONS, "rotary_dim": 8}),
    "opt": (
        "OPT",
        {"hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": POSITIONS, "word_embed_proj_dim": 64},
    ),
    "falcon": ("Falcon", FALCON | {"multi_query": True, "max_position_embeddings": POSITIONS}),
    "bloom": ("Bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "gpt_neox": ("GPTNeoX", SIZES),
    "mpt": ("Mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": POSITIONS}),
    "mixtral": ("Mixtral", GROUPED | {"num_local_experts": 4}),
    "qwen2_moe": ("Qwen2Moe", GROUPED | EXPERTS | {"shared_expert_intermediate_size": 128}),
    "deepseek_v3": ("DeepseekV3", SIZES | {"num_key_value_heads": 4} | LATENT),
    "lfm2": ("Lfm2", GROUPED | {"layer_types": ["conv", "full_attention"]}),
    "mamba": ("Mamba", {"hidden_size": 64, "num_hidden_layers": 2}),
}  # fmt: skip


def config_of(name: str, **changes: Any) -> Any:
    """The configuration of a tiny model."""
    import transformers

    kind, settings = SETTINGS[name]
    special = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    return getattr(transformers, f"{kind}Config")(**special | settings | changes)


def tiny_model(name: str, folder: Path, seed: int = 0, **changes: Any) -> str:
    """The folder, with a random model in fp32 and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config_of(name, **changes), dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.ndim > 1:  # wide enough that attention decides what comes next
            torch.nn.init.normal_(parameter, std=INITIALIZER_RANGE)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)
