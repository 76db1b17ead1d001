"""What was measured of a run, against its base: `report.json`. Reading it imports neither torch nor a metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tunelab.machine.files import write_atomically

if TYPE_CHECKING:
    import numpy

REPORT_FILE = "report.json"
FEWEST_ROWS = 20  # below, a bootstrap interval is too narrow to call a difference real
OLDER_TITLES = {"exact_match": "exact match", "chrf": "chrF"}  # of reports that name metrics without one
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
    title: str = ""  # of the figure, for people; empty in reports of older versions
    unit: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the tuned model is better, as far as the rows can tell."""
        if self.change.n < FEWEST_ROWS or self.change.low <= 0 <= self.change.high:
            return "not enough evidence"
        return "better" if (self.change.value > 0) == self.higher_is_better else "worse"


class Category(BaseModel):
    """Accuracy on some of the questions, in per cent."""

    model_config = ConfigDict(frozen=True)
    questions: int
    before: float
    after: float


class Ability(BaseModel):
    """General ability before and after tuning: the same questions, and the same instructions where those were
    measured with them."""

    model_config = ConfigDict(frozen=True)
    probe: str
    right_before: list[int]  # of each question, in the probe's order: 1 where it was answered right, else 0
    right_after: list[int]
    chosen_before: list[int]  # the place of the ending that was chosen
    chosen_after: list[int]
    categories: dict[str, Category] = {}  # empty where questions have none
    p: float | None = None  # of no change, by McNemar's exact test
    instruction_loss: Compared | None = None  # nats per scored token: a rise is forgetting
    notes: tuple[str, ...] = ()

    @property
    def questions(self) -> int:
        return len(self.right_before)

    @property
    def before(self) -> float:
        """Questions answered right before tuning, in per cent."""
        return percent(self.right_before)

    @property
    def after(self) -> float:
        """Questions answered right after tuning, in per cent."""
        return percent(self.right_after)

    @property
    def lost_and_gained(self) -> tuple[int, int]:
        """How many questions were right only before, and only after: all that McNemar's test looks at."""
        pairs = list(zip(self.right_before, self.right_after, strict=True))
        return pairs.count((1, 0)), pairs.count((0, 1))

    def arrays(self) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Right (1) or wrong (0) of each question, before and after: two arrays (questions,) of int64."""
        import numpy

        return numpy.array(self.right_before, numpy.int64), numpy.array(self.right_after, numpy.int64)


class Baseline(BaseModel):
    """Somebody else's answers to the same rows: a floor, or the base with another prompt. In each figure, `base` is
    theirs."""

    model_config = ConfigDict(frozen=True)
    name: str
    metrics: dict[str, Compared]


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
    metrics: dict[str, Compared]  # empty for plain text
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
    baselines: tuple[Baseline, ...] = ()  # who else answered these rows
    ability: Ability | None = None  # questions of general ability, before and after; None: they were not asked
    by: Literal["answer", "likelihood"] = "answer"  # whether answers were written, or the likeliest label was taken
    answers_file: str | None = None  # the rows with all answers and scores, in the run's folder
    sentence: str = ""  # the verdict in words; empty in reports of older versions
    decision: Verdict | None = None  # the verdict, where it was corrected for others judged at once

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
        return self.decision or (self.main or self.heldout_loss).verdict

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
    figures = [(titled(name, figure), figure, 1) for name, figure in report.metrics.items()]
    figures += [("held-out loss", report.heldout_loss, 3), ("general loss", report.general_loss, 3)]
    width = max(len(title) for title, _figure, _digits in figures)
    main = report.metrics[report.main_metric] if report.main_metric else None
    lines = []
    for title, figure, digits in figures:
        mark = "  ← the task's metric" if figure is main else ""
        mark = "  (a rise is forgetting)" if figure is report.general_loss else mark
        lines.append(f"{title:<{width}}  {_figure(figure, digits)}{mark}")
    lines += [*_ability_in_words(report), *_baselines_in_words(report)]
    of = "held-out rows" if report.data is None else f"rows of {report.data}"
    lines.append(f"Verdict on {report.rows} {of}: {report.sentence or report.verdict}.")
    lines.append(f"95 % paired BCa intervals in brackets; {report.probe_rows} general instructions.")
    if report.by == "likelihood":
        lines.append("Answers are the labels with the highest likelihood; nothing was written.")
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


def titled(name: str, figure: Compared) -> str:
    """A metric with its unit, as a table has it."""
    title = figure.title or OLDER_TITLES.get(name, name)
    return f"{title}, %" if figure.unit == "%" or (not figure.title and name == "exact_match") else title


def _ability_in_words(report: Report) -> list[str]:
    ability = report.ability
    if ability is None:
        return []
    lost, gained = ability.lost_and_gained
    return [
        f"general questions: base {ability.before:.1f} % right, tuned {ability.after:.1f} % of {ability.questions}; "
        f"{lost} lost, {gained} gained{_p_in_words(ability.p)}"
    ]


def _p_in_words(p: float | None) -> str:
    if p is None:
        return ""
    return f" (McNemar p = {p:.3f})" if p >= 0.001 else " (McNemar p < 0.001)"


def _baselines_in_words(report: Report) -> list[str]:
    """What others reach by the task's metric, and what tuned gains over them."""
    name = report.main_metric
    if name is None or not report.baselines:
        return []
    figures = [(one.name, one.metrics[name]) for one in report.baselines if name in one.metrics]
    width = max((len(who) for who, _figure in figures), default=0)
    lines = [f"Others by {titled(name, report.metrics[name])}, and what tuned gains over them:"]
    for who, figure in figures:
        change = figure.change
        gain = f"{change.value:+.1f} [{change.low:+.1f}, {change.high:+.1f}]"
        lines.append(f"  {who:<{width}}  {figure.base:5.1f}   {gain} {figure.verdict}")
    return lines


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


def percent(right: Sequence[int]) -> float:
    """Of right (1) and wrong (0) answers, the share that is right, in per cent."""
    return 100 * sum(right) / len(right)
