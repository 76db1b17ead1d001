"""What was measured of a run, against its base: `report.json`. Reading it imports neither torch nor a metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunelab.machine.files import write_atomically

REPORT_FILE = "report.json"
FEWEST_ROWS = 20  # below, a bootstrap interval is too narrow to call a difference real
Verdict = Literal["better", "worse", "not enough evidence"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float
    n: int
    p: float | None = None  # of an estimate of 0, two-sided; None where no test was made

    def __str__(self) -> str:
        return f"{self.value:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


class Compared(BaseModel):
    """One figure of base and tuned over the same rows, and the difference with its 95 % paired BCa interval."""

    model_config = ConfigDict(frozen=True)
    base: float
    tuned: float
    change: Interval  # tuned - base
    higher_is_better: bool = True

    @property
    def verdict(self) -> Verdict:
        """Whether the tuned model is better, as far as the rows can tell."""
        if self.change.n < FEWEST_ROWS or self.change.low <= 0 <= self.change.high:
            return "not enough evidence"
        return "better" if (self.change.value > 0) == self.higher_is_better else "worse"


class CutAnswers(BaseModel):
    """How many answers were still going on at `max_new_tokens`."""

    model_config = ConfigDict(frozen=True)
    base: int = 0
    tuned: int = 0


class Report(BaseModel):
    """A run measured on held-out rows and on general instructions that nothing was trained on."""

    model_config = ConfigDict(frozen=True)
    rows: int
    heldout_loss: Compared  # nats per scored token
    metrics: dict[str, Compared]  # 0 to 100; empty for plain text
    main_metric: str | None
    general_loss: Compared  # nats per scored token of the general probe: a rise is forgetting
    probe_rows: int
    seconds: float
    selected_on: int = 0  # of these rows, how many also chose which step's result was kept
    data: str | None = None  # the name of the other data these rows are of; None: the run's own
    left_out: int = 0  # rows that were not measured because the run was trained on them
    cut_answers: CutAnswers = CutAnswers()
    max_new_tokens: int = 0  # where they were cut; 0 where that was not noted
    notes: tuple[str, ...] = ()  # what else there is to know of the rows, a sentence each
    too_long: int = 0  # further rows whose prompt leaves the model no position for an answer

    @property
    def forgetting(self) -> Interval:
        """By how much the loss on general instructions rose, in nats per token."""
        return self.general_loss.change

    @property
    def main(self) -> Compared | None:
        """The metric that fits the task; None for plain text."""
        return self.metrics[self.main_metric] if self.main_metric else None

    @property
    def verdict(self) -> Verdict:
        """Of the task metric, or of the held-out loss where there is none."""
        return (self.main or self.heldout_loss).verdict

    def write(self, path: Path) -> None:
        """Keep it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.model_dump_json(indent=1))


def read_report(path: Path) -> Report | None:
    """The report kept in a file, or in a run's folder, if it has been measured by this version."""
    file = path / REPORT_FILE if path.is_dir() else path
    try:
        return Report.model_validate_json(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None


def forget_report(folder: Path) -> None:
    """Remove a run's report: its result is about to change."""
    (folder / REPORT_FILE).unlink(missing_ok=True)


def in_words(report: Report) -> str:
    """A report as lines for people."""
    lines = []
    names = {"exact_match": "exact match, %", "chrf": "chrF"}
    for name, figure in report.metrics.items():
        mark = "  ← the task's metric" if name == report.main_metric else ""
        lines.append(f"{names[name]:<16} {_figure(figure, 1)}{mark}")
    lines.append(f"{'held-out loss':<16} {_figure(report.heldout_loss, 3)}")
    lines.append(f"{'general loss':<16} {_figure(report.general_loss, 3)}  (a rise is forgetting)")
    of = "held-out rows" if report.data is None else f"rows of {report.data}"
    lines.append(
        f"Verdict on {report.rows} {of}: {report.verdict}. 95 % paired BCa intervals in brackets; "
        f"{report.probe_rows} general instructions."
    )
    if report.rows < FEWEST_ROWS:
        lines.append(f"Fewer than {FEWEST_ROWS} rows: no difference is called real. Measure more.")
    if report.too_long:
        lines.append(f"{report.too_long} rows were left out: their prompt fills all positions of the model.")
    if report.selected_on:
        lines.append(
            f"{report.selected_on} of these rows also chose which step's result was kept, so the loss is a little "
            "flattering. More held-out rows would keep the two apart."
        )
    if report.left_out:
        rows = "1 row" if report.left_out == 1 else f"{report.left_out:,} rows"
        lines.append(f"{rows} left out: the run was trained on {'it' if report.left_out == 1 else 'them'}.")
    if cut := cut_in_words(report):
        lines.append(f"{cut} --max-new-tokens with a higher number reads them to their end.")
    return "\n".join([*lines, *(f"{note[0].upper()}{note[1:]}." for note in report.notes)])


def cut_in_words(report: Report) -> str:
    """How many answers were cut, in a sentence; empty where none was."""
    cut = report.cut_answers
    if not cut.base and not cut.tuned:
        return ""
    return (
        f"Cut at {report.max_new_tokens} tokens: {cut.base} answers of the base and {cut.tuned} of the tuned model, "
        "which are scored as far as they go."
    )


def _figure(figure: Compared, digits: int) -> str:
    change = figure.change
    return (
        f"base {figure.base:.{digits}f}, tuned {figure.tuned:.{digits}f}, change {change.value:+.{digits}f} "
        f"[{change.low:+.{digits}f}, {change.high:+.{digits}f}] {figure.verdict}"
    )
