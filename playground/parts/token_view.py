"""How likely base and tuned model find an answer, token by token."""

from __future__ import annotations

from typing import Any

import gradio as gr

from playground import views
from playground.english import compare as say
from playground.errors import shown
from playground.parts.asking import Said
from playground.parts.choices import OfTheMoment
from playground.parts.events import PRIVATE, QUIET
from playground.parts.shared import Shared
from tunelab import Run, UserError, fold_equal
from tunelab.measure.changes.tokens import token_changes


def build(shared: Shared, said: gr.State) -> None:
    """The view of one of the answers of `said`."""
    with gr.Row(elem_classes="tight read-row"):
        whose = OfTheMoment(
            [], label=say.WHOSE, info=say.TOKENS_HELP, elem_id="whose", scale=3, min_width=260, interactive=True
        )
        read = gr.Button(say.READ_TOKENS, elem_id="read-tokens", size="sm", scale=1, min_width=120)
    message = gr.Markdown("", elem_id="tokens-message", elem_classes="message")
    view = gr.HTML("", elem_id="token-view", elem_classes="token-view")

    def choices(now: Said | None) -> dict[str, Any]:
        labels = [group[0].label for group in now.comparison.by_column] if now else []
        return gr.update(choices=[(label, n) for n, label in enumerate(labels)], value=len(labels) - 1 if now else None)

    @shown(message)
    def look(now: Said | None, column: int | None) -> dict[Any, Any]:
        if now is None or column is None:
            raise UserError(say.NO_TALK)
        return {view: _read(shared, now, int(column)), message: ""}

    said.change(choices, said, whose, queue=False, **QUIET)
    said.change(lambda: "", None, view, queue=False, **QUIET)
    # one at a time: it loads the run's model beside the one that answers
    read.click(look, [said, whose], [view, message], concurrency_limit=1, concurrency_id="tokens", **PRIVATE)


def _read(shared: Shared, now: Said, column: int) -> Any:
    run = _tuned(shared, now, column)
    answer = fold_equal(now.comparison.by_column[column])[0]
    label = now.comparison.by_column[column][0].label
    changes = token_changes(run, answer.text, prompt=now.comparison.prompt, system=now.columns[column].system)
    return views.tokens_html(changes, label, run, _notes(now, column))


def _tuned(shared: Shared, now: Said, column: int) -> Run:
    """The run that reads: the column's own, or for the base's answer the first one beside it."""
    names = [one.run for one in now.columns]
    name = names[column] or next((one for one in names if one), None)
    if name is None:
        raise UserError(say.NO_RUN_BESIDE)
    return Run.open_to_ask(str(name), shared.jobs.root)


def _notes(now: Said, column: int) -> list[str]:
    """In what the models read otherwise than the answer came to be."""
    asked, notes = now.columns[column], []
    if now.comparison.history:
        notes.append(say.TOKENS_NO_TURNS)
    if asked.examples:
        notes.append(say.TOKENS_NO_EXAMPLES)
    if asked.strength != 1:
        notes.append(say.TOKENS_STRENGTH)
    return notes
