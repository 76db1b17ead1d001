"""What is taken along from the run that is chosen: files, and the run as code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground.english import runs as say
from playground.errors import shown
from playground.parts.events import PRIVATE, QUIET
from playground.parts.hidden import hidden
from playground.parts.live import live_html
from playground.parts.shared import Shared
from tunelab import Run, as_command, as_python
from tunelab.runs_cli import size_text

LOOK = "() => window.playground?.look()"
LONGEST_CODE = 30_000  # characters of a configuration that is shown


@dataclass(frozen=True)
class Taking:
    """The run as code, and what is to be made of it."""

    make: gr.Textbox  # filled by the page's script
    drawer: gr.Accordion
    command: gr.Textbox
    python: gr.Textbox


def lay_out() -> Taking:
    """Two drawers."""
    with gr.Accordion(say.TAKE, open=False, elem_id="take-along"):
        live_html("take", elem_id="take")
    with gr.Accordion(say.AS_CODE, open=False, elem_id="as-code") as drawer:
        command, python = (
            gr.Textbox(label=label, info=info, lines=2, max_lines=12, interactive=False, buttons=["copy"], elem_id=name)
            for label, info, name in (
                (say.COMMAND, say.COMMAND_HELP, "run-command"),
                (say.PYTHON, say.PYTHON_HELP, "run-python"),
            )
        )
    return Taking(hidden("make-export"), drawer, command, python)


def wire(shared: Shared, taking: Taking, message: gr.Markdown) -> None:
    """Exports that take a while, and the run as code."""
    jobs = shared.jobs

    @shown(message)
    def make(pressed: str) -> dict[Any, Any]:
        run_id, _, kind = pressed.partition(" ")[0].partition("/")
        jobs.exports.make(shared.run(run_id), kind)
        return {message: ""}

    @shown(message)
    def write(run_id: str | None) -> dict[Any, Any]:
        run = jobs.find(run_id)
        if run is None or not run.readable or run.imported_from:
            return {taking.command: "", taking.python: ""}
        return {taking.command: as_command(run), taking.python: _python(run)}

    taking.make.change(make, taking.make, message, **PRIVATE).then(None, None, None, js=LOOK)
    events, outputs = [taking.drawer.expand, shared.chosen.change], [taking.command, taking.python, message]
    gr.on(events, write, shared.chosen, outputs, trigger_mode="always_last", queue=False, **QUIET)


def _python(run: Run) -> str:
    """Its configuration as Python, where it is one that people read."""
    size = len(run.config.model_dump_json())
    return as_python(run.pinned) if size <= LONGEST_CODE else say.TOO_LONG.format(size=size_text(size))
