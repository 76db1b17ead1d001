"""What a tuning changed: bars that filter each other and the rows that are left. A press leads to what stands in its
button; the component sends it as an event of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.parts.events import QUIET
from playground.parts.shared import Shared
from tunelab import Run

# a press is told to the server; after the answer the same button has the focus, and lists stand where they stood
PRESSES = """
let pressed = null, scrolled = {};
element.addEventListener("click", (event) => {
    const button = event.target.closest("[data-press], [data-ask]");
    if (!button) return;
    pressed = button.dataset.key;
    scrolled = {};
    for (const list of element.querySelectorAll("[data-scroll]")) scrolled[list.dataset.scroll] = list.scrollTop;
    trigger("click", button.dataset.ask ? { ask: Number(button.dataset.ask) } : { press: button.dataset.press });
});
watch("value", () => {
    for (const list of element.querySelectorAll("[data-scroll]")) list.scrollTop = scrolled[list.dataset.scroll] ?? 0;
    if (pressed) element.querySelector(`[data-key="${CSS.escape(pressed)}"]`)?.focus({ preventScroll: true });
});
"""


@dataclass(frozen=True)
class Asked:
    """A row that somebody wants to ask by hand; `number` tells two presses apart."""

    prompt: str
    reference: str
    number: int


@dataclass(frozen=True)
class Changes:
    """`place` shows the rows; `asked` becomes an `Asked` when a row is to be asked in Compare."""

    place: gr.HTML
    asked: gr.State


def build(shared: Shared) -> Changes:
    """The component and what a press on it does."""
    place = gr.HTML("", elem_id="changed", js_on_load=PRESSES)
    asked = gr.State(None)

    def press(run_id: str | None, before: Asked | None, event: gr.EventData) -> Iterator[dict[Any, Any]]:
        run, told = shared.jobs.find(run_id), event._data if isinstance(event._data, dict) else {}
        if run is not None and isinstance(told.get("ask"), int):
            if (row := views.row_of(run, told["ask"])) is not None:
                yield {asked: Asked(row.prompt, row.reference, before.number + 1 if before else 0)}
        elif "press" in told:
            for html in looks(run, views.Choice.of(str(told["press"]))):
                yield {place: html}

    inputs = [shared.chosen, asked]
    place.click(press, inputs, [place, asked], trigger_mode="always_last", concurrency_limit=8, **QUIET)
    return Changes(place, asked)


def looks(run: Run | None, choice: views.Choice) -> Iterator[Any]:
    """The rows at once, and again when the rules have been read."""
    if views.rules_wait(run, choice):
        yield views.changed_html(run, choice, rules=False)
    yield views.changed_html(run, choice)
