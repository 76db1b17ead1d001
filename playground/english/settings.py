"""Names of the settings, and what is wrong with a number."""

LABELS = {
    "repo_id": "Model",
    "quantization": "Quantisation of the base",
    "r": "LoRA rank",
    "steps": "Steps",
    "batch_size": "Batch size",
    "learning_rate": "Learning rate",
    "max_length": "Longest row (tokens)",
    "lora_alpha": "LoRA alpha",
    "lora_dropout": "LoRA dropout",
    "use_rslora": "Rank-stabilised scale (rsLoRA)",
    "use_dora": "Train row lengths as well (DoRA)",
    "layers": "Layers",
    "num_virtual_tokens": "Virtual tokens",
    "size": "Bottleneck size",
    "kl_weight": "Pull towards the base (KL)",
    "neftune_alpha": "Noise on embeddings (NEFTune)",
    "replay_share": "Replay of general examples",
}
EMPTY = "{label} is empty. Write a number, e.g. {default}."
