"""Is a starter with fewer layers worth having? `python -m benchmarks.pruned [--json]` (about half an hour).

The layers that change least of what goes through them are taken out (Men et al. 2024, "ShortGPT", section 3.1), and the
rest learns the whole model's distribution of every next token (Hinton et al. 2015) on python-docs, the general set and
the whole model's own answers to it, for `--minutes`. Both then learn support tickets: LoRA, the same rows; the whole
model as many steps, and fewer of them, so that it takes as long as the shorter model.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, run
from tunelab.machine import libraries

libraries.prepare()

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from tunelab import (  # noqa: E402
    DataSpec,
    LoRA,
    ModelSpec,
    Run,
    RunConfig,
    Stage,
    TrainConfig,
    evaluate,
    finetune,
    models_for,
    read_data,
)
from tunelab.answer.generation import PlainDecoder, answer_many, end_ids  # noqa: E402
from tunelab.data import encode_all  # noqa: E402
from tunelab.data.batches import Batch, collate  # noqa: E402
from tunelab.data.encode import Encoded, encode_prompt  # noqa: E402
from tunelab.model.load import Base, load  # noqa: E402

WHOLE = ModelSpec(repo_id="starter", dtype="bfloat16")
TASK = "support-tickets"
LONGEST, BATCH, RATE = 192, 8, 3e-4  # tokens of a row, rows of a step, learning rate of the healing
CALIBRATION = 32  # rows that tell which layers change least
MEASURED = 96  # rows


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    whole = load(WHOLE)
    training, heldout = _rows(whole, options.answers)
    dropped = _least_changing(whole, training[:CALIBRATION], options.drop)
    with tempfile.TemporaryDirectory() as folder:
        student = _without(whole, dropped)
        yield Figure.once("layers_left", "layers", student.config.num_hidden_layers)
        yield Figure.once("parameters_over_whole", "x", _size(student) / _size(whole.model))
        yield Figure.once("distance:pruned", "nats", _distance(whole, student, heldout))
        steps = _heal(whole, student, training, 60 * options.minutes)
        yield Figure.once("steps_of_healing", "steps", steps)
        yield Figure.once("distance:healed", "nats", _distance(whole, student, heldout))
        student.to(torch.bfloat16).save_pretrained(folder)
        whole.tokenizer.save_pretrained(folder)
        del whole, student
        yield from _knowledge(folder)
        yield from _learned(folder, Path(folder) / "runs", options.steps, options.seeds)


def _size(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _rows(whole: Base, answers: int) -> tuple[list[Encoded], list[Encoded]]:
    """Rows to heal on and others to measure on, in a random order: two built-in sets, and for the first the model's own
    answers to questions of theirs."""
    examples = [row for source in ("python-docs", "general") for row in read_data(DataSpec(source=source)).train]
    chance = random.Random(0)
    chance.shuffle(examples)
    training, heldout = examples[MEASURED:], examples[:MEASURED]
    rows, held = (encode_all(some, whole.tokenizer, LONGEST)[0] for some in (training, heldout))
    own = _own(whole, [encode_prompt(row.asked, whole.tokenizer) for row in training[:answers]])
    rows += [row for row in own if len(row.input_ids) < LONGEST]
    chance.shuffle(rows)
    return rows, held


def _own(whole: Base, prompts: Sequence[list[int]]) -> Iterator[Encoded]:
    ends = end_ids(whole.tokenizer, whole.model)
    decoders = partial(_decoders, whole)
    for indices, columns in answer_many(prompts, decoders, end_ids=ends, max_new_tokens=LONGEST // 2):
        for index, (answer,) in zip(indices, columns, strict=True):
            ids = [*prompts[index], *answer, min(ends)][:LONGEST]
            yield Encoded(ids, [True] * len(ids))


def _decoders(whole: Base, rows: int, capacity: int) -> list[PlainDecoder]:
    return [PlainDecoder(whole.model, nullcontext, rows)]


def _batches(rows: Sequence[Encoded], pad: int) -> Iterator[Batch]:
    for start in range(0, len(rows), BATCH):
        yield collate(list(rows[start : start + BATCH]), pad)


@torch.inference_mode()
def _least_changing(whole: Base, rows: Sequence[Encoded], count: int) -> set[int]:
    """The layers whose output is most like their input, by the mean cosine over tokens; the first and the last stay."""
    likeness = torch.zeros(whole.model.config.num_hidden_layers)
    for batch in _batches(rows, whole.pad_id):
        states = whole.model(batch.input_ids, output_hidden_states=True).hidden_states
        real = _real(batch)
        alike = [F.cosine_similarity(a[real].float(), b[real].float(), dim=-1).sum() for a, b in pairwise(states)]
        likeness += torch.stack(alike)
    inner = range(1, len(likeness) - 1)
    return set(sorted(inner, key=lambda layer: -likeness[layer])[:count])


def _real(batch: Batch) -> torch.Tensor:
    """(B, T): where a token is, and no padding."""
    return torch.arange(batch.input_ids.shape[1]) < batch.lengths[:, None]


def _without(whole: Base, dropped: set[int]) -> Any:
    """A copy of the model without these layers, in fp32."""
    kept = [layer for layer in range(whole.model.config.num_hidden_layers) if layer not in dropped]
    config = copy.deepcopy(whole.model.config)
    config.num_hidden_layers = len(kept)
    student = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    known = student.state_dict()
    for name, value in whole.model.state_dict().items():
        layer = re.search(r"layers\.(\d+)\.", name)
        if layer is None:
            known[name].copy_(value)
        elif int(layer[1]) in kept:
            known[name.replace(layer[0], f"layers.{kept.index(int(layer[1]))}.")].copy_(value)
    return student


def _divergence(whole: Base, student: Any, batch: Batch) -> torch.Tensor:
    """KL(whole ‖ student) of the next token, mean over the batch, in nats."""
    real = _real(batch)
    with torch.no_grad():
        wanted = whole.model(batch.input_ids).logits[real].float().log_softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = student(batch.input_ids).logits
    return F.kl_div(found[real].float().log_softmax(-1), wanted, log_target=True, reduction="batchmean")


@torch.no_grad()
def _distance(whole: Base, student: Any, rows: Sequence[Encoded]) -> float:
    batches = list(_batches(rows, whole.pad_id))
    return sum(float(_divergence(whole, student, batch)) for batch in batches) / len(batches)


def _heal(whole: Base, student: Any, rows: list[Encoded], seconds: float) -> int:
    """Train every weight for so long, with a warm-up and a rate that sinks to 0; the steps that were taken."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.01)
    chance, began, steps = random.Random(1), time.perf_counter(), 0
    while (passed := (time.perf_counter() - began) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (steps + 1) / 20) * (1 + math.cos(math.pi * passed)) / 2
        batch = collate(chance.sample(rows, BATCH), whole.pad_id)
        _divergence(whole, student, batch).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    return steps


