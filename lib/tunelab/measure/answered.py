"""Rows with every answer to them and their scores: a JSON line each, in the run's folder, and in the forms that other
tools read.

    evaluations/NAME.jsonl   an `AnsweredRow` per line
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from tunelab.data.examples import Example
from tunelab.errors import UserError, shortened, shown_name
from tunelab.machine.files import write_atomically
from tunelab.measure.changes.rows import AnsweredRow
from tunelab.run.run import Run

if TYPE_CHECKING:
    from tunelab.measure.metrics import Metric
    from tunelab.measure.task import Task

FOLDER = "evaluations"
Form = Literal["rows", "lm-eval", "comparator"]


def answers_file(data: str | None) -> str:
    """Where a run keeps the rows of a measurement, in its folder; of other data by its name."""
    name = re.sub(r"[^\w.-]+", "-", data).strip("-.")[:80] if data else ""
    return f"{FOLDER}/{name or 'heldout'}.jsonl"


def answered_rows(
    examples: Sequence[Example],
    references: Sequence[str],
    base: tuple[Sequence[str], Sequence[bool]],
    tuned: tuple[Sequence[str], Sequence[bool]],
    others: dict[str, list[str]],
    task: Task,
) -> list[AnsweredRow]:
    """Each example with the answers of base, tuned and others (texts, and whether they ended), scored by every metric
    that says something of a single row."""
    by_side = [scores_by_row(task.metrics, side, references) for side in (base[0], tuned[0], *others.values())]
    rows = []
    for place, example in enumerate(examples):
        before, after, *beside = (side[place] for side in by_side)
        rows.append(
            AnsweredRow(
                row=example.row,
                prompt=example.prompt,
                reference=references[place],
                base=base[0][place],
                tuned=tuned[0][place],
                base_scores=before,
                tuned_scores=after,
                base_ended=base[1][place],
                tuned_ended=tuned[1][place],
                others={name: answers[place] for name, answers in others.items()},
                other_scores=dict(zip(others, beside, strict=True)),
                columns={"group": example.group} if example.group else {},
                label=references[place] if task.labels else None,
            )
        )
    return rows


def scores_by_row(
    metrics: Sequence[Metric], answers: Sequence[str], references: Sequence[str]
) -> list[dict[str, float]]:
    """The scores of each answer, by metric; one that can't be scored is missing."""
    found: list[dict[str, float]] = [{} for _ in answers]
    for metric in metrics:
        for place, (answer, reference) in enumerate(zip(answers, references, strict=True)):
            try:
                value = float(metric.value(metric.sums([answer], [reference])[0]))
            except Exception:  # a user's own may raise anything; the report says which rows
                continue
            if math.isfinite(value):
                found[place][metric.name] = value
    return found


def write_rows(rows: Sequence[AnsweredRow], path: Path) -> None:
    """Keep them, a JSON line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(f"{row.model_dump_json()}\n" for row in rows))


def read_rows(path: Path) -> list[AnsweredRow]:
    """The rows of a file of answers.

    Raises:
        UserError: it is not there, or a line of it is no row of answers.
    """
    name, rows = shown_name(path.name), []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{name} can't be read as a file of answers. `tunelab evaluate RUN` writes one.") from None
    for number, line in enumerate(lines, 1):
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
        written = {path: "".join(f"{row.model_dump_json()}\n" for row in rows)}
    for file, text in written.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, text)
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
    """In the columns of LLM Comparator. A rating is the first metric's change on the row, from -1.5 (A is better) to
    1.5."""
    metric = next((name for row in rows for name in row.tuned_scores if row.change(name) is not None), None)
    largest = max((abs(row.change(metric) or 0) for row in rows), default=0) if metric else 0
    return {
        "metadata": {"source_path": run.id, "custom_fields_schema": []},
        "models": [{"name": "base"}, {"name": run.name}],
        "examples": [
            {
                "input_text": row.prompt,
                "tags": [row.label] if row.label else [],
                "output_text_a": row.base,
                "output_text_b": row.tuned,
                "score": 1.5 * (row.change(metric) or 0) / largest if metric and largest else 0.0,
                "individual_rater_scores": [],
                "custom_fields": {"reference": row.reference},
            }
            for row in rows
        ],
    }
