"""The Train room: left what to train and what that will take, right the run that is chosen, as it goes. The form is
`run_form`; work happens in `jobs`; what is shown is made in `views`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import run_form, views
from playground.english import train as say
from playground.errors import shown, words_for
from playground.material import Material
from playground.parts.choices import OfTheMoment
from playground.parts.events import PRIVATE, QUIET, by_name, changed, shown_if
from playground.parts.live import live_html
from playground.parts.repeating import repeating
from playground.parts.shared import Shared
from playground.parts.steering import Steering, steer
from playground.sources import check_config
from tunelab import Progress, Run, RunConfig, Stage, diagnose, list_runs

FIXES = 3  # the best ones
Foreseen = tuple[RunConfig, float | None]


@dataclass(frozen=True)
class TrainRoom:
    """The components other parts of the page need."""

    change_data: gr.Button
    to_compare: gr.Button
    to_measure: gr.Button
    choices: run_form.Choices
    before: gr.State  # stages that are trained before the data in hand


@dataclass(frozen=True)
class _Order:
    """What to train."""

    material: gr.HTML
    change_data: gr.Button
    choices: run_form.Choices
    before: gr.State  # stages that were kept, trained before the data in hand
    stages: gr.HTML
    add_stage: gr.Button
    clear_stages: gr.Button
    forecast: gr.HTML
    foreseen: gr.State  # the configuration that was forecast last, and how many seconds it takes
    start: gr.Button
    message: gr.Markdown

    @property
    def asked(self) -> list[Any]:
        """What a configuration is made of, as inputs: the data in hand, the stages before, the form."""
        return [self.before, *self.choices.widgets.values()]


@dataclass(frozen=True)
class _Watched:
    """The run that is chosen: how it goes, and what can be done with it."""

    steering: Steering
    to_compare: gr.Button
    to_measure: gr.Button
    message: gr.Markdown
    fixes: list[gr.Button]  # what to do about a run that failed or got lost
    notes: gr.Markdown
    table: gr.Dataframe


@dataclass(frozen=True)
class _Room:
    shared: Shared
    order: _Order
    watched: _Watched


def build(shared: Shared) -> TrainRoom:
    """The room's components and what they do."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_classes="act"):
            order = _lay_out_order(shared)
        with gr.Column(scale=7, min_width=320, elem_id="training-column", elem_classes="act"):
            watched = _lay_out_watched()
    room = _Room(shared, order, watched)
    _foresee(room)
    _start(room)
    _keep_stages(room)
    _follow(room)
    steer(shared, watched.steering, watched.message)
    _mend(room)
    return TrainRoom(order.change_data, watched.to_compare, watched.to_measure, order.choices, order.before)


# what the room looks like


def _lay_out_order(shared: Shared) -> _Order:
    with gr.Row(equal_height=True, elem_classes="tight"):
        material = gr.HTML(views.material_html(Material()), elem_id="material")
        change = gr.Button(say.CHANGE_DATA, size="sm", min_width=80, scale=0, elem_id="change-data")
    choices = run_form.lay_out(shared.jobs)
    before = gr.State(())
    stages = gr.HTML("", elem_id="stages")
    forecast, foreseen = gr.HTML("", elem_id="forecast"), gr.State(None)
    with gr.Row(elem_classes="tight"):
        start = gr.Button(say.START, variant="primary", elem_id="start", scale=4, min_width=180)
        add = gr.Button(say.ADD_STAGE, elem_id="add-stage", scale=2, min_width=130)
        clear = gr.Button(say.CLEAR_STAGES, visible="hidden", elem_id="clear-stages", scale=2, min_width=130)
    message = gr.Markdown("", elem_id="train-message", elem_classes="message")
    return _Order(material, change, choices, before, stages, add, clear, forecast, foreseen, start, message)


