"""The sides of a training comparison, each a process that trains on command: `python -m benchmarks.sides NAME`.

    parent → "steps N"     child → {"tokens": …, "computed": …, "seconds": …}
                                    (real tokens, padding excluded; positions that were really computed)
    parent → "heldout"     child → {"loss": …}                        (plain loss, the same rows for everybody)
    parent → "memory"      child → {"floor": …, "peak": …}            (bytes: after the imports; at most)

So the sides can take turns on one machine, and none pays for another's imports. `ours` is the project's trainer.
`trl-default` is TRL's SFTTrainer as its documentation shows it: bf16 autocast, gradient checkpointing, random batches.
`trl-tuned` is the fairest we could make it: weights in the target dtype without autocast, no checkpointing, batches
grouped by length, eager attention, adapters without the fp32 upcast.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report import Figure
from tunelab.machine import hardware

SIDES = ("ours", "trl-default", "trl-tuned")
TRAIN_ROWS, HELDOUT_ROWS, BATCH = 1000, 64, 8
MANY = 1_000_000  # steps; the parent ends the process when it has seen enough


class Side:
    """A child process and its protocol, as the parent sees it."""

    def __init__(
        self,
        name: str,
        *,
        model: str = "starter",
        quantization: str = "nf4",
        dtype: str = "bfloat16",
        words: int = 0,
        seed: int = 0,
        rows: int = TRAIN_ROWS,
        settings: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """`settings`: fields of ours that differ from the defaults, for "model", "technique" (its kind is one) and
        "training"."""
        command = [sys.executable, "-m", "benchmarks.sides", name, "--model", model]
        command += ["--quantization", quantization, "--dtype", dtype]
        command += ["--words", str(words), "--seed", str(seed), "--rows", str(rows)]
        command += ["--settings", json.dumps(settings or {})]
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # the child's for as long as it lives
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )

    def ask(self, question: str) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        self.log.seek(0)
        raise RuntimeError(f"{self.name} ended:\n{self.log.read()[-3000:]}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Turns:
    """What sides that took turns did."""

    blocks: dict[str, list[dict[str, float]]]  # by side, the answer of each turn
    peaks: list[float]  # operations per second of the best matrix product, beside each round
    memory: dict[str, dict[str, float]]
    losses: dict[str, float]  # held out

    def speeds(self, side: str, counted: str = "tokens") -> list[float]:
        """Tokens per second of each turn; `counted`: or what else a block counts."""
        return [block[counted] / block["seconds"] for block in self.blocks[side]]

    def ratios(self, side: str) -> list[float]:
        """The speed of ours over that of another side, turn by turn."""
        return [ours / theirs for ours, theirs in zip(self.speeds("ours"), self.speeds(side), strict=True)]

    def shares(self, side: str, flops_per_token: float, counted: str = "tokens") -> list[float]:
        """The share of the machine's limit that each turn made use of."""
        return [
            speed * flops_per_token / peak for speed, peak in zip(self.speeds(side, counted), self.peaks, strict=True)
        ]

    def costs(self, label: str) -> Iterator[Figure]:
        """Memory and held-out loss of each side."""
        above = {side: (held["peak"] - held["floor"]) / 1e9 for side, held in self.memory.items()}
        yield from (Figure.once(f"gigabytes_above_floor{label}:{side}", "GB", above[side]) for side in above)
        yield Figure.once(f"memory_over_trl_tuned{label}", "x", above["ours"] / above["trl-tuned"])
        yield from (Figure.once(f"heldout_loss{label}:{side}", "nats", loss) for side, loss in self.losses.items())


def take_turns(sides: Sequence[Side], steps: int, rounds: int, dtype: str) -> Turns:
    """So many blocks of steps of each, one after the other; the sides are ended then."""
    import torch

    blocks: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    peaks: list[float] = []
    try:
        for side in sides:
            side.ask("steps 1")  # the first step makes what later ones reuse
        for _ in range(rounds):
            for side in sides:
                blocks[side.name].append(side.ask(f"steps {steps}"))
            peaks.append(hardware.gemm_gflops(getattr(torch, dtype), budget_seconds=0.3) * 1e9)
        memory = {side.name: side.ask("memory") for side in sides}
        losses = {side.name: side.ask("heldout")["loss"] for side in sides}
    finally:
        for side in sides:
            side.end()
    return Turns(blocks, peaks, memory, losses)


