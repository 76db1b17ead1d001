"""What was trained, how it was set, what it took: from a run's configuration and events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunelab.measure.card.facts import Cost, Curve, Setting, Trained
from tunelab.measure.curves import Lines, last_step, losses, measured_beside, stage_marks
from tunelab.measure.series import weight_bytes
from tunelab.run.events import Finished, StepDone
from tunelab.run.progress import Progress
from tunelab.run.public import name_of, provenance, without_folders
from tunelab.run.run import Run

if TYPE_CHECKING:
    from tunelab.run.reports import Report
    from tunelab.spec import Spec

MOST_POINTS = 500  # of a line: more are not seen
NOT_SETTINGS = ("kind", "repo_id", "revision")  # told elsewhere


def trained_of(run: Run, progress: Progress) -> Trained:
    """What was trained, on which base."""
    started = progress.started
    known = _known(run)
    precision = None
    if started:
        packed = [] if started.quantization == "none" else [started.quantization]
        precision = ", ".join([*packed, started.dtype])
    here = started if started and not run.imported_from else None
    return Trained(
        method=run.config.method,
        base=name_of(run.config.model.repo_id),
        base_published_as=known.get("base_published_as"),
        base_note=known.get("base_note") or None,
        revision=run.base_spec.revision,
        base_sha256=started.base_sha256 if started else None,
        precision=precision,
        trainable_parameters=started.trainable_parameters if started else None,
        total_parameters=started.total_parameters if started else None,
        device=here.device if here else None,
        attention=here.attention if here else None,
        fast=here.fast if here else None,
        why_plain=(here.why_plain or None) if here else None,
        threads=here.threads if here else None,
        steps=progress.step,
        steps_total=here.steps_total if here else None,
        learning_rates=here.learning_rates if here else (),
        heldout_loss=progress.heldout_loss if here else None,
        base_loss=progress.base_loss if here else None,
        started_unix_seconds=here.time_unix_seconds if here else None,
        imported_from=name_of(run.imported_from) if run.imported_from else None,
        started_from=tuple(run.lineage),
    )


def _known(run: Run) -> dict[str, Any]:
    """What the result says of itself; nothing where there is none, or it says nothing."""
    try:
        known = provenance(run)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def settings_of(run: Run, trained: Trained) -> tuple[Setting, ...]:
    """Every setting, those that are not at their default first in their group."""
    config = run.config
    found = [*_settings("model", [config.model]), *_settings("technique", [config.technique])]
    if not run.imported_from:
        training = _settings("training", [stage.training for stage in config.stages])
        found += [_resolved(one, run, trained) for one in training]
    return tuple(sorted(found, key=lambda one: ("model", "technique", "training").index(one.group)))


def _settings(group: Any, specs: Sequence[Spec]) -> list[Setting]:
    found = []
    for name, field in type(specs[0]).model_fields.items():
        if name in NOT_SETTINGS:
            continue
        values = [getattr(spec, name) for spec in specs]
        default = field.get_default(call_default_factory=True)
        shown = [_value(value) for value in values]
        other = any(value != default for value in values)
        found.append(
            Setting(
                group=group,
                name=name,
                values=tuple(shown if len(set(shown)) > 1 else shown[:1]),
                default=_value(default) if other else None,
            )
        )
    return sorted(found, key=lambda one: one.default is None)


def _resolved(setting: Setting, run: Run, trained: Trained) -> Setting:
    """With what 'auto' came to."""
    if setting.name == "learning_rate":
        came_to: list[Any] = list(trained.learning_rates)
    elif setting.name == "warmup_steps":
        came_to = [stage.training.resolved_warmup_steps for stage in run.config.stages]
    else:
        return setting
    asked = [_value(getattr(stage.training, setting.name)) for stage in run.config.stages]
    if len(came_to) != len(asked):
        return setting
    values = [f"auto: {_value(value)}" if one == "auto" else one for one, value in zip(asked, came_to, strict=True)]
    return setting.model_copy(update={"values": tuple(values if len(set(values)) > 1 else values[:1])})


def _value(value: Any) -> str:
    value = without_folders(list(value) if isinstance(value, tuple) else value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def cost_of(run: Run, progress: Progress, report: Report | None) -> Cost:
    """What the run took, as far as its events say."""
    started, ending = progress.started, progress.ending
    here = None if run.imported_from else started
    steps = kept_steps(progress)
    finished = ending if isinstance(ending, Finished) and not run.imported_from else None
    seconds = sum(step.seconds for step in steps)
    return Cost(
        training_seconds=seconds if steps else None,
        evaluating_seconds=sum(e.seconds for e in progress.evaluations) if progress.evaluations else None,
        total_seconds=finished.seconds if finished else None,
        forecast_seconds=(here.forecast_seconds or None) if here else None,
        tokens=sum(step.tokens for step in steps) if steps else None,
        tokens_per_second=sum(step.tokens for step in steps) / seconds if seconds else None,
        peak_memory_bytes=(finished.peak_memory_bytes or None) if finished else None,
        gpu_peak_memory_bytes=(finished.gpu_peak_memory_bytes or None) if finished else None,
        forecast_memory_bytes=(here.forecast_bytes or None) if here else None,
        result_bytes=weight_bytes(run.adapter_path) if run.has_adapter else None,
        measuring_seconds=report.seconds if report else None,
    )


def kept_steps(progress: Progress) -> list[StepDone]:
    """The steps that the run is the result of: after a rollback not those of later stages."""
    return [step for step in progress.steps if step.step <= progress.step]


def curves_of(run: Run, progress: Progress) -> tuple[Curve, ...]:
    """Losses, what was measured beside them, and the learning rate over the steps; none before there is a step."""
    if not progress.steps:
        return ()
    rates = Lines("Learning rate", {"learning rate": [(step.step, step.learning_rate) for step in progress.steps]})
    each = [(losses(progress, run.config), _loss_in_words(progress)), (rates, _rate_in_words(progress))]
    each[1:1] = [(lines, _beside_in_words(lines)) for lines in measured_beside(progress, run.config)]
    return tuple(
        Curve(
            title=lines.title,
            series={name: thinned(points) for name, points in lines.series.items() if points},
            last_step=last_step(progress),
            limits=lines.limits,
            stages=tuple(stage_marks(run.config)),
            said=f"{said} {_thinned_in_words(len(progress.steps))}".strip(),
        )
        for lines, said in each
    )


def thinned(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """At most `MOST_POINTS` points: the mean of as many neighbours as it takes."""
    each = -(-len(points) // MOST_POINTS)
    groups = [points[start : start + each] for start in range(0, len(points), each)]
    return tuple((group[-1][0], sum(y for _x, y in group) / len(group)) for group in groups)


def _thinned_in_words(steps: int) -> str:
    each = -(-steps // MOST_POINTS)
    return f"Each point is the mean of {each} steps." if each > 1 else ""


def _loss_in_words(progress: Progress) -> str:
    steps = progress.steps
    parts = [f"Training loss from {steps[0].loss:.3f} at step {steps[0].step} to {steps[-1].loss:.3f}."]
    stage = progress.stage
    measured = [e for e in progress.evaluations if e.stage == stage]
    if measured:
        lowest = min(measured, key=lambda e: e.heldout_loss)
        base = f"; the base's {progress.base_loss:.3f}" if progress.base_loss is not None else ""
        of = f" of stage {stage + 1}" if stage else ""
        parts.append(
            f"Held-out loss{of} on {lowest.rows} rows: lowest {lowest.heldout_loss:.3f} at step {lowest.step}, "
            f"{measured[-1].heldout_loss:.3f} at the last measurement{base}."
        )
    return " ".join(parts)


def _beside_in_words(lines: Lines) -> str:
    (first, begins), (last, ends) = lines.series["tuned"][0], lines.series["tuned"][-1]
    base = f"; the base's {lines.series['base'][-1][1]:.3f}" if "base" in lines.series else ""
    return f"Tuned: {begins:.3f} at step {first:g}, {ends:.3f} at step {last:g}{base}."


def _rate_in_words(progress: Progress) -> str:
    highest = max(progress.steps, key=lambda step: step.learning_rate)
    last = progress.steps[-1].learning_rate
    return f"Highest {highest.learning_rate:.3g} at step {highest.step}, {last:.3g} at the end."
