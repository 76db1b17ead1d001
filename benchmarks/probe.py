"""General ability of the built-in model, by our scorer and by a plain one: `python -m benchmarks.probe [--file …]`.

The built-in questions, and files in HellaSwag's columns. The plain scorer is what anybody would write first: one ending
at a time through transformers' own forward, in the same precision.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.report import Figure, run
from tunelab.machine import libraries

libraries.prepare()

import torch  # noqa: E402

from tunelab import LoRA, ModelSpec, load  # noqa: E402
from tunelab.fast import choose_loss  # noqa: E402
from tunelab.measure.probe.choices import Answered, score_choices  # noqa: E402
from tunelab.measure.probe.read import Probe, Question, read_probe  # noqa: E402


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    base = load(ModelSpec(repo_id=options.model))
    loss = choose_loss(base.model, LoRA())
    for source in (None, *options.file):
        probe = read_probe(source)
        probe = probe.first(options.rows) if options.rows else probe
        started = time.perf_counter()
        ours = list(score_choices(probe, loss, base).answers)
        yield from _figures(probe, "ours", ours, time.perf_counter() - started)
        started = time.perf_counter()
        plain = [plain_answer(one, base.model, base.tokenizer) for one in probe.questions]
        yield from _figures(probe, "plain", plain, time.perf_counter() - started)
        others = sum(a.chosen != b.chosen for a, b in zip(ours, plain, strict=True))
        yield Figure.once(f"{_short(probe)}:chosen otherwise", "questions", others)


@torch.inference_mode()
def plain_answer(question: Question, model: Any, tokenizer: Any) -> Answered:
    """log p of each ending after the question's text, both without outer white space: the tokens behind as many as the
    text alone has."""
    text, endings = question.context.strip(), [ending.strip() for ending in question.choices]
    context = tokenizer(text)["input_ids"]
    values = []
    for ending in endings:
        ids = tokenizer(f"{text} {ending}")["input_ids"]
        log_p = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().log_softmax(-1)
        values.append(sum(float(log_p[place - 1, ids[place]]) for place in range(len(context), len(ids))))
    lengths = tuple(len(ending.encode()) for ending in endings)
    return Answered(tuple(values), lengths, question.right)


def _figures(probe: Probe, who: str, answers: list[Answered], seconds: float) -> Iterator[Figure]:
    by_category: dict[str, list[bool]] = {}
    for question, answer in zip(probe.questions, answers, strict=True):
        by_category.setdefault(question.category, []).append(answer.is_right)
    everything = [right for rights in by_category.values() for right in rights]
    yield _accuracy(f"{_short(probe)}:{who}", everything)
    if len(by_category) > 1 and who == "ours":
        for category, rights in by_category.items():
            yield _accuracy(f"{_short(probe)}:{category}", rights)
    yield Figure.once(f"{_short(probe)}:{who}, time", "s", seconds)


def _accuracy(name: str, rights: list[bool]) -> Figure:
    value = 100 * sum(rights) / len(rights)
    return Figure(name, value, "% right", value, value, len(rights))


def _short(probe: Probe) -> str:
    return probe.name.removeprefix("the ").removesuffix(".jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe", description=__doc__)
    parser.add_argument("--model", default="starter", help="a model's Hub id or folder (default: the built-in one)")
    parser.add_argument("--file", nargs="+", default=[], help="questions in HellaSwag's columns: ctx, endings, label")
    parser.add_argument("--rows", type=int, default=0, help="questions of each, spread evenly; 0: all")
    run(measure, parser)


if __name__ == "__main__":
    main()
