"""Training and answering on a CUDA GPU: `python -m benchmarks.gpu [--json]` (a few minutes).

Each workload is a run in a worker's process: 20 steps of 8 rows of python-docs, once on the fast path and once on the
model's own forward. Measured are useful tokens per second (the first five steps left out), the most GPU memory held,
and both over what was forecast. Then one prompt is answered by base and tuned in one batch, in turns with
`transformers.generate` and PEFT. Speed does not depend on what the weights are: `--random` makes a Llama of 1.2 billion
random ones, with the tokenizer of the model named (of at most 49,152 words).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.generation import PROMPT
from benchmarks.report import Figure, needs_gpu, run
from benchmarks.shapes import Shape, save
from tunelab import (
    IA3,
    BottleneckAdapter,
    DataSpec,
    FullFineTuning,
    LoRA,
    ModelSpec,
    PrefixTuning,
    PromptTuning,
    Run,
    RunConfig,
    Stage,
    TrainConfig,
)
from tunelab.machine import libraries
from tunelab.run.events import Finished

STEPS, SKIPPED, BATCH, NEW_TOKENS = 20, 5, 8, 64
# 1.2 billion weights, with a head for the words of the built-in model alone
RANDOM = Shape(
    "Llama",
    0,
    {"vocab_size": 49152, "tie_word_embeddings": True, "max_position_embeddings": 8192, "hidden_size": 2048,
     "intermediate_size": 8192, "num_hidden_layers": 20, "num_attention_heads": 32, "num_key_value_heads": 8},
)  # fmt: skip
# technique, settings of the model, settings of the training
WORKLOADS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "qlora": (LoRA(), {"quantization": "nf4"}, {}),
    "qlora_unpacked": (LoRA(), {"quantization": "nf4", "keep_dequantized": True}, {}),
    "lora": (LoRA(), {"dtype": "bfloat16"}, {}),
    "lora_fp16": (LoRA(), {"dtype": "float16"}, {}),
    "lora_int8": (LoRA(), {"quantization": "int8"}, {}),
    "qdora": (LoRA(use_dora=True), {"quantization": "nf4"}, {}),
    "prefix": (PrefixTuning(), {}, {}),
    "prompt": (PromptTuning(), {}, {}),
    "bottleneck": (BottleneckAdapter(), {}, {}),
    "ia3": (IA3(), {}, {}),
    "full": (FullFineTuning(), {}, {}),
    "full_adamw_8bit": (FullFineTuning(), {}, {"optimizer": "adamw_8bit"}),
    "full_paged_adamw_32bit": (FullFineTuning(), {}, {"optimizer": "paged_adamw_32bit"}),
    "full_paged_adamw_8bit": (FullFineTuning(), {}, {"optimizer": "paged_adamw_8bit"}),
}


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    needs_gpu("every figure of this benchmark is about one")
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if options.random:
            save(RANDOM, Path(folder) / "random", "cuda", model)
            model = str(Path(folder) / "random")
        for name in options.workload or WORKLOADS:
            yield from _trained(name, model)
        yield from _answered(model, options.rounds)


def _trained(name: str, model: str) -> Iterator[Figure]:
    rates: dict[bool, float] = {}
    for fast in (True, False):
        # checkpoints of every weight are large, so a run goes before the next one comes
        with tempfile.TemporaryDirectory() as root:
            yield from _one(name, model, fast, root, rates)
    if len(rates) == 2:
        yield Figure.once(f"speed_over_plain:{name}", "x", rates[True] / rates[False])


def _one(name: str, model: str, fast: bool, root: str, rates: dict[bool, float]) -> Iterator[Figure]:
    technique, settings, more = WORKLOADS[name]
    training = TrainConfig(steps=STEPS, batch_size=BATCH, eval_every=STEPS, fast=fast, **more)
    made = Run.create(
        RunConfig(
            model=ModelSpec(repo_id=model, device="cuda", **settings),
            technique=technique,
            stages=(Stage(data=DataSpec(source="python-docs", heldout=32), training=training),),
        ),
        root,
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tunelab.worker", str(made.path)], check=False)
    total = time.perf_counter() - began
    progress = made.progress()
    started, ending = progress.started, progress.ending
    if started is None or not isinstance(ending, Finished):
        print(f"{name}, fast={fast}: {progress.message}", file=sys.stderr)
        return
    steps = progress.steps[SKIPPED:]
    rates[fast] = sum(step.tokens for step in steps) / sum(step.seconds for step in steps)
    label, peak = name if fast else f"{name}:plain", ending.gpu_peak_memory_bytes
    yield Figure.once(f"tokens_per_second:{label}", "tokens/s", rates[fast])
    yield Figure.once(f"gigabytes:{label}", "GB", peak / 1e9)
    yield Figure.once(f"forecast_over_measured:{label}", "x", started.forecast_bytes / peak)
    yield Figure.once(f"total_over_measured:{label}", "x", started.forecast_seconds / total)
    yield Figure.once(f"heldout_loss:{label}", "nats", ending.heldout_loss or float("nan"))


def _answered(model: str, rounds: int) -> Iterator[Figure]:
    import torch
    from peft import PeftModel

    from tunelab import Comparer, load
    from tunelab.data import Message, encode_prompt

    with tempfile.TemporaryDirectory() as root:
        config = RunConfig(
            model=ModelSpec(repo_id=model, device="cuda"),
            technique=LoRA(),
            stages=(Stage(data=DataSpec(source="python-docs", heldout=8), training=TrainConfig(steps=2)),),
        )
        made = Run.create(config, root)
        subprocess.run([sys.executable, "-m", "tunelab.worker", str(made.path)], check=True)
        base = load(made.base_spec)
        tuned = PeftModel.from_pretrained(base.model, made.adapter_path).eval()
        given = torch.tensor([encode_prompt([Message("user", PROMPT)], base.tokenizer)], device="cuda")
        length = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
        ours, theirs = [], []
        with Comparer() as comparer:
            for turn in range(rounds + 1):  # the first one makes what later ones reuse
                began = time.perf_counter()
                (answer,) = comparer.answers([made], [[Message("user", PROMPT)]], max_new_tokens=NEW_TOKENS)
                seconds = time.perf_counter() - began
                tokens = sum(len(base.tokenizer(text, add_special_tokens=False).input_ids) for text in answer)
                began = time.perf_counter()
                tuned.generate(input_ids=given, attention_mask=torch.ones_like(given), **length)
                torch.cuda.synchronize()
                if turn:
                    ours.append(tokens / seconds)
                    theirs.append(NEW_TOKENS / (time.perf_counter() - began))
        yield Figure.of("tokens_per_second:base and tuned", "tokens/s", ours)
        yield Figure.of("tokens_per_second:transformers+peft", "tokens/s", theirs)


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--model", default="starter", help="a model's name or folder")
    parser.add_argument("--random", action="store_true", help="random weights; of the model only its tokenizer is used")
    parser.add_argument("--workload", nargs="+", choices=sorted(WORKLOADS), help="default: all of them")
    parser.add_argument("--rounds", type=int, default=5, help="turns of answering")
    run(measure, parser)


if __name__ == "__main__":
    main()
