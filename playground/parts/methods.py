"""Methods compared: every technique on the data in hand with one budget, in one table and one picture, live while it
runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from playground import forms, views
from playground.english import measure as say
from playground.errors import shown
from playground.jobs import Jobs
from playground.material import Material
from playground.parts import choices as parts
from playground.parts.choices import OfTheMoment
from playground.parts.events import PRIVATE, QUIET, by_name, changed, shown_if
from playground.parts.shared import Shared
from tunelab import Ladder, LadderConfig, ModelSpec, list_ladders
from tunelab.errors import UserError
from tunelab.measure.ladder import RUNGS

NUMBERS = ("steps", "batch_size", "rows")


@dataclass(frozen=True)
class _Part:
    jobs: Jobs
    form: dict[str, Any]
    start: gr.Button
    stop: gr.Button
    resume: gr.Button
    message: gr.Markdown
    chosen: gr.Dropdown  # its value is the id of the ladder that is shown
    result: gr.HTML


def build(shared: Shared) -> None:
    """The components of the comparison and what they do."""
    part = _lay_out(shared)
    _follow(shared, part)
    _start_and_stop(shared, part)


def _lay_out(shared: Shared) -> _Part:
    gr.Markdown(say.LADDER_WORDS, elem_classes="muted")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            material = gr.HTML(views.material_html(Material()), elem_id="ladder-material")
            model = parts.model_choice(say.LADDER_MODEL)
        with gr.Column(scale=7, min_width=320):
            form = {"repo_id": model, **_lay_out_rungs()}
            with gr.Row(elem_classes="tight"):
                start = gr.Button(say.LADDER_START, variant="primary", elem_id="start-ladder", min_width=100)
                stop = gr.Button(say.LADDER_STOP, elem_id="stop-ladder", interactive=False, min_width=100)
                resume = gr.Button(say.LADDER_RESUME, elem_id="resume-ladder", interactive=False, min_width=100)
            message = gr.Markdown("", elem_id="ladder-message", elem_classes="message")
    chosen = OfTheMoment([], label=say.LADDERS, info=say.LADDERS_HELP, elem_id="ladders", visible="hidden")
    shared.material.change(views.material_html, shared.material, material, queue=False, **QUIET)
    return _Part(shared.jobs, form, start, stop, resume, message, chosen, gr.HTML("", elem_id="ladder-result"))


def _lay_out_rungs() -> dict[str, Any]:
    techniques = gr.CheckboxGroup(
        views.rung_choices(RUNGS),
        value=["qlora", "bottleneck", "prefix", "ia3"],
        label=say.TECHNIQUES,
        info=say.TECHNIQUES_HELP,
        elem_id="rungs",
    )
    with gr.Row(elem_classes="settings"):
        numbers = {name: forms.widget(LadderConfig, name) for name in NUMBERS}
    return {"techniques": techniques, **numbers}


def _follow(shared: Shared, part: _Part) -> None:
    """Which ladders there are and what can be done with the one that is shown; how it stands is `live`."""

    def stand(identity: str | None) -> dict[Any, Any]:
        ladders = list_ladders(shared.jobs.root)
        ladder = next((one for one in ladders if one.id == identity), ladders[0] if ladders else None)
        choices, value = views.ladder_choices(ladders), ladder.id if ladder else None
        return {
            part.chosen: gr.update(choices=choices, visible=shown_if(ladders), **changed(value, identity)),
            part.result: _place(value) if value != identity else gr.skip(),
            **_pressable(part, ladder),
        }

    def show(identity: str | None) -> dict[Any, Any]:
        return {**stand(identity), part.result: _place(identity)}

    outputs = [part.chosen, part.result, part.stop, part.resume]
    shared.keep(stand, part.chosen, outputs)
    part.chosen.change(show, part.chosen, outputs, queue=False, **QUIET)


def _place(identity: str | None) -> str:
    """What the page's script fills with a ladder's table."""
    return f'<div data-live="series~{escape(identity)}"></div>' if identity else ""


def _pressable(part: _Part, ladder: Ladder | None) -> dict[Any, Any]:
    """Which buttons can be pressed."""
    alive = ladder is not None and ladder.is_alive
    unfinished = ladder is not None and any(rung.status != "done" for rung in ladder.rungs())
    return {part.stop: gr.update(interactive=alive), part.resume: gr.update(interactive=unfinished and not alive)}


def _start_and_stop(shared: Shared, part: _Part) -> None:
    jobs, chosen, message = part.jobs, part.chosen, part.message

    @shown(message)
    def begin(request: gr.Request, material: Material, *values: Any) -> dict[Any, Any]:
        ladder = jobs.start_ladder(_config(material, by_name(part.form, values)), shared.caller(request))
        choices = views.ladder_choices(list_ladders(jobs.root))
        return {chosen: gr.update(choices=choices, value=ladder.id, visible=True), message: ""}

    @shown(message)
    def end(request: gr.Request, identity: str | None) -> dict[Any, Any]:
        jobs.stop_climbing(_wanted(jobs, identity), shared.caller(request))
        return {message: say.LADDER_STOPPING}

    @shown(message)
    def go_on(request: gr.Request, identity: str | None) -> dict[Any, Any]:
        jobs.climb(_wanted(jobs, identity), shared.caller(request))
        return {message: ""}

    part.start.click(begin, [shared.material, *part.form.values()], [chosen, message], **PRIVATE)
    part.stop.click(end, chosen, message, **PRIVATE)
    part.resume.click(go_on, chosen, message, **PRIVATE)
    shared.forget(message, say.LADDER_STOPPING)


def _config(material: Material, values: dict[str, Any]) -> LadderConfig:
    """The configuration the form describes, on the data in hand."""
    if not values["techniques"]:
        raise UserError(say.NO_TECHNIQUE)
    if material.learn == "text":
        raise UserError(say.LADDER_TEXT)
    return LadderConfig.model_validate(
        {
            "model": ModelSpec(repo_id=values["repo_id"] or "starter"),
            "data": material.data,
            # in the ladder's own order, whatever the order of the clicks
            "techniques": [name for name in RUNGS if name in values["techniques"]],
            **forms.values_for(LadderConfig, {name: values[name] for name in NUMBERS}),
        }
    )


def _wanted(jobs: Jobs, identity: str | None) -> Ladder:
    ladder = next((one for one in list_ladders(jobs.root) if one.id == identity), None)
    if ladder is None:
        raise UserError(say.NO_LADDER)
    return ladder
