"""How much the rows say, and how many of them the task likely needs."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunelab.data.content import folded
from tunelab.data.doctor.finding import Finding, counted
from tunelab.data.doctor.near import NUMBER, said
from tunelab.data.examples import Example
from tunelab.errors import shortened

# rows per label that reached 85 % and 90 % with 77 labels (Casanueva et al. 2020, table 3)
ROWS_PER_LABEL = 10, 30
# carefully chosen rows that teach a model how to answer (Zhou et al. 2023, "LIMA"); fewer teach little but a format
ROWS_OF_TEXT = 1000
FEW_ROWS_OF_TEXT = 200
DIVERSITY_ROWS = 2000  # the share of distinct pairs falls with their number: it is always told from this many rows
LEAST_DISTINCT, LEAST_PAIRS = 0.1, 2000
WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W぀-ヿ㐀-鿿가-힯]+")
HARDLY = 0.01  # of the loss


class Diversity:
    """How many pairs of neighbouring words are distinct (distinct-2: Li et al. 2016, section 5). All numbers
    are one word."""

    def __init__(self) -> None:
        self.rows = self.total = 0
        self.pairs: set[tuple[str, str]] = set()

    def see(self, example: Example) -> None:
        if self.rows == DIVERSITY_ROWS:
            return
        self.rows += 1
        words = WORD.findall(NUMBER.sub("0", folded(said(example)[:10_000])))
        self.total += max(0, len(words) - 1)
        self.pairs.update(itertools.pairwise(words))

    @property
    def distinct(self) -> float:
        return len(self.pairs) / self.total if self.total else 1.0

    def findings(self) -> list[Finding]:
        if self.total < LEAST_PAIRS or self.distinct >= LEAST_DISTINCT:
            return []
        return [
            Finding(
                "low-diversity",
                f"rows say little that differs: {self.distinct:.0%} of the pairs of words are distinct, of "
                f"{counted(self.rows, 'row')}",
                self.rows,
                (),
                "A template that is filled in again and again teaches its frame and little else. Add rows in other "
                "words, from other people.",
                "low",
            )
        ]


def amount_finding(different_rows: int, labels: dict[str, int]) -> list[Finding]:
    """Whether the task likely needs more rows. `labels`: rows of each label; none where answers are text."""
    least, good = ROWS_PER_LABEL
    if labels:
        few = sum(rows < least for rows in labels.values())
        wanted = good * len(labels)
        if not few and different_rows >= wanted:
            return []
        title = (
            f"{different_rows:,} different rows for {counted(len(labels), 'label')}: about {wanted:,} are likely needed"
        )
        if different_rows >= wanted:
            rarest = min(labels, key=lambda label: (labels[label], label))
            title = (
                f"{few:,} of {counted(len(labels), 'label')} {'has' if few == 1 else 'have'} fewer than {least} rows, "
                f"such as {shortened(rarest)} with {labels[rarest]:,}"
            )
        why = (
            f"With 77 labels, {least} rows each reached 85 % and {good} rows each 90 % (Casanueva et al. 2020). "
            f"{counted(few, 'label has', 'labels have')} fewer than {least}."
        )
    elif different_rows < FEW_ROWS_OF_TEXT:
        title = f"{different_rows:,} different rows: about {ROWS_OF_TEXT:,} are likely needed"
        why = (
            f"So few rows teach a format at best. {ROWS_OF_TEXT:,} carefully chosen ones taught a large model how to "
            "answer (Zhou et al. 2023); facts take several rows each. A learning curve tells more: --curve."
        )
    else:
        return []
    return [Finding("few-rows", title, different_rows, (), why, "low")]


@dataclass(frozen=True)
class LearningCurve:
    """The held-out loss after training on a part of the rows, for growing parts."""

    points: tuple[tuple[int, float], ...]  # rows, loss

    @property
    def twice(self) -> float | None:
        """The loss to expect of twice as many rows, where parts double: a power law above a floor through the last
        three points (Hestness et al. 2017), whose gains shrink by one factor. None where the points fit none."""
        if len(self.points) < 3:
            return None
        first, second, last = (loss for _rows, loss in self.points[-3:])
        before, now = first - second, second - last
        return last - now * now / before if before > now > 0 else None

    def text(self) -> str:
        """The points and what they say, a sentence each."""
        shown = ", ".join(f"{rows:,} rows: {loss:.3f}" for rows, loss in self.points)
        rows, last = self.points[-1]
        gain = self.points[-2][1] - last
        if gain < HARDLY * last:
            return f"Held-out loss by rows: {shown}. More rows of this kind would hardly help."
        if self.twice is None:
            return f"Held-out loss by rows: {shown}. It still falls: more rows would help."
        return f"Held-out loss by rows: {shown}. {2 * rows:,} rows would reach about {self.twice:.3f}."


def learning_curve(
    rows: Sequence[Example],
    loss_after: Callable[[Sequence[Example]], float],
    seed: int = 0,
    shares: Sequence[float] = (0.25, 0.5, 1.0),
) -> LearningCurve:
    """The curve over parts of the rows, each a part of the next. `loss_after` trains on rows and measures the loss on
    rows that are always the same."""
    assert len(rows) >= 4, "too few rows to take a part of"
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    parts = [sorted(order[: max(1, round(share * len(rows)))]) for share in shares]
    return LearningCurve(tuple((len(part), loss_after([rows[place] for place in part])) for part in parts))
