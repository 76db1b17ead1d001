"""Training speed and memory against TRL on models of other families: `python -m benchmarks.families [--json]`.

As `train_speed`: QLoRA r16 on all linear layers, batch 8, rows of python-docs, sides that take turns, each a process.
Speed does not depend on what the weights are, so they are random, in the shapes of published models and with the
built-in model's tokenizer: the head is as wide as theirs, and only words of that tokenizer occur. About 40 minutes;
`--shape` chooses.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, run
from benchmarks.sides import Side, take_turns
from benchmarks.train_speed import SCORED
from tunelab.machine import libraries

SIDES = ("trl-tuned", "ours")
RANK = 16


@dataclass(frozen=True)
class Shape:
    """What a published model's configuration says of its sizes."""

    kind: str  # transformers' prefix of its classes
    steps: int  # in a turn
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
    "gemma-3-270m": Shape(
        "Gemma3Text",
        3,
        {"vocab_size": 262144, "tie_word_embeddings": True, "max_position_embeddings": 32768, "hidden_size": 640,
         "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1,
         "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 512},
    ),
}  # fmt: skip


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    for name in options.shape or SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            flops = save(SHAPES[name], Path(folder))
            yield from _compared(name, folder, flops, options.rounds)


def save(shape: Shape, folder: Path) -> float:
    """Saves a model of random weights; what training needs per token at least, in operations (as `train_speed`)."""
    import torch
    import transformers

    from tunelab import ModelSpec
    from tunelab.model.load import load_tokenizer

    tokenizer = load_tokenizer(ModelSpec(repo_id="starter"))
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = getattr(transformers, f"{shape.kind}Config")(**special, **shape.settings)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    layers = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n]
    body, head = sum(layer.weight.numel() for layer in layers), model.get_output_embeddings().weight.numel()
    adapter = sum(RANK * (layer.in_features + layer.out_features) for layer in layers)
    return 4 * body + 4 * head * SCORED + 6 * adapter


def _compared(name: str, folder: str, flops: float, rounds: int) -> Iterator[Figure]:
    turns = take_turns([Side(side, model=folder) for side in SIDES], SHAPES[name].steps, rounds, "bfloat16")
    for side in SIDES:
        yield Figure.of(f"share_of_limit:{name}:{side}", "of peak", turns.shares(side, flops))
    yield from (Figure.of(f"tokens_per_second:{name}:{side}", "tokens/s", turns.speeds(side)) for side in SIDES)
    yield Figure.of(f"speed_over_trl_tuned:{name}", "x", turns.ratios("trl-tuned"))
    yield from turns.costs(f":{name}")


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("--shape", nargs="+", choices=sorted(SHAPES), help="default: all, one after the other")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each side")
    run(measure, parser)


if __name__ == "__main__":
    main()
