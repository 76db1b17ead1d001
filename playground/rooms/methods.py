"""The Methods tab: every technique on the same rows and budget, in one table and one picture, live while it runs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from playground import forms, views
from playground.errors import shown
from playground.jobs import Jobs
from tunelab import DataSpec, Ladder, LadderConfig, ModelSpec, list_ladders
from tunelab.data.builtin import BUILTIN
from tunelab.errors import UserError
from tunelab.ladder import RUNGS

POLL_SECONDS = 2.0
NUMBERS = ("steps", "batch_size", "rows")


def build(jobs: Jobs) -> None:
    """The tab's components and what they do."""
    gr.Markdown(
        "Train every technique on the same rows, with the same seed and the same number of steps, and read what each "
        "costs and gives. The base is measured on the same held-out rows.",
        elem_classes="muted",
    )
    inputs: dict[str, Any] = {}
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            inputs["repo_id"] = gr.Dropdown(
                ["starter"], value="starter", allow_custom_value=True, label="Base model",
                info=ModelSpec.model_fields["repo_id"].description,
            )  # fmt: skip
            inputs["source"] = gr.Radio(
                list(BUILTIN), value="python-docs", label="Built-in data", info="Used when no file is given."
            )
            inputs["file"] = gr.File(
                label="Your own data: CSV, JSON or JSONL", file_count="single", height=170, elem_id="ladder-file"
            )
            with gr.Accordion("A held-out file of its own", open=False):
                inputs["heldout_file"] = gr.File(label="Held-out rows", file_count="single", height=170)
        with gr.Column(scale=7, min_width=320):
            inputs["techniques"] = gr.CheckboxGroup(
                views.rung_choices(RUNGS), value=["qlora", "bottleneck", "prefix", "ia3"], label="Techniques",
                info="Names beginning with Q stand on a base quantised to 4 bits (NF4).", elem_id="rungs",
            )  # fmt: skip
            with gr.Row():
                for name in NUMBERS:
                    inputs[name] = forms.widget(LadderConfig, name)
            with gr.Row():
                start = gr.Button("Start", variant="primary", elem_id="start-ladder")
                stop = gr.Button("Stop", elem_id="stop-ladder", interactive=False)
                resume = gr.Button("Go on", elem_id="resume-ladder", interactive=False)
            message = gr.Markdown("", elem_id="ladder-message", elem_classes="message")
    chosen = gr.Dropdown(
        [], label="Ladders", info="The newest first; each can be gone on with.", elem_id="ladders", visible=False
    )
    result = gr.HTML("", elem_id="ladder-result")
    seen = gr.State(None)
    timer = gr.Timer(POLL_SECONDS)
    outputs = [seen, chosen, result, stop, resume]

    def poll(identity: str | None, before: Any) -> dict[Any, Any]:
        ladders = list_ladders(jobs.root)
        ladder = next((one for one in ladders if one.id == identity), ladders[0] if ladders else None)
        state = [[one.id for one in ladders], ladder.signature() if ladder else None]
        if state == before:
            return {seen: gr.skip()}
        alive = ladder is not None and ladder.is_alive
        unfinished = ladder is not None and any(rung.status != "done" for rung in ladder.rungs())
        return {
            seen: state,
            chosen: gr.update(
                choices=views.ladder_choices(ladders), value=ladder.id if ladder else None, visible=bool(ladders)
            ),
            result: views.ladder_html(ladder) if ladder else "",
            stop: gr.update(interactive=alive),
            resume: gr.update(interactive=unfinished and not alive),
        }

    timer.tick(poll, [chosen, seen], outputs, queue=False, show_progress="hidden", api_visibility="private")
    chosen.change(poll, [chosen, seen], outputs, queue=False, show_progress="hidden", api_visibility="private")

    names = list(inputs)

    @shown(message)
    def begin(*values: Any) -> dict[Any, Any]:
        ladder = jobs.start_ladder(_config(jobs, dict(zip(names, values, strict=True))))
        choices = views.ladder_choices(list_ladders(jobs.root))
        return {chosen: gr.update(choices=choices, value=ladder.id, visible=True), message: ""}

    @shown(message)
    def end(identity: str | None) -> dict[Any, Any]:
        _wanted(jobs, identity).request_stop()
        return {message: "It stops after the step it is in; what is done is kept."}

    @shown(message)
    def go_on(identity: str | None) -> dict[Any, Any]:
        jobs.climb(_wanted(jobs, identity))
        return {message: ""}

    start.click(begin, list(inputs.values()), [chosen, message], api_visibility="private")
    stop.click(end, chosen, message, api_visibility="private")
    resume.click(go_on, chosen, message, api_visibility="private")


def _config(jobs: Jobs, values: dict[str, Any]) -> LadderConfig:
    """The configuration the form describes."""
    if not values["techniques"]:
        raise UserError("No technique is chosen. Choose at least one.")
    data: dict[str, Any] = {"source": jobs.keep_upload(values["file"]) if values["file"] else values["source"]}
    if values["heldout_file"]:
        data["heldout"] = jobs.keep_upload(values["heldout_file"])
    return LadderConfig.model_validate(
        {
            "model": ModelSpec(repo_id=values["repo_id"] or "starter"),
            "data": DataSpec.model_validate(data),
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
