"""Rows with every answer to them and their scores: a JSON line each, in the run's folder, and in the forms that other
tools read.

    evaluations/NAME-DIGEST.jsonl   an `AnsweredRow` per line; of each measurement its own
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from tunelab.data.examples import Example
from tunelab.errors import UserError, shortened, shown_name
from tunelab.machine.files import write_atomically
from tunelab.measure.changes.rows import AnsweredRow
from tunelab.measure.sides_compared import BASE, TUNED, ScoredMetric, Side
from tunelab.run.run import Run

FOLDER = "evaluations"
Form = Literal["rows", "lm-eval", "comparator"]


def answers_file(data: str | None, rows: Sequence[AnsweredRow]) -> str:
    """Where a run keeps the rows of a measurement, in its folder; of other data by its name. Other answers or scores
    have another file: a report, which a ladder or a sweep may have kept, shows the rows that it was made of."""
    name = re.sub(r"[^\w.-]+", "-", data).strip("-.")[:80] if data else ""
    digest = hashlib.sha256(_lines(rows).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{FOLDER}/{name or 'heldout'}-{digest}.jsonl"


def answered_rows(
    examples: Sequence[Example],
    references: Sequence[str],
    base: Side,
    tuned: Side,
    others: dict[str, list[str]],
    scored: Sequence[ScoredMetric],
    *,
    labelled: bool,
) -> list[AnsweredRow]:
    """Each example with the answers of base, tuned and others, and their scores; `labelled`: the answers are labels."""
    by_who = {who: _scores_of(who, scored, len(examples)) for who in (BASE, TUNED, *others)}
    return [
        AnsweredRow(
            row=example.row,
            prompt=example.prompt,
            reference=references[place],
            base=base.answers[place],
            tuned=tuned.answers[place],
            base_scores=by_who[BASE][place],
            tuned_scores=by_who[TUNED][place],
            base_ended=base.ended[place],
            tuned_ended=tuned.ended[place],
            others={name: answers[place] for name, answers in others.items()},
            other_scores={name: by_who[name][place] for name in others},
            columns={"group": example.group} if example.group else {},
            label=references[place] if labelled else None,
        )
        for place, example in enumerate(examples)
    ]


def _scores_of(who: str, scored: Sequence[ScoredMetric], count: int) -> list[dict[str, float]]:
    """The scores of somebody's answer to each row, by metric; one that can't be scored is missing."""
    by_metric = {one.metric.name: one.by_row(who) for one in scored}
    return [{name: rows[place] for name, rows in by_metric.items() if place in rows} for place in range(count)]


def write_rows(rows: Sequence[AnsweredRow], path: Path) -> None:
    """Keep them, a JSON line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _lines(rows))


def _lines(rows: Sequence[AnsweredRow]) -> str:
    return "".join(f"{row.model_dump_json()}\n" for row in rows)


def read_rows(path: Path) -> list[AnsweredRow]:
    """The rows of a file of answers.

    Raises:
        UserError: it is not there, or a line of it is no row of answers.
    """
    name, rows = shown_name(path.name), []
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # a text may hold other ends of lines
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{name} can't be read as a file of answers. `tunelab evaluate RUN` writes one.") from None
    for number, line in enumerate(lines if lines != [""] else [], 1):
        try:
            rows.append(AnsweredRow.model_validate_json(line))
        except ValidationError:
            raise UserError(
                f"{name}, line {number}: {shortened(line, 60)} is no row of answers of this version. "
                "`tunelab evaluate RUN` writes them anew."
            ) from None
    return rows


def rows_of(run: Run) -> list[AnsweredRow]:
    """The rows of a run's last measurement; none where it has not been measured."""
    from tunelab.run.reports import read_report

    report = read_report(run.path)
    if report is None or report.answers_file is None or not (run.path / report.answers_file).is_file():
        return []
    return read_rows(run.path / report.answers_file)