def _lay_out_watched() -> _Watched:
    live_html("status", elem_id="status", empty=say.EMPTY)
    with gr.Row(elem_classes="tight"):
        fixes = [gr.Button("", visible="hidden", size="sm", elem_id=f"fix-{number}") for number in range(FIXES)]
    live_html("chart", elem_id="loss-chart")
    with gr.Row(elem_classes="tight"):
        pause = gr.Button(say.PAUSE, size="sm", elem_id="pause", interactive=False, min_width=80)
        stop = gr.Button(say.STOP, size="sm", elem_id="stop", interactive=False, min_width=80)
        resume = gr.Button(say.RESUME, size="sm", elem_id="resume", interactive=False, min_width=80)
        to_compare = gr.Button(say.TO_COMPARE, size="sm", elem_id="to-compare", interactive=False, min_width=140)
        to_measure = gr.Button(say.TO_MEASURE, size="sm", elem_id="to-measure", interactive=False, min_width=90)
    result = OfTheMoment(
        [], label=say.RESULT, info=say.RESULT_HELP, visible="hidden", interactive=True, elem_id="stage-result"
    )
    message = gr.Markdown("", elem_id="run-message", elem_classes="message")
    with gr.Accordion(say.ANSWERS, open=False):
        live_html("samples", elem_id="samples", empty=say.NO_ANSWERS)
    with gr.Accordion(say.USES, open=False):
        notes = gr.Markdown(elem_id="notes")
    with gr.Accordion(say.CURVE_TABLE, open=False):
        table = gr.Dataframe(headers=say.CURVE_COLUMNS, datatype="str", interactive=False, elem_id="curve", buttons=[])
    return _Watched(Steering(pause, stop, resume, result), to_compare, to_measure, message, fixes, notes, table)


# what happens in it


def _foresee(room: _Room) -> None:
    """What training will take follows the form and the data in hand as they change."""
    order, shared = room.order, room.shared

    @repeating
    def foresee(
        request: gr.Request, material: Material, before: tuple[Stage, ...], *values: Any
    ) -> Iterator[dict[Any, Any]]:
        try:
            config = _config(room, material, before, values)
            check_config(config, shared.jobs.owners, shared.caller(request))
            yield from _forecasts(room, config)
        except Exception as error:
            ahead = views.Ahead(refusal=words_for(error))
            yield {order.forecast: views.forecast_html(ahead), order.start: gr.update(interactive=False)}

    inputs = [shared.material, *order.asked]
    gr.on(
        [
            shared.page.load,
            shared.material.change,
            order.before.change,
            *(w.change for w in order.choices.widgets.values()),
        ],
        foresee,
        inputs,
        [order.forecast, order.start, order.foreseen],
        trigger_mode="always_last",
        concurrency_limit=1,
        **QUIET,
    )
    shared.material.change(views.material_html, shared.material, order.material, queue=False, **QUIET)


def _forecasts(room: _Room, config: RunConfig) -> Iterator[dict[Any, Any]]:
    """What a run will take: its memory at once, its time after a few steps on this machine."""
    order = room.order
    ahead = views.forecast_of(config, time=False)
    idle = not any(run.is_alive for run in list_runs(room.shared.jobs.root))  # else its steps would be slowed
    yield {order.forecast: views.forecast_html(ahead, waiting=idle), order.start: gr.update(interactive=True)}
    if idle:
        ahead = views.forecast_of(config, time=True)
        yield {order.forecast: views.forecast_html(ahead), order.foreseen: (config, ahead.seconds)}


def _config(room: _Room, material: Material, before: tuple[Stage, ...], values: tuple[Any, ...]) -> RunConfig:
    return run_form.config(by_name(room.order.choices.widgets, values), material, before)


def _start(room: _Room) -> None:
    order, shared = room.order, room.shared

    @shown(order.message)
    def begin(
        request: gr.Request, foreseen: Foreseen | None, material: Material, before: tuple[Stage, ...], *values: Any
    ) -> dict[Any, Any]:
        config = _config(room, material, before, values)
        run = shared.jobs.start(config, shared.caller(request), seconds_of(config, foreseen))
        return {shared.chosen: run.id, order.message: "", order.before: ()}

    inputs = [order.foreseen, shared.material, *order.asked]
    order.start.click(begin, inputs, [shared.chosen, order.message, order.before], **PRIVATE)


