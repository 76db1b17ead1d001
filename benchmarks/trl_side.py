"""TRL's SFTTrainer as a side of a comparison (`sides.py`), let through one step at a time.

`trl-default` is as its documentation shows it: autocast in half precision, gradient checkpointing, random batches.
`trl-tuned` is the fairest we could make it. On a CPU: weights in the target dtype without autocast, no checkpointing,
batches grouped by length, eager attention, adapters without the fp32 upcast. On a GPU: the same weights, no
checkpointing, rows packed up to as many tokens as a batch of ours has on average, flash attention and Liger's kernels
where they are installed, and no attention of cuDNN, which plans anew for each length. In fp16, which has to scale its
loss, it keeps autocast and fp32 adapters.
"""

from __future__ import annotations

import argparse
import importlib.util
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.shapes import RANK
from tunelab.machine import hardware

LENGTH = 1024  # of the longest row, in tokens
MANY = 1_000_000  # steps; whoever asks ends the process
EXTRAS = {"liger_kernel": "liger-kernel", "flash_attn": "flash-attn"}  # module -> package, for `trl-tuned` on a GPU


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def steps(options: argparse.Namespace, rows: Any, heldout: Any, batch: int) -> Iterator[Any]:
    """What memory the imports take and a function for the held-out loss, then at each step the real tokens and the
    positions that were computed. `rows(words, count)` and `heldout(model, tokenizer, examples)` are those of `sides`.
    """
    import datasets
    import torch
    import trl
    from transformers import AutoModelForCausalLM

    from tunelab import ModelSpec
    from tunelab.model import attention
    from tunelab.model.load import find, load_tokenizer
    from tunelab.model.quantization import keep_trainable

    if options.name == "trl-tuned":
        attention.prepare(torch.device(options.device))
    floor = hardware.resident_bytes() if options.device == "cpu" else 0
    torch.set_num_threads(hardware.physical_cores())
    spec = ModelSpec(repo_id=options.model, quantization=options.quantization)
    model: Any = AutoModelForCausalLM.from_pretrained(find(spec), local_files_only=True, **loading(options, spec))
    keep_trainable(model)
    tokenizer: Any = load_tokenizer(spec)
    train, held = rows(options.words, options.rows)
    given = [
        {
            "prompt": [{"role": m.role, "content": m.content} for m in row.asked],
            "completion": [{"role": "assistant", "content": row.answer}],
        }
        for row in train
    ]
    model, adapters = adapted(options, model)
    lengths: list[int] = []
    if options.device == "cuda":
        lengths = [len(tokenizer.apply_chat_template(row["prompt"] + row["completion"]).input_ids) for row in given]
    config = trl.SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=MANY,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        seed=options.seed,
        **settings(options, lengths, batch),
    )
    trainer, step = gated(
        model=model,
        args=config,
        train_dataset=datasets.Dataset.from_list(given),
        processing_class=tokenizer,
        peft_config=adapters,
    )
    yield floor, heldout(trainer.model, tokenizer, held)
    while True:
        yield step()


def loading(options: argparse.Namespace, spec: Any) -> dict[str, Any]:
    """What the model is loaded with."""
    import torch

    from tunelab.model.quantization import bitsandbytes_config

    dtype = getattr(torch, options.dtype)
    found: dict[str, Any] = {"dtype": dtype}
    if options.device == "cuda" or options.quantization == "nf4":
        found["device_map"] = {"": options.device}
    if options.quantization == "nf4":
        found["quantization_config"] = bitsandbytes_config(spec, dtype)
    if options.name == "trl-tuned" and options.device == "cpu":
        found["attn_implementation"] = "eager"
    elif options.name == "trl-tuned" and installed("flash_attn") and options.dtype != "float32":
        found["attn_implementation"] = "flash_attention_2"
    return found


def adapted(options: argparse.Namespace, model: Any) -> tuple[Any, Any]:
    """The model, and the adapters that the trainer is to put on it; None where they are on it."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=32, target_modules="all-linear")
    if options.name == "trl-default":
        return model, lora
    model.requires_grad_(False)
    return get_peft_model(model, lora, autocast_adapter_dtype=options.dtype == "float16"), None


def settings(options: argparse.Namespace, lengths: list[int], batch: int) -> dict[str, Any]:
    """Fields of `SFTConfig`; `lengths`: of the training rows, in tokens, on a GPU."""
    found: dict[str, Any] = {"per_device_train_batch_size": batch, "max_length": LENGTH}
    if options.device == "cpu":
        found["use_cpu"] = True
    if options.name == "trl-default":
        precision = {"float32": {"bf16": False}, "float16": {"bf16": False, "fp16": True}}
        return found | precision.get(options.dtype, {})
    found |= {"bf16": False, "fp16": options.dtype == "float16", "gradient_checkpointing": False}
    if options.device == "cpu":
        return found | {"train_sampling_strategy": "group_by_length"}
    mean = batch * sum(lengths) / len(lengths)
    packed = -(-int(max(mean, *lengths)) // 64) * 64  # no row is cut
    return found | {
        "packing": True,
        "max_length": packed,
        "per_device_train_batch_size": 1,
        "use_liger_kernel": installed("liger_kernel"),
    }


def gated(**given: Any) -> tuple[Any, Callable[[], tuple[int, int]]]:
    """A trainer, and a function that lets it make one step and says how many real tokens it had, and positions."""
    import transformers
    import trl

    go: queue.SimpleQueue[None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    counted: list[tuple[int, int]] = []

    class Gate(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            go.get()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            done.put(counted.pop())

    class Counting(trl.SFTTrainer):
        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            positions = inputs["input_ids"].numel()
            mask = inputs.get("attention_mask")  # packed rows have none, and no padding
            counted.append((positions if mask is None else int(mask.sum()), positions))
            return super().compute_loss(model, inputs, *rest, **more)

    trainer = Counting(callbacks=[Gate()], **given)

    def work() -> None:
        try:
            trainer.train()
        except BaseException as error:
            done.put(error)

    worker = threading.Thread(target=work, daemon=True)

    def step() -> tuple[int, int]:
        if not worker.is_alive():
            worker.start()
        go.put(None)
        counts = done.get()
        if isinstance(counts, BaseException):
            raise counts
        return counts

    return trainer, step
