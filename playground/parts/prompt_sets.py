"""A whole set of prompts: answered in a batch, shown as a table, taken along as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.columns import columns_of
from playground.english import compare as say
from playground.errors import as_message
from playground.parts import columns
from playground.parts.asking import AT_ONCE, Decoding, settings
from playground.parts.events import PRIVATE, QUIET, shown_if
from playground.parts.files import new_folder
from playground.parts.repeating import repeating
from playground.parts.shared import Shared
from playground.parts.waiting import Asked, Cancels
from playground.prompts import Prompts, read_prompts
from playground.views import plain_markdown
from tunelab import Comparison, export_comparisons
from tunelab.answer.comparison import AT_ONCE as TOGETHER  # answers of a set that come at once

FILES = (("answers.csv", "csv"), ("answers.jsonl", "jsonl"), ("llm-comparator.json", "comparator"))


@dataclass(frozen=True)
class _Set:
    prompts: gr.Textbox
    file: gr.File
    go: gr.Button
    cancel: gr.Button
    message: gr.Markdown
    only: gr.Checkbox
    mark: gr.Checkbox
    table: gr.HTML
    files: gr.File
    done: gr.State  # the comparisons

    @property
    def outputs(self) -> list[Any]:
        return [self.message, self.cancel, self.table, self.files, self.done]


def build(shared: Shared, editor: columns.Editor, decoding: Decoding) -> gr.State:
    """The comparisons of the set that was answered last."""
    room = _lay_out()
    _look_again(room, _answer(shared, editor, decoding, room))
    return room.done


def _lay_out() -> _Set:
    with gr.Row(equal_height=True):
        prompts = gr.Textbox(
            label=say.SET_PROMPTS, info=say.SET_PROMPTS_HELP, lines=4, max_lines=10, elem_id="set-prompts", scale=3
        )
        file = gr.File(label=say.SET_FILE, file_count="single", height=140, elem_id="set-file", scale=2)
    with gr.Row(elem_classes="tight"):
        go = gr.Button(say.SET_RUN, variant="primary", elem_id="set-run", scale=1, min_width=140)
        cancel = gr.Button(say.CANCEL, interactive=False, elem_id="set-cancel", scale=0, min_width=90)
        only = gr.Checkbox(False, label=say.SET_ONLY, info=say.SET_ONLY_HELP, elem_id="set-only", min_width=160)
        mark = gr.Checkbox(True, label=say.SET_MARK, info=say.SET_MARK_HELP, elem_id="set-mark", min_width=160)
    message = gr.Markdown("", elem_id="set-message", elem_classes="message")
    table = gr.HTML(views.set_html((), False, False, say.SET_NONE), elem_id="set-table", elem_classes="prompt-set")
    files = gr.File(
        label=say.SET_FILES, file_count="multiple", interactive=False, visible="hidden", elem_id="set-files", height=180
    )
    return _Set(prompts, file, go, cancel, message, only, mark, table, files, gr.State(()))


def _answer(shared: Shared, editor: columns.Editor, decoding: Decoding, room: _Set) -> Any:
    """The event of answering, which comes to its end."""
    cancels = Cancels()

    @repeating
    def answer(
        page: gr.Request, written: str, upload: str | None, only: bool, mark: bool, system: str, *values: Any
    ) -> Iterator[dict[Any, Any]]:
        try:
            prompts, asked = read_prompts(written or "", upload), Asked()
            who = columns_of(columns.picks(values[4:]), shared.jobs.root, system)
            growing = shared.comparer.batch(who, prompts.prompts, cancel=asked, **settings(*values[:4]))
        except Exception as error:  # the answers that stand there stay
            yield {room.message: as_message(error)}
            return
        cancels.begin(page, asked)
        together = max(1, TOGETHER // (len(who) * int(values[3] or 1)))
        try:
            yield from _grown(room, prompts, growing, together, only, mark)
        finally:
            cancels.over(page, asked)

    def end(page: gr.Request) -> None:
        cancels.end(page)

    inputs = [room.prompts, room.file, room.only, room.mark, *decoding.asked, *editor.asked]
    answered = room.go.click(answer, inputs, room.outputs, concurrency_limit=AT_ONCE, concurrency_id="answers", **QUIET)
    room.cancel.click(end, None, None, queue=False, **PRIVATE)
    page = gr.context.Context.root_block
    assert page is not None
    page.unload(end)
    return answered


def _grown(
    room: _Set, prompts: Prompts, growing: Iterator[Comparison], together: int, only: bool, mark: bool
) -> Iterator[dict[Any, Any]]:
    """The answers as they come, a table after so many of them; at the end, whatever ends them, all there are."""
    done: list[Comparison] = []
    begun = {room.cancel: gr.update(interactive=True), room.files: gr.update(value=None, visible="hidden")}
    yield _told(room, prompts, done, only, mark) | begun
    failed: dict[Any, Any] = {}
    try:
        for one in growing:
            done.append(one)
            if len(done) % together == 0:
                yield _told(room, prompts, done, only, mark)
    except Exception as error:
        failed = {room.message: as_message(error)}
    yield _told(room, prompts, done, only, mark) | _finished(room, done) | failed


def _told(room: _Set, prompts: Prompts, done: Sequence[Comparison], only: bool, mark: bool) -> dict[Any, Any]:
    """How far it is."""
    said = " ".join(f"{note[0].upper()}{note[1:]}." for note in prompts.notes)
    words = f"{len(done):,} of {len(prompts.prompts):,} answered. {said}"
    table = views.set_html(done, only, mark, say.SET_NONE)
    return {room.message: plain_markdown(words), room.table: table, room.done: tuple(done)}


def _finished(room: _Set, done: Sequence[Comparison]) -> dict[Any, Any]:
    """The files, or why they can't be written."""
    settled: dict[Any, Any] = {room.cancel: gr.update(interactive=False)}
    try:
        made = [str(path) for path in _files(done)]
    except Exception as error:
        return {**settled, room.files: gr.update(value=None, visible="hidden"), room.message: as_message(error)}
    return {**settled, room.files: gr.update(value=made or None, visible=shown_if(made))}


def _files(done: Sequence[Comparison]) -> list[Any]:
    """The answers in every form that they can have: LLM Comparator shows two models that have answered."""
    if not done:
        return []
    folder, made = new_folder(), []
    for name, form in FILES:
        if form != "comparator" or any(len(one.by_column) > 1 for one in done):
            made += export_comparisons(done, folder / name, form)  # type: ignore[arg-type]
    return made


def _look_again(room: _Set, answered: Any) -> None:
    """The same answers, shown as the boxes say: they can be ticked also while answers come."""

    def look(done: Sequence[Comparison], only: bool, mark: bool) -> Any:
        return views.set_html(done, only, mark, say.SET_NONE)

    for event in (room.only.input, room.mark.input, answered.then):
        event(look, [room.done, room.only, room.mark], room.table, queue=False, **QUIET)
