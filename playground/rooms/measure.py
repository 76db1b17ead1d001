"""The Measure room: is the run better than its base, how sure is that, what would do as well, what was forgotten, and
on which rows. Measuring is a process (`jobs`); what is shown is made in `views`; the methods' ladder is a part.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from playground import views
from playground.english import measure as say
from playground.errors import as_message, shown
from playground.parts import changes, measure_form, methods
from playground.parts.events import PRIVATE, QUIET, by_name, changed
from playground.parts.live import live_html
from playground.parts.repeating import repeating
from playground.parts.shared import Shared
from playground.views import plain_markdown
from tunelab import Run, Sweep, list_runs, read_report, report
from tunelab.measure.measurement import Measurement

# the buttons for other seeds stand where luck is spoken of
SEEDS = """
element.addEventListener("click", (event) => {
    const button = event.target.closest("[data-seeds]");
    if (button) trigger("click", { seeds: button.dataset.seeds });
});
"""


@dataclass(frozen=True)
class MeasureRoom:
    """The components other parts of the page need; `asked` becomes a `changes.Asked` when a row is to be asked by
    hand."""

    to_compare: gr.Button
    asked: gr.State


@dataclass(frozen=True)
class _Steering:
    """What is measured, and the run's measurement as it goes."""

    measure: gr.Button
    go_on: gr.Button
    stop: gr.Button
    message: gr.Markdown
    form: dict[str, Any]


@dataclass(frozen=True)
class _Card:
    make: gr.Button
    html: gr.DownloadButton
    json: gr.DownloadButton
    message: gr.Markdown


@dataclass(frozen=True)
class _Told:
    """What a page was told last, or would be now."""

    run_id: str | None
    has_adapter: bool
    state: object  # of its measurement
    reported: object  # when its report was written
    seeds: str  # what is known of them
    others: tuple[tuple[str, str], ...]  # runs to measure beside it, with their names


@dataclass(frozen=True)
class _Room:
    shared: Shared
    result: gr.HTML
    steering: _Steering
    card: _Card
    to_compare: gr.Button
    beside: gr.HTML
    seeds_message: gr.Markdown
    changes: changes.Changes


def build(shared: Shared) -> MeasureRoom:
    """The room's components and what they do."""
    with gr.Tabs(elem_id="measure-tabs"):
        with gr.Tab(say.THIS_RUN, id="this-run"):
            room = _lay_out(shared)
        with gr.Tab(say.METHODS, id="methods"):
            methods.build(shared)
    _follow(room)
    _steer(room)
    _sweep(room)
    _make_card(room)
    return MeasureRoom(room.to_compare, room.changes.asked)


# what the room looks like


def _lay_out(shared: Shared) -> _Room:
    with gr.Row(equal_height=False):
        with gr.Column(scale=9, min_width=320, elem_classes="act"):
            result = gr.HTML(views.result_html(shared.jobs, None), elem_id="result")
        with gr.Column(scale=3, min_width=280, elem_classes="act", elem_id="measure-side"):
            steering = _lay_out_steering()
            to_compare = gr.Button(say.TO_COMPARE, size="sm", elem_id="measure-to-compare", interactive=False)
            card = _lay_out_card()
    beside = gr.HTML("", elem_id="beside", js_on_load=SEEDS)
    seeds_message = gr.Markdown("", elem_classes="message", elem_id="seeds-message")
    return _Room(shared, result, steering, card, to_compare, beside, seeds_message, changes.build(shared))


def _lay_out_steering() -> _Steering:
    measure = gr.Button(say.MEASURE, variant="primary", elem_id="measure", interactive=False)
    live_html("measuring", elem_id="measuring")
    with gr.Row(elem_classes="tight"):
        go_on = gr.Button(say.GO_ON, size="sm", visible=False, elem_id="measure-go-on", min_width=80)
        stop = gr.Button(say.STOP, size="sm", visible=False, elem_id="measure-stop", min_width=80)
    message = gr.Markdown("", elem_id="measure-message", elem_classes="message")
    with gr.Accordion(say.SETTINGS, open=False, elem_id="measure-settings"):
        form = measure_form.lay_out()
    return _Steering(measure, go_on, stop, message, form)