# ---- the child


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sides")
    parser.add_argument("name", choices=SIDES)
    parser.add_argument("--model", default="starter", help="the starter, or a folder")
    parser.add_argument("--quantization", default="nf4", choices=("nf4", "none"))
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--words", type=int, default=0, help="lengthen each answer to this many words; 0: as it is")
    parser.add_argument("--seed", type=int, default=0, help="seed of the start and of the order of the rows")
    parser.add_argument("--rows", type=int, default=TRAIN_ROWS, help="training rows")
    parser.add_argument("--settings", type=json.loads, default={}, help="of ours, as JSON")
    options = parser.parse_args()
    if options.name == "ours":
        from tunelab.machine import libraries

        libraries.prepare()
    steps = _ours(options) if options.name == "ours" else _trl(options)
    floor, heldout = next(steps)
    for line in sys.stdin:
        word, *numbers = line.split()
        if word == "steps":
            started = time.perf_counter()
            counts = [next(steps) for _ in range(int(numbers[0]))]
            tokens, computed = (sum(column) for column in zip(*counts, strict=True))
            _answer(tokens=tokens, computed=computed, seconds=time.perf_counter() - started)
        elif word == "heldout":
            _answer(loss=heldout())
        elif word == "memory":
            _answer(floor=floor, peak=hardware.peak_memory_bytes())


def _answer(**values: float) -> None:
    print(json.dumps(values), flush=True)


def _rows(words: int, count: int) -> tuple[list[Any], list[Any]]:
    """Training and held-out examples of python-docs, as they are (0) or with answers of so many words."""
    from tunelab import DataSpec, read_data

    if words:
        return lengthened(words, count)
    split = read_data(DataSpec(source="python-docs", heldout=200, limit=count))
    return list(split.train), list(split.heldout[:HELDOUT_ROWS])


def lengthened(words: int, count: int) -> tuple[list[Any], list[Any]]:
    """So many training examples, and held-out ones, whose answers are several of python-docs: `words` words each."""
    from dataclasses import replace

    from tunelab import DataSpec, read_data
    from tunelab.data import Message

    split = read_data(DataSpec(source="python-docs", heldout=200, limit=TRAIN_ROWS))

    def longer(index: int, rows: Sequence[Any]) -> Any:
        text: list[str] = []
        while len(text) < words:
            text += rows[index % len(rows)].answer.split()
            index += 1
        asked, answer = rows[index % len(rows)].asked, Message("assistant", " ".join(text[:words]))
        return replace(rows[index % len(rows)], messages=(*asked, answer))

    train = [longer(i * 7, split.train) for i in range(count)]
    return train, [longer(i * 7, split.heldout) for i in range(min(count, HELDOUT_ROWS))]


def _heldout(model: Any, tokenizer: Any, examples: list[Any]) -> Callable[[], float]:
    """A function that measures the mean held-out loss by the plain forward, whichever side trained the model."""

    def measure() -> float:
        import torch

        from tunelab.data.batches import collate
        from tunelab.data.encode import encode_all
        from tunelab.losses import PlainLoss

        rows, _ = encode_all(examples, tokenizer, 1024)
        model.eval()
        with torch.no_grad():
            batches = [collate(rows[i : i + BATCH], tokenizer.pad_token_id) for i in range(0, len(rows), BATCH)]
            total = sum(float(PlainLoss(model)(batch)) for batch in batches)
        model.train()
        return total / sum(batch.scored_tokens for batch in batches)

    return measure


