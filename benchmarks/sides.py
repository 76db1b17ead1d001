"""The sides of a training comparison, each a process that trains on command: `python -m benchmarks.sides NAME`.

    parent → "steps N"     child → {"tokens": …, "computed": …, "seconds": …}
                                    (real tokens, padding excluded; positions that were really computed)
    parent → "heldout"     child → {"loss": …}                        (plain loss, the same rows for everybody)
    parent → "memory"      child → {"floor": …, "peak": …}            (bytes: after the imports; at most. On a GPU, of
                                                                       its memory: 0, and what tensors held at most)

So the sides can take turns on one machine, and none pays for another's imports. `ours` is the project's trainer,
`trl-default` and `trl-tuned` are TRL's (`trl_side.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import trl_side
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
        device: str = "cpu",
        words: int = 0,
        seed: int = 0,
        rows: int = TRAIN_ROWS,
        settings: dict[str, dict[str, Any]] | None = None,
        called: str | None = None,
    ) -> None:
        """`settings`: fields of ours that differ from the defaults, for "model", "technique" (its kind is one) and
        "training". `called`: its name among the sides, where one stands there twice."""
        command = [sys.executable, "-m", "benchmarks.sides", name, "--model", model]
        command += ["--quantization", quantization, "--dtype", dtype, "--device", device]
        command += ["--words", str(words), "--seed", str(seed), "--rows", str(rows)]
        command += ["--settings", json.dumps(settings or {})]
        self.name, self.device = called or name, device
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # the child's for as long as it lives
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=one_card(os.environ)
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


def one_card(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a process sees one GPU, the first of those it would see: TRL trains on all it sees."""
    first = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return {**environment, "CUDA_VISIBLE_DEVICES": first}


@dataclass(frozen=True)
class Turns:
    """What sides that took turns did."""

    blocks: dict[str, list[dict[str, float]]]  # by side, the answer of each turn
    peaks: list[float]  # operations per second of the best matrix product, beside each round; none on a GPU
    memory: dict[str, dict[str, float]]
    losses: dict[str, float]  # held out
    first: dict[str, dict[str, float]]  # of each side, the answer to its very first steps
    steps: dict[str, int]  # that each has made in all

    def speeds(self, side: str, counted: str = "tokens") -> list[float]:
        """Tokens per second of each turn; `counted`: or what else a block counts."""
        return [block[counted] / block["seconds"] for block in self.blocks[side]]

    def ratios(self, side: str, ours: str = "ours") -> list[float]:
        """The speed of ours over that of another side, turn by turn."""
        return [one / theirs for one, theirs in zip(self.speeds(ours), self.speeds(side), strict=True)]

    def shares(self, side: str, flops_per_token: float, counted: str = "tokens") -> list[float]:
        """The share of the machine's limit that each turn made use of."""
        return [
            speed * flops_per_token / peak for speed, peak in zip(self.speeds(side, counted), self.peaks, strict=True)
        ]

    def costs(self, label: str, memory: str = "gigabytes_above_floor") -> Iterator[Figure]:
        """Memory and held-out loss of each side; `memory`: what the figures of memory are called."""
        above = {side: (held["peak"] - held["floor"]) / 1e9 for side, held in self.memory.items()}
        yield from (Figure.once(f"{memory}{label}:{side}", "GB", above[side]) for side in above)
        for side in above:
            if side.startswith("ours"):
                name = f"memory_over_trl_tuned{label}{side.removeprefix('ours')}"
                yield Figure.once(name, "x", above[side] / above["trl-tuned"])
        yield from (Figure.once(f"heldout_loss{label}:{side}", "nats", loss) for side, loss in self.losses.items())
        if len(set(self.steps.values())) > 1:
            yield from (Figure.once(f"steps{label}:{side}", "steps", float(made)) for side, made in self.steps.items())