def _lay_out_card() -> _Card:
    make = gr.Button(say.CARD_MAKE, size="sm", elem_id="card", interactive=False)
    message = gr.Markdown("", elem_id="card-message", elem_classes="message")
    with gr.Row(elem_classes="tight"):
        html = gr.DownloadButton(say.CARD_HTML, size="sm", visible=False, elem_id="card-html", min_width=120)
        facts = gr.DownloadButton(say.CARD_JSON, size="sm", visible=False, elem_id="card-json", min_width=120)
    return _Card(make, html, facts, message)


# what happens in it


def _follow(room: _Room) -> None:
    """What is shown follows the run that is chosen and its report; how far a measurement is, is `live`."""
    shared, seen = room.shared, gr.State(None)
    steering = room.steering
    against = steering.form["against"]
    buttons = [steering.measure, steering.go_on, steering.stop, against, room.to_compare]
    buttons += [room.card.make, room.card.html, room.card.json, room.card.message]
    shows = [room.result, room.beside, room.changes.place]

    @repeating
    def stand(run_id: str | None, before: _Told | None, asked: list[str] | None) -> Iterator[dict[Any, Any]]:
        run = shared.jobs.find(run_id)
        sweep = shared.jobs.sweep_of(run) if run else None
        now = _now(shared, run_id, run, sweep)
        if now == before:
            yield {seen: gr.skip()}
        elif before is not None and replace(now, others=before.others) == before:
            yield {seen: now, against: _runs_beside(asked, now.others)}
        else:
            result = {room.result: views.result_html(shared.jobs, run)}
            yield {seen: now, against: _runs_beside(asked, now.others), **_buttons(room, run), **result}
            yield {room.beside: views.beside_html(run, sweep)}
            if before is None or (now.run_id, now.reported) != (before.run_id, before.reported):
                yield from ({room.changes.place: html} for html in changes.looks(run, views.Choice()))

    events = [shared.chosen.change, shared.refresh.click]
    outputs = [seen, *buttons, *shows]
    gr.on(
        events, stand, [shared.chosen, seen, against], outputs, trigger_mode="always_last", concurrency_limit=8, **QUIET
    )
    forgotten = [steering.message, room.seeds_message]
    shared.chosen.change(lambda: ("", ""), None, forgotten, queue=False, **QUIET)


def _now(shared: Shared, run_id: str | None, run: Run | None, sweep: Sweep | None) -> _Told:
    _far, state, reported = shared.jobs.measured(run)
    others = tuple(views.run_choices(_others(shared, run)))
    seeds = str(sweep.signature()) if sweep else ""
    return _Told(run_id, run is not None and run.has_adapter, state, reported, seeds, others)


