"""What a run is called: its name, tags and note, kept when their field is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground.english import runs as say
from playground.errors import shown
from playground.parts.events import QUIET
from playground.parts.hidden import hidden
from playground.parts.shared import Shared
from tunelab import Run

LOOK = "() => window.playground?.look()"


@dataclass(frozen=True)
class Labels:
    """What a run is called, and of which run the fields say it."""

    of: gr.Textbox
    name: gr.Textbox
    tags: gr.Textbox
    note: gr.Textbox
    said: gr.Markdown

    @property
    def fields(self) -> list[Any]:
        return [self.of, self.name, self.tags, self.note]


def lay_out() -> Labels:
    """The fields."""
    with gr.Row(elem_classes="settings"):
        name = gr.Textbox(label=say.NAME, info=say.NAME_HELP, max_lines=1, min_width=140, elem_id="run-name")
        tags = gr.Textbox(label=say.TAGS, info=say.TAGS_HELP, max_lines=1, min_width=140, elem_id="run-tags")
    note = gr.Textbox(label=say.NOTE, info=say.NOTE_HELP, lines=1, max_lines=6, elem_id="run-note")
    said = gr.Markdown("", elem_id="labels-message", elem_classes="message")
    return Labels(hidden("labels-of"), name, tags, note, said)


def labelled(labels: Labels, run: Run | None) -> dict[Any, Any]:
    """The fields as a run is called now."""
    known = run.labels if run else None
    return {
        labels.of: run.id if run else "",
        labels.name: gr.update(value=run.name if run else "", interactive=run is not None),
        labels.tags: gr.update(value=", ".join(known.tags) if known else "", interactive=run is not None),
        labels.note: gr.update(value=known.note if known else "", interactive=run is not None),
        labels.said: "",
    }


def keep_labels(shared: Shared, labels: Labels) -> None:
    """Name, tags and note are kept when their field is left. The fields say of which run they are: another one may
    have been chosen meanwhile."""

    @shown(labels.said)
    def keep(request: gr.Request, run_id: str, name: str, tags: str, note: str) -> dict[Any, Any]:
        if not run_id:
            return {labels.said: ""}
        run = shared.run(run_id)
        given = {"name": name, "tags": [tag.strip() for tag in tags.split(",") if tag.strip()], "note": note}
        now = {"name": run.name, "tags": list(run.labels.tags), "note": run.labels.note}
        changed: dict[str, Any] = {field: value for field, value in given.items() if value != now[field]}
        if not changed:
            return {labels.said: ""}
        shared.jobs.label(run, shared.caller(request), **changed)
        return {labels.said: say.SAVED}

    for field in (labels.name, labels.tags, labels.note):
        kept = field.blur(keep, labels.fields, labels.said, **QUIET)
        kept.then(None, None, None, js=LOOK)
    for field in (labels.name, labels.tags):
        field.submit(keep, labels.fields, labels.said, **QUIET).then(None, None, None, js=LOOK)