def write_as(rows: Sequence[AnsweredRow], path: Path, form: Form, run: Run) -> list[Path]:
    """The rows in a form that others read: 'lm-eval' writes a file of samples for base and tuned each, as
    lm-evaluation-harness logs them (`doc`, `target`, `filtered_resps`, a figure per metric); 'comparator' one JSON file
    for PAIR's LLM Comparator (Kahng et al. 2024), model A the base and model B the tuned one.

    Raises:
        UserError: the file can't be written.
    """
    if form == "lm-eval":
        written = {
            path.with_name(f"{path.stem}-{side}{path.suffix or '.jsonl'}"): "".join(
                f"{json.dumps(_sample(row, side, place), ensure_ascii=False)}\n" for place, row in enumerate(rows)
            )
            for side in ("base", "tuned")
        }
    elif form == "comparator":
        written = {path: json.dumps(_comparison(rows, run), ensure_ascii=False, indent=1)}
    else:
        written = {path: _lines(rows)}
    return write_files(written)


def write_files(written: dict[Path, str]) -> list[Path]:
    """The files, each written with its text.

    Raises:
        UserError: one can't be written.
    """
    for file, text in written.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # half of a pair of surrogates, which models can write, is no UTF-8; JSON reads it escaped
            write_atomically(file, text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise UserError(
                f"{shown_name(str(file))} can't be written: {error.strerror}. Give another --out."
            ) from None
    return list(written)


def _sample(row: AnsweredRow, side: Literal["base", "tuned"], place: int) -> dict[str, Any]:
    answer = row.base if side == "base" else row.tuned
    scores = row.base_scores if side == "base" else row.tuned_scores
    return {
        "doc_id": place,
        "doc": {"row": row.row, "prompt": row.prompt, "reference": row.reference},
        "target": row.reference,
        "arguments": [[row.prompt]],
        "resps": [[answer]],
        "filtered_resps": [answer],
        "metrics": list(scores),
        **scores,
    }


def _comparison(rows: Sequence[AnsweredRow], run: Run) -> dict[str, Any]:
    """In the columns of LLM Comparator. A rating says by how much A, the base, is better by the first metric: from
    1.5 (the largest loss of a row by tuning) over 0 to -1.5 (the largest gain); a row that has no score has none."""
    from tunelab.run.reports import read_report

    metric = next((name for row in rows for name in row.tuned_scores if row.change(name) is not None), None)
    report = read_report(run.path)
    figure = report.metrics.get(metric) if report and metric else None
    better = figure.higher_is_better if figure else True
    changes = [row.change(metric) if metric and better is not None else None for row in rows]
    largest = max((abs(change) for change in changes if change is not None), default=0.0) or 1.0
    to_base = -1.5 / largest if better else 1.5 / largest
    return for_comparator(
        run.id,
        ("base", run.name),
        [
            comparator_example(
                row.prompt,
                (row.base, row.tuned),
                tags=[row.label] if row.label else [],
                score=None if change is None else to_base * change + 0.0,  # without the sign of a 0
                fields={"reference": row.reference},
            )
            for row, change in zip(rows, changes, strict=True)
        ],
    )


def for_comparator(source: str, models: tuple[str, str], examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What PAIR's LLM Comparator reads: two models, and what each answered."""
    fields = dict.fromkeys(name for example in examples for name in example["custom_fields"])
    return {
        "metadata": {"source_path": source, "custom_fields_schema": [{"name": one, "type": "text"} for one in fields]},
        "models": [{"name": name} for name in models],
        "examples": list(examples),
    }


def comparator_example(
    prompt: str, answers: tuple[str, str], *, tags: Sequence[str], score: float | None, fields: dict[str, str]
) -> dict[str, Any]:
    """One of its examples. The score is positive where the first answer is the better one; None: nobody has judged."""
    return {
        "input_text": prompt,
        "tags": list(tags),
        "output_text_a": answers[0],
        "output_text_b": answers[1],
        "score": score,
        "individual_rater_scores": [],
        "custom_fields": fields,
    }
