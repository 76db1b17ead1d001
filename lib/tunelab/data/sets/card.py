"""What a built-in set says of itself: where it is from, how it was made, what it can't tell, and measured figures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

NAMES = {
    "chrf": "chrF",
    "exact_match": "exact match, %",
    "valid_json": "valid JSON, %",
    "field_accuracy": "fields right, %",
    "same_json": "whole object right, %",
    "execution_accuracy": "execution accuracy, %",
}


@dataclass(frozen=True)
class Figure:
    """How well held-out rows are answered by something, 0 to 100."""

    answered_by: str  # 'majority answer', 'tuned, 250 steps'
    metric: str
    value: float


@dataclass(frozen=True)
class Card:
    """A data card. Its figures and counts were written by `python -m benchmarks.sets --keep`."""

    name: str
    summary: str
    source: str
    licence: str
    made: str
    held_out: str
    limits: tuple[str, ...]
    train_rows: int = 0
    heldout_rows: int = 0
    figures: tuple[Figure, ...] = ()
    answered_rows: int = 0  # the held-out rows that base and tuned answered; 0: neither did
    python: str = ""  # the version that they were measured with

    def markdown(self) -> str:
        """The card as Markdown."""
        facts = {
            "Source": self.source,
            "Licence": self.licence,
            "Size": f"{self.train_rows:,} rows to train on, {self.heldout_rows:,} held out",
            "How it was made": self.made,
            "Held out": self.held_out,
        }
        parts = [f"# {self.name}", self.summary, "\n".join(f"- **{what}**: {text}" for what, text in facts.items())]
        parts += ["## What it can't tell you", "\n".join(f"- {limit}" for limit in self.limits)]
        parts += [f"## What reaches what on the held-out rows (Python {self.python})", self._table()]
        if self.answered_rows:
            parts.append(
                f"Base and tuned answered the first {self.answered_rows:,} held-out rows, everything else all of them."
            )
        return "\n\n".join(parts) + "\n"

    def _table(self) -> str:
        metrics = list(dict.fromkeys(figure.metric for figure in self.figures))
        values = {(figure.answered_by, figure.metric): f"{figure.value:.1f}" for figure in self.figures}
        lines = [["answered by", *(NAMES.get(metric, metric) for metric in metrics)], ["---"] * (len(metrics) + 1)]
        for who in dict.fromkeys(figure.answered_by for figure in self.figures):
            lines.append([who, *(values.get((who, metric), "") for metric in metrics)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured(card: Card, kept: dict[str, Any]) -> Card:
    """The card with the counts and figures that the benchmark has kept of its set."""
    return replace(
        card,
        train_rows=kept["train_rows"],
        heldout_rows=kept["heldout_rows"],
        figures=tuple(Figure(*figure) for figure in (*kept["floors"], *kept["trained"])),
        answered_rows=kept.get("answered_rows", 0),
        python=kept["python"],
    )