def _knowledge(folder: str) -> Iterator[Figure]:
    """What `tunelab models --probe` measures of both."""
    for source in (TASK, "python-docs"):
        for one in models_for(source, also=[folder], probe=True).models:
            is_compared = one.repo_id == WHOLE.repo_id or Path(one.repo_id) == Path(folder)
            if is_compared and one.knows and one.knows.probed_bits_per_byte is not None:
                name = _name(one.repo_id)
                yield Figure.once(f"bits_per_byte:{source}:{name}", "bits", one.knows.bits_per_byte)
                yield Figure.once(f"bits_per_byte_after_probe:{source}:{name}", "bits", one.knows.probed_bits_per_byte)


def _name(repo_id: str) -> str:
    return repo_id if repo_id == WHOLE.repo_id else "pruned"


def _learned(folder: str, root: Path, steps: int, seeds: int) -> Iterator[Figure]:
    """Right answers after a run on each, and the time of a step; then the whole model for as long as the other one."""
    found: dict[str, list[Run]] = {"pruned": [], WHOLE.repo_id: []}
    for seed in range(seeds):
        for name, repo_id in (("pruned", folder), (WHOLE.repo_id, WHOLE.repo_id)):
            found[name].append(_trained(repo_id, root, steps, seed))
    seconds = {name: [_step_seconds(run) for run in runs] for name, runs in found.items()}
    ratios = [ours / theirs for ours, theirs in zip(seconds["pruned"], seconds[WHOLE.repo_id], strict=True)]
    yield Figure.of("step_time_over_whole", "x", ratios)
    fewer = round(steps * statistics.median(ratios))
    labelled = {f"{name}, {steps} steps": runs for name, runs in found.items()}
    labelled[f"{WHOLE.repo_id}, {fewer} steps"] = [_trained(WHOLE.repo_id, root, fewer, seed) for seed in range(seeds)]
    for label, runs in labelled.items():
        yield from _right(label, runs)


def _trained(repo_id: str, root: Path, steps: int, seed: int) -> Run:
    training = TrainConfig(steps=steps, batch_size=8, eval_every=steps, forgetting_rows=0, seed=seed)
    stage = Stage(data=DataSpec(source=TASK), training=training)
    model = ModelSpec(repo_id=repo_id, quantization="nf4")
    return finetune(RunConfig(model=model, technique=LoRA(r=16), stages=(stage,)), root=root)


def _step_seconds(run: Run) -> float:
    return statistics.median(step.seconds for step in run.progress().steps[5:])


def _right(label: str, runs: Sequence[Run]) -> Iterator[Figure]:
    reports = [evaluate(run, rows=MEASURED, max_new_tokens=64) for run in runs]
    for metric in reports[0].metrics:
        yield Figure.of(f"{metric}:{label}", "%", [report.metrics[metric].tuned for report in reports])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruned", description=__doc__)
    parser.add_argument("--drop", type=int, default=10, help="layers to take out, of 30")
    parser.add_argument("--minutes", type=float, default=12, help="of healing")
    parser.add_argument("--answers", type=int, default=200, help="questions that the whole model answers for it")
    parser.add_argument("--steps", type=int, default=60, help="of the runs that are compared")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    run(measure, parser)


if __name__ == "__main__":
    main()
