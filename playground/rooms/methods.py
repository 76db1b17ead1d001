"""The Methods room: every technique on the same rows and budget, in one table and one picture, live while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import forms, views
from playground.errors import shown
from playground.jobs import Jobs
from playground.owners import Caller
from playground.parts import choices as parts
from playground.parts.events import PRIVATE, QUIET, by_name, shown_if
from tunelab import DataSpec, Ladder, LadderConfig, ModelSpec, list_ladders
from tunelab.errors import UserError
from tunelab.measure.ladder import RUNGS

POLL_SECONDS = 2.0
NUMBERS = ("steps", "batch_size", "rows")


@dataclass(frozen=True)
class _Room:
    jobs: Jobs
    form: dict[str, Any]
    start: gr.Button
    stop: gr.Button
    resume: gr.Button
    message: gr.Markdown
    chosen: gr.Dropdown  # its value is the id of the ladder that is shown
    result: gr.HTML


def build(jobs: Jobs) -> None:
    """The room's components and what they do."""
    room = _lay_out(jobs)
    _follow(room)
    _start_and_stop(room)


def _lay_out(jobs: Jobs) -> _Room:
    gr.Markdown(
        "Train every technique on the same rows, with the same seed and the same number of steps, and read what each "
        "costs and gives. The base is measured on the same held-out rows.",
        elem_classes="muted",
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            form = _lay_out_base_and_data()
        with gr.Column(scale=7, min_width=320):
            form |= _lay_out_rungs()
            with gr.Row():
                start = gr.Button("Start", variant="primary", elem_id="start-ladder")
                stop = gr.Button("Stop", elem_id="stop-ladder", interactive=False)
                resume = gr.Button("Go on", elem_id="resume-ladder", interactive=False)
            message = gr.Markdown("", elem_id="ladder-message", elem_classes="message")
    chosen = gr.Dropdown(
        [],
        label="Ladders",
        info="The newest first; each can be gone on with.",
        elem_id="ladders",
        visible="hidden",
    )
    return _Room(jobs, form, start, stop, resume, message, chosen, gr.HTML("", elem_id="ladder-result"))


def _lay_out_base_and_data() -> dict[str, Any]:
    widgets: dict[str, Any] = {
        "repo_id": parts.model_choice("Base model"),
        "source": parts.builtin_choice(),
        "file": parts.rows_file(elem_id="ladder-file"),
    }
    with gr.Accordion("A held-out file of its own", open=False):
        widgets["heldout_file"] = parts.rows_file("Held-out rows")
    return widgets


def _lay_out_rungs() -> dict[str, Any]:
    techniques = gr.CheckboxGroup(
        views.rung_choices(RUNGS),
        value=["qlora", "bottleneck", "prefix", "ia3"],
        label="Techniques",
        info="Names beginning with Q stand on a base quantised to 4 bits (NF4).",
        elem_id="rungs",
    )
    with gr.Row():
        numbers = {name: forms.widget(LadderConfig, name) for name in NUMBERS}
    return {"techniques": techniques, **numbers}


def _follow(room: _Room) -> None:
    """The clock by which the page follows the ladder. Nothing is sent while nothing has changed."""
    seen = gr.State(None)
    timer = gr.Timer(POLL_SECONDS)
    outputs = [seen, room.chosen, room.result, room.stop, room.resume]

    def poll(identity: str | None, before: Any) -> dict[Any, Any]:
        ladders = list_ladders(room.jobs.root)
        ladder = next((one for one in ladders if one.id == identity), ladders[0] if ladders else None)
        state = [[one.id for one in ladders], ladder.signature() if ladder else None]
        if state == before:
            return {seen: gr.skip()}
        return {seen: state, **_as_they_stand(room, ladders, ladder)}

    for event in (timer.tick, room.chosen.change):
        event(poll, [room.chosen, seen], outputs, queue=False, **QUIET)


def _as_they_stand(room: _Room, ladders: list[Ladder], ladder: Ladder | None) -> dict[Any, Any]:
    alive = ladder is not None and ladder.is_alive
    unfinished = ladder is not None and any(rung.status != "done" for rung in ladder.rungs())
    choices, value = views.ladder_choices(ladders), ladder.id if ladder else None
    return {
        room.chosen: gr.update(choices=choices, value=value, visible=shown_if(bool(ladders))),
        room.result: views.ladder_html(ladder) if ladder else "",
        room.stop: gr.update(interactive=alive),
        room.resume: gr.update(interactive=unfinished and not alive),
    }


def _start_and_stop(room: _Room) -> None:
    jobs, chosen, message = room.jobs, room.chosen, room.message

    @shown(message)
    def begin(*values: Any) -> dict[Any, Any]:
        ladder = jobs.start_ladder(_config(jobs, by_name(room.form, values)), Caller.server())
        choices = views.ladder_choices(list_ladders(jobs.root))
        return {chosen: gr.update(choices=choices, value=ladder.id, visible=True), message: ""}

    @shown(message)
    def end(identity: str | None) -> dict[Any, Any]:
        jobs.stop_ladder(_wanted(jobs, identity), Caller.server())
        return {message: "It stops after the step it is in; what is done is kept."}

    @shown(message)
    def go_on(identity: str | None) -> dict[Any, Any]:
        jobs.climb(_wanted(jobs, identity), Caller.server())
        return {message: ""}

    room.start.click(begin, list(room.form.values()), [chosen, message], **PRIVATE)
    room.stop.click(end, chosen, message, **PRIVATE)
    room.resume.click(go_on, chosen, message, **PRIVATE)


def _config(jobs: Jobs, values: dict[str, Any]) -> LadderConfig:
    """The configuration the form describes."""
    if not values["techniques"]:
        raise UserError("No technique is chosen. Choose at least one.")
    return LadderConfig.model_validate(
        {
            "model": ModelSpec(repo_id=values["repo_id"] or "starter"),
            "data": DataSpec.model_validate(parts.data_values(jobs, values)),
            # in the ladder's own order, whatever the order of the clicks
            "techniques": [name for name in RUNGS if name in values["techniques"]],
            **forms.values_for(LadderConfig, {name: values[name] for name in NUMBERS}),
        }
    )


def _wanted(jobs: Jobs, identity: str | None) -> Ladder:
    ladder = next((one for one in list_ladders(jobs.root) if one.id == identity), None)
    if ladder is None:
        raise UserError("No ladder is chosen. Start one, or choose one in the list.")
    return ladder