def seconds_of(config: RunConfig, foreseen: Foreseen | None) -> float | None:
    """How long a run was forecast to take; None where something else was forecast last. A name changes nothing."""
    if foreseen is None:
        return None
    one, other = (known.model_copy(update={"name": None}) for known in (config, foreseen[0]))
    return foreseen[1] if one == other else None


def _keep_stages(room: _Room) -> None:
    """Stages that are trained before the data in hand (multi-stage fine-tuning)."""
    order, shared = room.order, room.shared

    @shown(order.message)
    def keep(material: Material, before: tuple[Stage, ...], *values: Any) -> dict[Any, Any]:
        named = by_name(order.choices.widgets, values)
        kept = (*before, run_form.stage(named, material))
        return {order.before: kept, order.message: say.STAGE_ADDED.format(number=len(kept))}

    def tell(before: tuple[Stage, ...]) -> dict[Any, Any]:
        return {order.stages: views.stages_html(before), order.clear_stages: gr.update(visible=shown_if(bool(before)))}

    order.add_stage.click(keep, [shared.material, *order.asked], [order.before, order.message], **PRIVATE)
    order.clear_stages.click(lambda: ((), ""), None, [order.before, order.message], **PRIVATE)
    order.before.change(tell, order.before, [order.stages, order.clear_stages], queue=False, **QUIET)


def _follow(room: _Room) -> None:
    """What Gradio keeps of the run that is chosen; the rest is `live`."""
    watched, shared = room.watched, room.shared
    steering = watched.steering
    outputs = [steering.pause, steering.stop, steering.resume, steering.result, watched.to_compare, watched.to_measure]
    outputs += [*watched.fixes, watched.notes, watched.table]

    def stand(run_id: str | None, result: int | None) -> dict[Any, Any]:
        run = shared.jobs.find(run_id)
        progress = run.progress() if run else Progress("queued", "")
        stages, current = views.stage_results(run, progress)
        return {
            **_fixes(watched, run),
            **_pressable(watched, run, progress),
            steering.result: gr.update(choices=stages, visible=shown_if(bool(stages)), **changed(current, result)),
            watched.notes: views.notes_text(run, progress) if run else "",
            watched.table: views.curve_text(progress),
        }

    shared.keep(stand, [shared.chosen, steering.result], outputs)
    # what was said about one run says nothing about another
    shared.chosen.change(lambda: "", None, watched.message, queue=False, **QUIET)


def _pressable(watched: _Watched, run: Run | None, progress: Progress) -> dict[Any, Any]:
    """Which buttons can be pressed."""
    steering = watched.steering
    goes_on = run is not None and progress.status in ("running", "queued")
    answers = run is not None and run.readable and run.has_adapter
    each = {
        steering.pause: goes_on,
        steering.stop: goes_on,
        steering.resume: progress.status in ("stopped", "paused", "failed", "lost"),
        watched.to_compare: answers,
        watched.to_measure: answers,
    }
    return {button: gr.update(interactive=is_pressable) for button, is_pressable in each.items()}


def _fixes(watched: _Watched, run: Run | None) -> dict[Any, Any]:
    """A button for each thing that can be done about a run that failed or got lost."""
    found = diagnose(run) if run else None
    titles = [fix.title for fix in found.fixes] if found else []
    shown_titles = [*titles, *[""] * FIXES][:FIXES]
    return {
        button: gr.update(value=title, visible=shown_if(title))
        for button, title in zip(watched.fixes, shown_titles, strict=True)
    }


def _mend(room: _Room) -> None:
    """A press does what helps a run that failed or got lost."""
    shared, watched = room.shared, room.watched

    def mend(number: int) -> Any:
        @shown(watched.message)
        def retry(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
            run = shared.jobs.retry(shared.run(run_id), number, shared.caller(request))
            return {shared.chosen: run.id, watched.message: ""}

        return retry

    for number, button in enumerate(watched.fixes):
        button.click(mend(number), shared.chosen, [shared.chosen, watched.message], **PRIVATE)
