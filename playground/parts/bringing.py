"""An adapter made elsewhere becomes a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.english import runs as say
from playground.errors import shown
from playground.parts.choices import model_choice
from playground.parts.events import PRIVATE
from playground.parts.shared import Shared
from tunelab import ModelSpec


@dataclass(frozen=True)
class Bringing:
    """The file, the base it was made for, and what it is to be called."""

    file: gr.File
    model: gr.Dropdown
    name: gr.Textbox
    go: gr.Button
    message: gr.Markdown


def lay_out() -> Bringing:
    """A drawer."""
    with gr.Accordion(say.BRING, open=False, elem_id="bring"):
        file = gr.File(label=say.BRING_FILE, file_types=[".zip"], height=120, elem_id="bring-file")
        with gr.Row(elem_classes="settings"):
            model = model_choice(say.BRING_MODEL, say.BRING_MODEL_HELP)
            name = gr.Textbox(label=say.BRING_NAME, info=say.BRING_NAME_HELP, max_lines=1, elem_id="bring-name")
        go = gr.Button(say.BRING_BUTTON, size="sm", elem_id="bring-go")
        message = gr.Markdown("", elem_id="bring-message", elem_classes="message")
    return Bringing(file, model, name, go, message)


def wire(shared: Shared, bring: Bringing) -> None:
    """A press takes the adapter in, and chooses it."""

    @shown(bring.message)
    def take_in(request: gr.Request, file: str | None, model: str, name: str) -> dict[Any, Any]:
        if not file:
            return {bring.message: say.BRING_NOTHING}
        spec = ModelSpec(repo_id=model or "starter")
        run = shared.jobs.bring(file, spec, name.strip() or None, shared.caller(request))
        said = views.plain_markdown(say.BROUGHT.format(name=run.name))
        return {shared.chosen: run.id, bring.message: said, bring.file: None}

    outputs = [shared.chosen, bring.message, bring.file]
    bring.go.click(take_in, [bring.file, bring.model, bring.name], outputs, concurrency_limit=1, **PRIVATE)
