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
from playground.parts.events import PRIVATE, QUIET, by_name, shown_if
from playground.parts.live import live_html
from playground.parts.shared import Shared
from playground.sources import check_config
from tunelab import Progress, Run, RunConfig, Stage, diagnose, list_runs

FIXES = 3  # the best ones


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
    start: gr.Button
    message: gr.Markdown

    @property
    def asked(self) -> list[Any]:
        """What a configuration is made of, as inputs: the data in hand, the stages before, the form."""
        return [self.before, *self.choices.widgets.values()]


@dataclass(frozen=True)
class _Watched:
    """The run that is chosen: how it goes, and what can be done with it."""

    pause: gr.Button
    stop: gr.Button
    resume: gr.Button
    to_compare: gr.Button
    to_measure: gr.Button
    result: gr.Dropdown
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
    _steer(room)
    return TrainRoom(order.change_data, watched.to_compare, watched.to_measure, order.choices, order.before)


# what the room looks like


def _lay_out_order(shared: Shared) -> _Order:
    with gr.Row(equal_height=True, elem_classes="tight"):
        material = gr.HTML(views.material_html(Material()), elem_id="material")
        change = gr.Button(say.CHANGE_DATA, size="sm", min_width=80, scale=0, elem_id="change-data")
    choices = run_form.lay_out(shared.jobs)
    before = gr.State(())
    stages = gr.HTML("", elem_id="stages")
    forecast = gr.HTML("", elem_id="forecast")
    with gr.Row(elem_classes="tight"):
        start = gr.Button(say.START, variant="primary", elem_id="start", scale=4, min_width=180)
        add = gr.Button(say.ADD_STAGE, elem_id="add-stage", scale=2, min_width=130)
        clear = gr.Button(say.CLEAR_STAGES, visible="hidden", elem_id="clear-stages", scale=2, min_width=130)
    message = gr.Markdown("", elem_id="train-message", elem_classes="message")
    return _Order(material, change, choices, before, stages, add, clear, forecast, start, message)


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
    result = gr.Dropdown(
        [], label=say.RESULT, info=say.RESULT_HELP, visible="hidden", interactive=True, elem_id="stage-result"
    )
    message = gr.Markdown("", elem_id="run-message", elem_classes="message")
    with gr.Accordion(say.ANSWERS, open=False):
        live_html("samples", elem_id="samples", empty=say.NO_ANSWERS)
    with gr.Accordion(say.USES, open=False):
        notes = gr.Markdown(elem_id="notes")
    with gr.Accordion(say.CURVE_TABLE, open=False):
        table = gr.Dataframe(
            headers=views.CURVE_COLUMNS, datatype="str", interactive=False, elem_id="curve", buttons=[]
        )
    return _Watched(pause, stop, resume, to_compare, to_measure, result, message, fixes, notes, table)


# what happens in it


def _foresee(room: _Room) -> None:
    """What training will take follows the form and the data in hand as they change."""
    order, shared = room.order, room.shared

    def foresee(
        request: gr.Request, material: Material, before: tuple[Stage, ...], *values: Any
    ) -> Iterator[dict[Any, Any]]:
        try:
            config = _config(room, material, before, values)
            check_config(config, shared.jobs.owners, shared.caller(request))
            ahead = views.forecast_of(config, time=False)
            idle = not any(run.is_alive for run in list_runs(shared.jobs.root))  # else its steps would be slowed
            yield {order.forecast: views.forecast_html(ahead, waiting=idle), order.start: gr.update(interactive=True)}
            if idle:
                yield {order.forecast: views.forecast_html(views.forecast_of(config, time=True))}
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
        [order.forecast, order.start],
        trigger_mode="always_last",
        concurrency_limit=1,
        **QUIET,
    )
    shared.material.change(views.material_html, shared.material, order.material, queue=False, **QUIET)


def _config(room: _Room, material: Material, before: tuple[Stage, ...], values: tuple[Any, ...]) -> RunConfig:
    return run_form.config(by_name(room.order.choices.widgets, values), material, before)


