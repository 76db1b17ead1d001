"""The built-in sets: `python -m benchmarks.sets [--train] [--keep] [--json]`. Floors take half a minute;
`--train` tunes the built-in model on the sets that have held-out rows of their own.

`--keep` writes the figures into `lib/tunelab/data/sets/figures.json`, from where the data cards have them; what was
trained before stays there until it is trained again.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple

from benchmarks.report import Figure, run
from tunelab.data.builtin import BUILTIN, FIGURES, BuiltinSet
from tunelab.data.examples import Message
from tunelab.data.sets.card import Figure as CardFigure
from tunelab.machine import libraries

libraries.prepare()

from tunelab import Comparer, DataSpec, LoRA, ModelSpec, RunConfig, Stage, TrainConfig, finetune  # noqa: E402
from tunelab.measure.builtin_sets import Sides, floors_of, scored, sides_of  # noqa: E402

EXAMPLES = 3
LONGEST_ANSWER = 80  # tokens; the longest of the sets has 70


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    kept = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    for name in options.sets or BUILTIN:
        one = BUILTIN[name]
        sides = sides_of(one)
        floors = floors_of(name)
        yield from _reported(name, floors, len(sides.heldout_prompts))
        before = kept.get(name, {})
        trained = [CardFigure(*figure) for figure in before.get("trained", [])]
        rows = before.get("answered_rows", 0)
        if options.train and one.heldout:
            rows = options.rows
            trained, minutes = _trained(one, sides, options.steps, rows)
            yield from _reported(name, trained, rows)
            yield Figure.once(f"{name}:minutes of training", "min", minutes)
        kept[name] = {
            "python": platform.python_version(),
            "train_rows": len(sides.prompts),
            "heldout_rows": len(sides.heldout_prompts),
            "floors": [astuple(figure) for figure in floors],
            "trained": [astuple(figure) for figure in trained],
            "answered_rows": rows,
        }
    if options.keep:
        FIGURES.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _reported(name: str, figures: Sequence[CardFigure], rows: int) -> Iterator[Figure]:
    for one in figures:
        yield Figure(f"{name}:{one.answered_by}:{one.metric}", one.value, "%", one.value, one.value, rows)


def _trained(one: BuiltinSet, sides: Sides, steps: int, rows: int) -> tuple[list[CardFigure], float]:
    """What the base and the tuned model reach on the first held-out rows, and the minutes that tuning took."""
    data = DataSpec(source=one.name)  # its own test part is held out
    config = RunConfig(
        name=f"{one.name}, {steps} steps",
        model=ModelSpec(repo_id="starter"),
        technique=LoRA(),
        stages=(Stage(data=data, training=TrainConfig(steps=steps, batch_size=8)),),
    )
    asked, wanted = sides.heldout_prompts[:rows], sides.heldout_answers[:rows]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = finetune(config, root=folder)
        minutes = (time.perf_counter() - started) / 60
        with Comparer(folder) as comparer:

            def answers(prompts: list[tuple[Message, ...]]) -> tuple[list[str], list[str]]:
                pairs = comparer.answers([result], prompts, max_new_tokens=LONGEST_ANSWER)
                return [base for base, _tuned in pairs], [tuned for _base, tuned in pairs]

            base, tuned = answers([(Message("user", prompt),) for prompt in asked])
            explained, _ = answers([(_explained(one, prompt),) for prompt in asked])
            shown = _examples(one, sides)
            with_examples, _ = answers([(*shown, Message("user", prompt)) for prompt in asked])
    figures = [
        *scored(one, "base", base, wanted),
        *scored(one, "base, format explained", explained, wanted),
        *scored(one, f"base, format explained and {EXAMPLES} examples", with_examples, wanted),
        *scored(one, f"tuned, {steps} steps", tuned, wanted),
    ]
    return figures, minutes


def _explained(one: BuiltinSet, prompt: str) -> Message:
    return Message("user", f"{one.explanation}\n\n{prompt}")


def _examples(one: BuiltinSet, sides: Sides) -> list[Message]:
    """The first training rows as turns before the question; the first of them explains the format."""
    turns = []
    for place in range(EXAMPLES):
        prompt = sides.prompts[place]
        turns.append(Message("user", prompt) if place else _explained(one, prompt))
        turns.append(Message("assistant", sides.answers[place]))
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sets", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=list(BUILTIN), help="which ones (default: all)")
    parser.add_argument("--train", action="store_true", help="tune as well, and ask the base in three ways")
    parser.add_argument("--steps", type=int, default=250, help="optimiser steps of 8 rows")
    parser.add_argument("--rows", type=int, default=100, help="held-out rows that are answered")
    parser.add_argument("--keep", action="store_true", help="write the figures into the data cards")
    run(measure, parser)


if __name__ == "__main__":
    main()
