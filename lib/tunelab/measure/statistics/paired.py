"""Is one result file better than another, row by row: `tunelab paired A.csv B.csv`, for anybody's results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tunelab.errors import UserError
from tunelab.measure.statistics.joining import POSITION, join
from tunelab.measure.statistics.judging import Measured, judge_all
from tunelab.measure.statistics.results import read_results
from tunelab.measure.statistics.scores import scores_of
from tunelab.measure.statistics.verdict import Verdict


class PairedFiles(BaseModel):
    """What two result files, or one and several runs of another, say about each other."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")
    base: str
    tuned: tuple[str, ...]  # one, or further runs of it
    joined_by: str  # a column, or 'position'
    rows: int
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The verdicts as lines for people."""
        how = "row by row, in their order" if self.joined_by == POSITION else f"joined by {self.joined_by}"
        rows = "1 row" if self.rows == 1 else f"{self.rows:,} rows"
        lines = [f"{', '.join(self.tuned)} against {self.base}: {rows}, {how}."]
        for verdict in self.verdicts:
            unit = f" {verdict.unit}".rstrip()
            lines.append(f"{verdict.title}: {verdict.base:.4g} → {verdict.tuned:.4g}{unit}. {verdict.sentence}.")
        return "\n".join([*lines, *(f"{_begun(note)}." for note in self.notes)])

    def as_json(self) -> dict[str, Any]:
        """All of it, each verdict with its sentence; not finite numbers as text."""
        made: dict[str, Any] = json.loads(self.model_dump_json())
        for written, verdict in zip(made["verdicts"], self.verdicts, strict=True):
            written["sentence"] = verdict.sentence
        return made


def _begun(note: str) -> str:
    """A note as a sentence; the name of a file or a column at its beginning stays as it is."""
    return note if note.partition(" ")[0].endswith(":") else f"{note[0].upper()}{note[1:]}"


def paired(
    base: str | Path,
    *tuned: str | Path,
    id_column: str | None = None,
    scores: Sequence[str] = (),
    lower_is_better: Sequence[str] = (),
    seed: int = 0,
) -> PairedFiles:
    """The verdicts on one result file against another, in every score that both have, judged at once. Further files are
    further runs of the second one, trained with other seeds. Files are CSV, JSON, JSONL, or sample logs of
    lm-evaluation-harness.

    id_column: by which rows are joined; None: found (`joining.join`); 'position': as they stand.
    scores: columns to judge; none: found (`scores.scores_of`).
    lower_is_better: columns in which less is better, beside those known by their name.

    Raises:
        UserError: a file can't be read, the files share no row, or no column is a score.
    """
    if not tuned:
        raise UserError("Two result files are needed: tunelab paired A.csv B.csv. Further ones are further runs of B.")
    paths = [Path(path) for path in (base, *tuned)]
    alike = len({path.name for path in paths}) < len(paths)
    files = [read_results(path, str(path) if alike else None) for path in paths]
    joined = join(files, id_column)
    columns, about_scores = scores_of(joined, scores, lower_is_better)
    measured = [
        Measured(one.title, one.unit, one.sums[0], one.sums[1], one.value, one.higher_is_better, runs=one.sums[2:])
        for one in columns
    ]
    notes = [*(note for file in files for note in file.notes), *joined.notes, *about_scores]
    if joined.by == POSITION and id_column is None:
        notes.append("no column names rows in all files, so that they were taken as they stand; --id COLUMN names one")
    return PairedFiles(
        base=files[0].name,
        tuned=tuple(file.name for file in files[1:]),
        joined_by=joined.by,
        rows=len(joined.rows),
        verdicts=tuple(judge_all(measured, seed=seed)),
        notes=tuple(notes),
    )