def _start(room: _Room) -> None:
    order, shared = room.order, room.shared

    @shown(order.message)
    def begin(request: gr.Request, material: Material, before: tuple[Stage, ...], *values: Any) -> dict[Any, Any]:
        run = shared.jobs.start(_config(room, material, before, values), shared.caller(request))
        return {shared.chosen: run.id, order.message: "", order.before: ()}

    inputs = [shared.material, *order.asked]
    order.start.click(begin, inputs, [shared.chosen, order.message, order.before], **PRIVATE)


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
    outputs = [watched.pause, watched.stop, watched.resume, watched.to_compare, watched.to_measure, watched.result]
    outputs += [*watched.fixes, watched.notes, watched.table]

    def stand(run_id: str | None) -> dict[Any, Any]:
        run = shared.jobs.find(run_id)
        progress = run.progress() if run else Progress("queued", "")
        stages, current = views.stage_results(run, progress)
        answers = gr.update(interactive=run is not None and run.readable and run.has_adapter)
        goes_on = gr.update(interactive=run is not None and progress.status in ("running", "queued"))
        return {
            **_fixes(watched, run),
            watched.pause: goes_on,
            watched.stop: goes_on,
            watched.resume: gr.update(interactive=progress.status in ("stopped", "paused", "failed", "lost")),
            watched.to_compare: answers,
            watched.to_measure: answers,
            watched.result: gr.update(choices=stages, value=current, visible=shown_if(bool(stages))),
            watched.notes: views.notes_text(run, progress) if run else "",
            watched.table: views.curve_text(progress),
        }

    for event in (shared.refresh.click, shared.chosen.change):
        event(stand, shared.chosen, outputs, queue=False, **QUIET)
    # what was said about one run says nothing about another
    shared.chosen.change(lambda: "", None, watched.message, queue=False, **QUIET)


def _fixes(watched: _Watched, run: Run | None) -> dict[Any, Any]:
    """A button for each thing that can be done about a run that failed or got lost."""
    found = diagnose(run) if run else None
    titles = [fix.title for fix in found.fixes] if found else []
    shown_titles = [*titles, *[""] * FIXES][:FIXES]
    return {
        button: gr.update(value=title, visible=shown_if(title))
        for button, title in zip(watched.fixes, shown_titles, strict=True)
    }


def _steer(room: _Room) -> None:
    """Pause, stop, go on, mend, and go back to the end of another stage."""
    shared, watched = room.shared, room.watched

    @shown(watched.message)
    def end(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        run = shared.run(run_id)
        queued = run.status == "queued"
        shared.jobs.stop(run, shared.caller(request))
        return {watched.message: "" if queued else say.STOPPING}

    @shown(watched.message)
    def pause(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        shared.jobs.pause(shared.run(run_id), shared.caller(request))
        return {watched.message: say.PAUSING}

    def mend(number: int) -> Any:
        @shown(watched.message)
        def retry(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
            run = shared.jobs.retry(shared.run(run_id), number, shared.caller(request))
            return {shared.chosen: run.id, watched.message: ""}

        return retry

    @shown(watched.message)
    def go_on(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        shared.jobs.resume(shared.run(run_id), shared.caller(request))
        return {watched.message: ""}

    @shown(watched.message)
    def go_back(request: gr.Request, run_id: str | None, stage: int) -> dict[Any, Any]:
        run = shared.run(run_id)
        if views.stage_results(run, run.progress())[1] != stage:  # the browser may say it twice
            shared.jobs.roll_back(run, stage, shared.caller(request))
        return {watched.message: run.progress().message}

    watched.pause.click(pause, shared.chosen, watched.message, **PRIVATE)
    for number, button in enumerate(watched.fixes):
        button.click(mend(number), shared.chosen, [shared.chosen, watched.message], **PRIVATE)
    watched.stop.click(end, shared.chosen, watched.message, **PRIVATE)
    watched.resume.click(go_on, shared.chosen, watched.message, **PRIVATE)
    watched.result.input(go_back, [shared.chosen, watched.result], watched.message, concurrency_limit=1, **PRIVATE)
