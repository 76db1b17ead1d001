"""What a run measured over its steps, as lines: for its charts, its run card and notebooks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tunelab.config import RunConfig
    from tunelab.run.progress import Progress

Points = Sequence[tuple[float, float]]
LOSS_TITLE = "Loss per scored token (nats)"
SMOOTHED_FROM = 40  # steps: a shorter line can be read as it is
HALF_LIVES = 40  # the smoothed line has so many in a run,
SHORTEST = 2  # and each has at least so many steps
MOST_SMOOTHED = 400  # points: a picture shows no more
Staged = Sequence[tuple[int, float | None]]  # a stage and the base's value there


class Lines(NamedTuple):
    """The lines of one chart, (step, value) by name; `limits`: the ends of the axis of values, if it has some."""

    title: str
    series: dict[str, Points]
    limits: tuple[float, float] | None = None


def losses(progress: Progress, config: RunConfig | None = None) -> Lines:
    """Train and held-out loss, and the base's held-out loss on each stage's rows as a level line. In a longer run the
    train loss, which each step measures on other rows, stands there smoothed as well."""
    train = [(float(e.step), e.loss) for e in progress.steps]
    series: dict[str, Points] = {"train": train}
    if last_step(progress) >= SMOOTHED_FROM:
        starts = [start for start, _name in _stage_starts(config)] if config else []
        line = smoothed(train, max(SHORTEST, last_step(progress) / HALF_LIVES), starts)
        series["smoothed"] = _some(line, math.ceil(last_step(progress) / MOST_SMOOTHED))
    series["held-out"] = [(e.step, e.heldout_loss) for e in progress.evaluations]
    return _with_base(LOSS_TITLE, series, [(e.stage, e.base_loss) for e in progress.evaluations], progress, config)


def smoothed(line: Points, half_life: float, starts: Sequence[float] = ()) -> list[tuple[float, float]]:
    """An exponential moving average over the steps of a line, without a pull towards zero at its beginning. It begins
    anew after each of `starts`, and a value that is not finite is left out.

    Args:
        half_life: after so many steps, a value counts half.

    Source: Kingma and Ba 2015, "Adam", section 3, for the correction of the beginning.
    """
    found, last = [], -math.inf
    total = weight = 0.0
    for step, value in line:
        if not math.isfinite(value):
            continue
        if any(last <= start < step for start in starts):
            total = weight = 0.0
        kept = 0.5 ** ((step - last) / half_life)
        total, weight, last = kept * total + value, kept * weight + 1, step
        found.append((step, total / weight))
    return found


def _some(line: Points, every: int) -> Points:
    """The first of every so many points of a line, and its last point."""
    return [point for place, point in enumerate(line) if place % every == 0 or place == len(line) - 1]


def measured_beside(progress: Progress, config: RunConfig | None = None) -> list[Lines]:
    """Where they were measured: each metric of the answers, and the loss on general instructions, both beside the
    base's."""
    lines = _metrics(progress, config)
    general = [e for e in progress.evaluations if e.general_loss is not None]
    if general:
        title = f"Forgetting: loss on {general[-1].general_rows} general instructions (nats)"
        tuned: dict[str, Points] = {"tuned": [(e.step, e.general_loss) for e in general if e.general_loss is not None]}
        base = [(e.stage, e.base_general_loss) for e in general]
        lines.append(_with_base(title, tuned, base, progress, config))
    return lines


def _metrics(progress: Progress, config: RunConfig | None) -> list[Lines]:
    """The lines of each metric that some stage was measured by."""
    from tunelab.measure.metrics import NAMED

    lines = []
    for name in dict.fromkeys(e.metric for e in progress.evaluations if e.metric and e.metric_value is not None):
        measured = [e for e in progress.evaluations if e.metric == name]
        known = NAMED.get(name)
        what = f"{known.title} ({known.unit})" if known and known.unit else known.title if known else name
        title = f"{what[0].upper()}{what[1:]}, {measured[-1].metric_rows} held-out rows"
        tuned: dict[str, Points] = {"tuned": [(e.step, e.metric_value) for e in measured if e.metric_value is not None]}
        of_metric = _with_base(title, tuned, [(e.stage, e.base_metric) for e in measured], progress, config)
        bounded = known is not None and all(map(math.isfinite, known.range))
        lines.append(of_metric._replace(limits=known.range if known and bounded else None))
    return lines


def _with_base(
    title: str, series: dict[str, Points], base: Staged, progress: Progress, config: RunConfig | None
) -> Lines:
    """These lines, and the base's values, each level over its stage."""
    starts = [start for start, _name in _stage_starts(config)] if config else [0.0]
    spans = list(zip(starts, [*starts[1:], last_step(progress)], strict=True))
    known = [(*spans[stage], value) for stage, value in base if value is not None and stage < len(spans)]
    levels = [point for start, end, value in known for point in ((start, value), (end, value))]
    return Lines(title, {**series, "base": list(dict.fromkeys(levels))} if levels else series)


def last_step(progress: Progress) -> float:
    """Where the axis of steps ends."""
    return float(progress.steps_total or (progress.steps[-1].step if progress.steps else 1))


def stage_marks(config: RunConfig | None) -> list[tuple[float, str]]:
    """Where the stages of a run begin, and their names; none where there is one, or no configuration."""
    return _stage_starts(config) if config and len(config.stages) > 1 else []


def _stage_starts(config: RunConfig) -> list[tuple[float, str]]:
    """The step before each stage's first one, and the stage's name."""
    starts, step = [], 0.0
    for number, stage in enumerate(config.stages, 1):
        starts.append((step, stage.name or f"stage {number}"))
        step += stage.training.steps
    return starts
