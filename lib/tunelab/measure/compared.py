"""Comparisons in files that others read: a table for a spreadsheet, a JSON object per line, or PAIR's LLM Comparator.

Comparer.batch(columns, prompts) ──> export_comparisons(comparisons, "answers.csv", "csv")
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from tunelab.answer.question import Answer, Comparison
from tunelab.errors import UserError
from tunelab.measure.answered import comparator_example, for_comparator, write_files
from tunelab.measure.votes.export import cell

Form = Literal["csv", "jsonl", "comparator"]
MARK = "\ufeff"  # by which spreadsheets know UTF-8
HEAD = ("number", "prompt", "system", "note", "error")
PARTS = ("label", "seed", "answer", "tokens", "ended", "seconds", "provenance")


def export_comparisons(comparisons: Sequence[Comparison], path: str | Path, form: Form) -> list[Path]:
    """The files written: 'csv' a row per prompt, in which no text can become a formula; 'jsonl' everything that is
    known, an object per prompt; 'comparator' for PAIR's LLM Comparator (Kahng et al. 2024), which shows two models:
    model A is the first column, and there is a file for each other one.

    Raises:
        UserError: there is nothing to write, or a file can't be written.
    """
    path = Path(path)
    if not comparisons:
        raise UserError("There are no comparisons to export. Ask some prompts first.")
    if form == "csv":
        return write_files({path: MARK + comparisons_csv(comparisons)})
    if form == "jsonl":
        return write_files({path: comparisons_jsonl(comparisons)})
    if form != "comparator":
        raise UserError(f"form = '{form}': choose csv, jsonl or comparator.")
    return write_files(_comparator_files(comparisons, path))


def comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    """A row per prompt: what was asked, and for each answer its label, seed, text, length and provenance."""
    most = max(len(one.answers) for one in comparisons)
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([*HEAD, *(f"{part}_{place}" for place in range(1, most + 1) for part in PARTS)])
    for number, one in enumerate(comparisons, 1):
        cells = [number, one.prompt, one.system, one.note, one.error, *(part for a in one.answers for part in _row(a))]
        cells += [""] * (len(HEAD) + most * len(PARTS) - len(cells))
        writer.writerow([cell(value) for value in cells])
    return text.getvalue()


def comparisons_jsonl(comparisons: Sequence[Comparison]) -> str:
    """A line per prompt, with everything that is known of it."""
    return "".join(f"{json.dumps(asdict(one), ensure_ascii=False)}\n" for one in comparisons)


def _row(answer: Answer) -> list[str | float | None]:
    return [
        answer.label,
        answer.seed,
        answer.text,
        answer.tokens,
        answer.stop_reason,
        round(answer.seconds, 3),
        answer.provenance.text,
    ]


def _comparator_files(comparisons: Sequence[Comparison], path: Path) -> dict[Path, str]:
    answered = [one for one in comparisons if one.answers]
    labels = [answers[0].label for answers in answered[0].by_column] if answered else []
    if len(labels) < 2:
        raise UserError("LLM Comparator shows two models side by side: export at least one answer by two columns.")
    files = {}
    for place in range(1, len(labels)):
        examples = [
            comparator_example(
                one.prompt,
                (first.text, other.text),
                tags=[f"seed {first.seed}"] if len(one.seeds) > 1 else [],
                score=None,
                fields={},
            )
            for one in answered
            for first, other in zip(one.by_column[0], one.by_column[place], strict=True)
        ]
        name = path if len(labels) == 2 else path.with_name(f"{path.stem}-{place + 1}{path.suffix or '.json'}")
        found = for_comparator(f"{labels[0]} and {labels[place]}", (labels[0], labels[place]), examples)
        files[name] = json.dumps(found, ensure_ascii=False, indent=1)
    return files