def _runs_beside(asked: list[str] | None, others: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The runs to measure beside, and of those that were chosen what is there: Gradio refuses every press that sends
    a choice which is not there any more."""
    known = [identity for _label, identity in others]
    kept = [identity for identity in asked or () if identity in known]
    return gr.update(choices=list(others), **changed(kept, asked or []))


def _others(shared: Shared, run: Run | None) -> list[Run]:
    """The runs that can be measured beside it."""
    return [one for one in list_runs(shared.jobs.root) if one.has_adapter and (run is None or one.id != run.id)]


def _buttons(room: _Room, run: Run | None) -> dict[Any, Any]:
    """What can be done with a run."""
    steering, card = room.steering, room.card
    standing = Measurement(run).standing() if run else None
    state = standing.state if standing else None
    ready, going = run is not None and run.readable and run.has_adapter, state in ("waiting", "measuring")
    measured = run is not None and read_report(run.path) is not None
    return {
        # its words stay: Gradio loses new ones that come while a room is opened for the first time
        steering.measure: gr.update(interactive=ready and not going, variant="secondary" if measured else "primary"),
        steering.go_on: gr.update(visible=state in ("stopped", "failed", "lost")),
        steering.stop: gr.update(visible=going),
        room.to_compare: gr.update(interactive=ready, variant="primary" if measured else "secondary"),
        card.make: gr.update(interactive=run is not None and run.readable),
        card.html: gr.update(visible=False),
        card.json: gr.update(visible=False),
        card.message: "",
    }


def _steer(room: _Room) -> None:
    """Measure, stop, and go on."""
    shared, steering = room.shared, room.steering

    @shown(steering.message)
    def begin(request: gr.Request, run_id: str | None, *values: Any) -> dict[Any, Any]:
        named = by_name(steering.form, values)
        others = measure_form.others(shared.jobs, named)
        shared.jobs.measure(shared.run(run_id), measure_form.settings(named), others, shared.caller(request))
        return {steering.message: "", steering.measure: gr.update(interactive=False)}

    @shown(steering.message)
    def go_on(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        shared.jobs.measure_on(shared.run(run_id), shared.caller(request))
        return {steering.message: "", steering.go_on: gr.update(visible=False)}

    @shown(steering.message)
    def end(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        shared.jobs.stop_measuring(shared.run(run_id), shared.caller(request))
        return {steering.message: say.STOPPING}

    message = steering.message
    steering.measure.click(begin, [shared.chosen, *steering.form.values()], [message, steering.measure], **PRIVATE)
    steering.go_on.click(go_on, shared.chosen, [message, steering.go_on], **PRIVATE)
    steering.stop.click(end, shared.chosen, message, **PRIVATE)
    shared.forget(message, say.STOPPING)


def _sweep(room: _Room) -> None:
    """The same run with other seeds."""
    shared, message = room.shared, room.seeds_message

    @shown(message)
    def steer(request: gr.Request, run_id: str | None, event: gr.EventData) -> dict[Any, Any]:
        run, caller = shared.run(run_id), shared.caller(request)
        sweep, wanted = shared.jobs.sweep_of(run), event._data.get("seeds")
        if sweep is None and wanted == "start":
            shared.jobs.start_sweep(run, caller, **_as_measured(run))
            return {message: say.SEEDS_STARTED}
        if sweep is not None and wanted == "stop":
            shared.jobs.stop_climbing(sweep, caller)
            return {message: say.SEEDS_STOPPING}
        if sweep is not None and wanted == "go on":
            shared.jobs.climb(sweep, caller)
        return {message: ""}

    room.beside.click(steer, shared.chosen, message, **PRIVATE)
    shared.forget(message, say.SEEDS_STARTED, say.SEEDS_STOPPING)


def _as_measured(run: Run) -> dict[str, int]:
    """How a run was measured, so that runs beside it are measured alike."""
    kept = read_report(run.path)
    values = {"rows": kept.rows, "max_new_tokens": kept.max_new_tokens} if kept else {}
    return {name: value for name, value in values.items() if value}


def _make_card(room: _Room) -> None:
    """The run's card as files to take along."""
    shared, card = room.shared, room.card

    @repeating
    def make(run_id: str | None) -> Iterator[dict[Any, Any]]:
        yield {card.message: say.CARD_MAKING, card.make: gr.update(interactive=False)}
        try:
            made = _made(card, shared.run(run_id))
        except Exception as error:
            made = {card.message: as_message(error)}
        yield {**made, card.make: gr.update(interactive=True)}

    outputs = [card.message, card.make, card.html, card.json]
    card.make.click(make, shared.chosen, outputs, concurrency_limit=1, **QUIET)


def _made(card: _Card, run: Run) -> dict[Any, Any]:
    path = _card_file(run)
    return {
        card.message: plain_markdown(say.CARD_DONE.format(name=run.name)),
        card.html: gr.update(value=str(path), visible=True),
        card.json: gr.update(value=str(path.with_suffix(".json")), visible=True),
    }


def _card_file(run: Run) -> Path:
    """The card of a run, in the folder that the page's files are served from."""
    folder = Path(tempfile.mkdtemp(prefix="card-", dir=os.environ.get("GRADIO_TEMP_DIR")))
    path = folder / f"{run.id}-card.html"
    report(run, out=path)
    return path