def _ours(options: argparse.Namespace) -> Iterator[Any]:
    import torch

    from tunelab import ModelSpec, TrainConfig, load
    from tunelab.data.encode import encode_all
    from tunelab.fast import choose_loss
    from tunelab.fast.llama import layout_of
    from tunelab.run.events import StepDone
    from tunelab.techniques import TECHNIQUES
    from tunelab.train.loop import StageData, Trainer

    floor = hardware.resident_bytes()
    train, held = _rows(options.words, options.rows)
    model_settings, technique_settings, training_settings = (
        options.settings.get(part, {}) for part in ("model", "technique", "training")
    )
    base = load(
        ModelSpec(
            repo_id=options.model,
            quantization=options.quantization,
            dtype=options.dtype,
            max_length=1024,
            **model_settings,
        )
    )
    rows, _ = encode_all(train, base.tokenizer, 1024)
    torch.manual_seed(options.seed)
    kind = technique_settings.pop("kind", "lora")
    technique = TECHNIQUES[kind](**({"r": 16} if kind == "lora" else {}) | technique_settings)
    model = technique.attach(base, rows)
    config = TrainConfig(
        steps=MANY,
        batch_size=BATCH,
        schedule="constant",
        warmup_steps=0,
        checkpoint_every=MANY,
        seed=options.seed,
        **training_settings,
    )
    data = StageData(rows, [])
    loss = choose_loss(model, technique, config)
    trainer = Trainer(model, loss, data, config, 1e-3, pad_id=base.tokenizer.pad_token_id)
    index = 0
    yield floor, _heldout(model, base.tokenizer, held)
    for event in trainer.train():
        if isinstance(event, StepDone):
            batch = trainer.batch([rows[row] for row in trainer.order.step(index)])
            index += 1
            yield event.tokens, layout_of(batch).tokens


def _trl(options: argparse.Namespace) -> Iterator[Any]:
    """SFTTrainer in a thread of its own, let through one step at a time."""
    import queue
    import threading

    import datasets
    import torch
    import transformers
    import trl
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tunelab import ModelSpec
    from tunelab.model.load import find, load_tokenizer
    from tunelab.model.quantization import bitsandbytes_config, keep_trainable

    floor = hardware.resident_bytes()
    torch.set_num_threads(hardware.physical_cores())
    tuned = options.name == "trl-tuned"
    spec = ModelSpec(repo_id=options.model, quantization=options.quantization)
    dtype = getattr(torch, options.dtype)
    loading: dict[str, Any] = {"dtype": dtype}
    if tuned:
        loading["attn_implementation"] = "eager"
    if options.quantization == "nf4":
        loading |= {"quantization_config": bitsandbytes_config(spec, dtype), "device_map": {"": "cpu"}}
    model: Any = AutoModelForCausalLM.from_pretrained(find(spec), local_files_only=True, **loading)
    keep_trainable(model)
    tokenizer = load_tokenizer(spec)
    train, held = _rows(options.words, options.rows)
    rows = [
        {
            "prompt": [{"role": m.role, "content": m.content} for m in row.asked],
            "completion": [{"role": "assistant", "content": row.answer}],
        }
        for row in train
    ]
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    settings: dict[str, Any] = {}
    if tuned:
        model.requires_grad_(False)
        model = get_peft_model(model, lora, autocast_adapter_dtype=False)
        settings = {"bf16": False, "gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
    elif options.dtype == "float32":
        settings = {"bf16": False}
    config = trl.SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        max_steps=MANY,
        max_length=1024,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        seed=options.seed,
        **settings,
    )
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
            counted.append((int(inputs["attention_mask"].sum()), inputs["input_ids"].numel()))
            return super().compute_loss(model, inputs, *rest, **more)

    trainer = Counting(
        model=model,
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=None if tuned else lora,
        callbacks=[Gate()],
    )
    yield floor, _heldout(trainer.model, tokenizer, held)

    def work() -> None:
        try:
            trainer.train()
        except BaseException as error:
            done.put(error)

    threading.Thread(target=work, daemon=True).start()
    while True:
        go.put(None)
        counts = done.get()
        if isinstance(counts, BaseException):
            raise counts
        yield counts


if __name__ == "__main__":
    main()
