"""Runs are deleted by a second press, come back by one more, and are gone for good when whoever runs the server says
so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.english import runs as say
from playground.errors import shown
from playground.parts.events import PRIVATE, QUIET, shown_if
from playground.parts.hidden import hidden
from playground.parts.live import live_html
from playground.parts.shared import Shared
from tunelab import Run, list_runs
from tunelab.run.deleting import run_bytes
from tunelab.runs_cli import size_text


@dataclass(frozen=True)
class Deleting:
    """A button to delete the run that is chosen, and what brings one back."""

    delete: gr.Button
    undo: gr.Button
    message: gr.Markdown
    sure: gr.State  # the id of the run that a second press deletes
    gone: gr.State  # the id of the run that was deleted last
    restore: gr.Textbox  # filled by the page's script: the id of one in the list of deleted runs

    @property
    def unsure(self) -> dict[Any, Any]:
        """The button as it is before the first press."""
        return {self.sure: None, self.delete: gr.update(value=say.DELETE, variant="secondary")}


def of_chosen(delete: gr.Button, undo: gr.Button, message: gr.Markdown) -> Deleting:
    """What deletes with these buttons."""
    return Deleting(delete, undo, message, gr.State(None), gr.State(None), hidden("restore-run"))


@dataclass(frozen=True)
class Bin:
    """The runs that were deleted."""

    drawer: gr.Accordion
    go: gr.Button
    sure: gr.State
    message: gr.Markdown


def lay_out_bin() -> Bin:
    """The list of deleted runs, with a button that removes them for good."""
    with gr.Accordion(say.BIN, open=False, elem_id="bin") as drawer:
        live_html("deleted", elem_id="deleted", empty=say.BIN_EMPTY)
        go = gr.Button(say.EMPTY_BIN, size="sm", visible="hidden", elem_id="empty-bin")
        message = gr.Markdown("", elem_id="bin-message", elem_classes="message")
    return Bin(drawer, go, gr.State(False), message)


def wire_deleting(shared: Shared, part: Deleting) -> None:
    """A second press deletes; one more brings it back."""
    jobs = shared.jobs

    @shown(part.message)
    def delete(request: gr.Request, run_id: str | None, sure: str | None) -> dict[Any, Any]:
        run = shared.run(run_id)
        if sure != run.id:
            jobs.owners.check(run, shared.caller(request))
            words = say.REALLY.format(size=size_text(run_bytes(run)))
            return {part.sure: run.id, part.delete: gr.update(value=words, variant="stop")}
        name, next_one = run.name, _beside(run, jobs.root)
        deleted = jobs.delete(run, shared.caller(request))
        said = views.plain_markdown(say.DELETED.format(name=name, size=size_text(deleted.bytes)))
        undo = {part.gone: run.id, part.undo: gr.update(visible=True)}
        return {**part.unsure, **undo, shared.chosen: next_one, part.message: said}

    @shown(part.message)
    def restore(request: gr.Request, pressed: str | None) -> dict[Any, Any]:
        run = jobs.restore((pressed or "").partition(" ")[0], shared.caller(request))
        said = views.plain_markdown(say.RESTORED.format(name=run.name))
        return {shared.chosen: run.id, part.message: said, part.undo: gr.update(visible="hidden")}

    outputs = [part.sure, part.delete, shared.chosen, part.gone, part.undo, part.message]
    part.delete.click(delete, [shared.chosen, part.sure], outputs, concurrency_limit=1, **PRIVATE)
    back = [shared.chosen, part.message, part.undo]
    part.undo.click(restore, part.gone, back, **PRIVATE)
    part.restore.change(restore, part.restore, back, **PRIVATE)


def _beside(run: Run, root: Any) -> str | None:
    """The run that is chosen when this one is gone: the one below it, else the newest."""
    others = [one.id for one in list_runs(root) if one.id != run.id]
    return next((one for one in others if one < run.id), others[0] if others else None)


def wire_bin(shared: Shared, part: Bin) -> None:
    """Whoever runs the server can remove what was deleted."""
    jobs = shared.jobs

    def offer(request: gr.Request) -> dict[Any, Any]:
        is_server = jobs.owners.runs_server(shared.caller(request))
        return {
            part.sure: False,
            part.go: gr.update(value=say.EMPTY_BIN, variant="secondary", visible=shown_if(is_server)),
        }

    @shown(part.message)
    def empty(request: gr.Request, sure: bool) -> dict[Any, Any]:
        if not sure:
            return {part.sure: True, part.go: gr.update(value=say.EMPTY_BIN_SURE, variant="stop")}
        freed = size_text(jobs.empty_deleted(shared.caller(request)))
        done = gr.update(value=say.EMPTY_BIN, variant="secondary")
        return {part.sure: False, part.go: done, part.message: say.EMPTIED.format(size=freed)}

    part.drawer.expand(offer, None, [part.go, part.sure], queue=False, **QUIET)
    part.go.click(empty, part.sure, [part.sure, part.go, part.message], **PRIVATE)