def take_turns(
    sides: Sequence[Side],
    steps: int | Mapping[str, int],
    rounds: int,
    dtype: str,
    first: Mapping[str, int] | None = None,
) -> Turns:
    """So many blocks of steps of each, one after the other; the sides are ended then. `steps`: or those of each side;
    `first`: how many each makes before (one), for they make what later ones reuse."""
    import torch

    blocks: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    peaks: list[float] = []
    try:
        before = {side.name: first[side.name] if first else 1 for side in sides}
        in_turn = {side.name: steps if isinstance(steps, int) else steps[side.name] for side in sides}
        begun = {side.name: side.ask(f"steps {before[side.name]}") for side in sides}
        for _ in range(rounds):
            for side in sides:
                blocks[side.name].append(side.ask(f"steps {in_turn[side.name]}"))
            if all(side.device == "cpu" for side in sides):
                peaks.append(hardware.gemm_gflops(getattr(torch, dtype), budget_seconds=0.3) * 1e9)
        memory = {side.name: side.ask("memory") for side in sides}
        losses = {side.name: side.ask("heldout")["loss"] for side in sides}
    finally:
        for side in sides:
            side.end()
    made = {name: count + rounds * in_turn[name] for name, count in before.items()}
    return Turns(blocks, peaks, memory, losses, begun, made)


# ---- the child


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sides")
    parser.add_argument("name", choices=SIDES)
    parser.add_argument("--model", default="starter", help="the starter, or a folder")
    parser.add_argument("--quantization", default="nf4", choices=("nf4", "none"))
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--words", type=int, default=0, help="lengthen each answer to this many words; 0: as it is")
    parser.add_argument("--seed", type=int, default=0, help="seed of the start and of the order of the rows")
    parser.add_argument("--rows", type=int, default=TRAIN_ROWS, help="training rows")
    parser.add_argument("--settings", type=json.loads, default={}, help="of ours, as JSON")
    options = parser.parse_args()
    if options.name == "ours":
        from tunelab.machine import libraries

        libraries.prepare()
    steps = _ours(options) if options.name == "ours" else trl_side.steps(options, _rows, _heldout, BATCH)
    floor, heldout = next(steps)
    for line in sys.stdin:
        word, *numbers = line.split()
        if word == "steps":
            started = time.perf_counter()
            counts = [next(steps) for _ in range(int(numbers[0]))]
            tokens, computed = (sum(column) for column in zip(*counts, strict=True))
            _finish(options.device)
            _answer(tokens=tokens, computed=computed, seconds=time.perf_counter() - started)
        elif word == "heldout":
            _answer(loss=heldout())
        elif word == "memory":
            gpu = options.device == "cuda"
            _answer(floor=floor, peak=hardware.gpu_peak_memory_bytes() if gpu else hardware.peak_memory_bytes())


def _answer(**values: float) -> None:
    print(json.dumps(values), flush=True)


def _finish(device: str) -> None:
    """Wait for what a GPU still computes."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


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
            total = sum(float(PlainLoss(model)(batch.to(model.device))) for batch in batches)
        model.train()
        return total / sum(batch.scored_tokens for batch in batches)

    return measure


def _ours(options: argparse.Namespace) -> Iterator[Any]:
    import torch

    from tunelab import ModelSpec, TrainConfig, load
    from tunelab.data.batches import collate
    from tunelab.data.encode import encode_all
    from tunelab.fast import choose_loss
    from tunelab.fast.llama import layout_of
    from tunelab.run.events import StepDone
    from tunelab.techniques import TECHNIQUES
    from tunelab.train.loop import StageData, Trainer

    floor = hardware.resident_bytes() if options.device == "cpu" else 0
    train, held = _rows(options.words, options.rows)
    model_settings, technique_settings, training_settings = (
        options.settings.get(part, {}) for part in ("model", "technique", "training")
    )
    base = load(
        ModelSpec(
            repo_id=options.model,
            quantization=options.quantization,
            dtype=options.dtype,
            device=options.device,
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
            batch = collate([rows[row] for row in trainer.order.step(index)], base.tokenizer.pad_token_id)
            index += 1
            yield event.tokens, layout_of(batch).tokens


if __name__ == "__main__":
    main()
