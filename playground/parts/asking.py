"""Asking some columns: the question, how it is decoded, the answers as they grow, and the conversation that goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.columns import Pick, columns_of
from playground.english import compare as say
from playground.errors import as_message
from playground.parts import columns
from playground.parts.events import PRIVATE, QUIET
from playground.parts.pacing import paced
from playground.parts.repeating import repeated
from playground.parts.shared import Shared
from playground.parts.waiting import Asked, Cancels
from playground.views import plain_markdown
from tunelab import Column, Comparison, UserError

AT_ONCE = 32  # answers that pages wait for, each in a thread; Gradio has 40, and others need some


@dataclass(frozen=True)
class Said:
    """A conversation: who answers in it, and the last comparison."""

    picks: tuple[Pick, ...]
    system: str  # that was written for all columns
    columns: tuple[Column, ...]
    comparison: Comparison


@dataclass(frozen=True)
class _Turn:
    """What is asked, and of whom; `before`: the last comparison of a conversation that goes on."""

    prompt: str
    picks: tuple[Pick, ...]
    system: str
    columns: tuple[Column, ...]
    before: Comparison | None


@dataclass(frozen=True)
class Question:
    prompt: gr.Textbox


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded."""

    system: gr.Textbox
    length: gr.Slider
    temperature: gr.Slider
    seed: gr.Number
    seeds: gr.Slider

    @property
    def asked(self) -> list[Any]:
        """As inputs, what `settings` is made of, and before it the system prompt."""
        return [self.system, self.length, self.temperature, self.seed, self.seeds]


@dataclass(frozen=True)
class Buttons:
    go: gr.Button
    cancel: gr.Button


@dataclass(frozen=True)
class Place:
    """Where a column's answer stands, and where it comes from."""

    answer: gr.HTML
    footer: gr.Markdown


@dataclass(frozen=True)
class Talk:
    """The conversation, and how it goes on."""

    said: gr.State  # a `Said`, or None
    view: gr.Radio  # how answers are shown
    message: gr.Textbox
    send: gr.Button
    new: gr.Button


@dataclass(frozen=True)
class Asking:
    question: Question
    decoding: Decoding
    buttons: Buttons
    message: gr.Markdown
    editor: columns.Editor
    places: list[Place]
    talk: Talk

    @property
    def outputs(self) -> list[Any]:
        talk = self.talk
        shown = [part for place in self.places for part in (place.answer, place.footer)]
        return [self.message, self.buttons.cancel, talk.said, talk.message, *shown]


# what it looks like


def lay_out_question() -> Question:
    prompt = gr.Textbox(
        label=say.PROMPT, info=say.PROMPT_HELP, lines=1, max_lines=10, placeholder=say.PROMPT_EXAMPLE, elem_id="prompt"
    )
    return Question(prompt)


def lay_out_decoding() -> Decoding:
    with gr.Accordion(say.DECODING, open=False):
        system = gr.Textbox(label=say.SYSTEM, info=say.SYSTEM_HELP, lines=2)
        with gr.Row():
            length = gr.Slider(8, 512, 96, step=8, label=say.LENGTH, info=say.LENGTH_HELP)
            temperature = gr.Slider(0, 2, 0, step=0.1, label=say.TEMPERATURE, info=say.TEMPERATURE_HELP)
        with gr.Row():
            seed = gr.Number(0, precision=0, minimum=0, label=say.SEED, info=say.SEED_HELP)
            seeds = gr.Slider(1, 8, 1, step=1, label=say.SEEDS, info=say.SEEDS_HELP)
    return Decoding(system, length, temperature, seed, seeds)


def lay_out_buttons() -> Buttons:
    go = gr.Button(say.COMPARE, variant="primary", elem_id="compare", scale=3, min_width=140)
    cancel = gr.Button(say.CANCEL, interactive=False, elem_id="cancel", scale=1, min_width=90)
    return Buttons(go, cancel)


def lay_out_place(number: int) -> Place:
    answer = gr.HTML(views.answer_html(None, number, empty=say.EMPTY), elem_id=f"answer-{number}")
    footer = gr.Markdown("", elem_classes="provenance", elem_id=f"provenance-{number}")
    return Place(answer, footer)


def lay_out_talk() -> Talk:
    choices = [(words, name) for name, words in say.VIEWS.items()]
    view = gr.Radio(choices, value="plain", label=say.VIEW, show_label=False, elem_id="view")
    with gr.Row(elem_id="talk", elem_classes="tight", equal_height=True):  # the style sheet shows it beside answers
        message = gr.Textbox(
            label=say.FOLLOW, info=say.FOLLOW_HELP, lines=1, max_lines=6, placeholder=say.FOLLOW_EXAMPLE,
            elem_id="follow", scale=6, min_width=280,
        )  # fmt: skip
        send = gr.Button(say.SEND, elem_id="send", size="sm", scale=1, min_width=90)
        new = gr.Button(say.NEW, elem_id="new-talk", size="sm", scale=1, min_width=150)
    return Talk(gr.State(None), view, message, send, new)


# what happens in it


def settings(length: float, heat: float, seed: float | None, count: float) -> dict[str, Any]:
    """Decoding as the library takes it."""
    first = int(seed or 0)
    return {"max_new_tokens": int(length), "temperature": float(heat), "seeds": range(first, first + int(count or 1))}


def wire(shared: Shared, room: Asking) -> gr.State:
    """A state that asks for an answer when it is set to something new, as pressing the button does."""
    cancels, talk, buttons = Cancels(), room.talk, room.buttons
    arrived = gr.State(None)
    ask, follow = _askers(shared, room, cancels)
    new = [room.question.prompt, talk.view, *room.decoding.asked, *room.editor.asked]
    on = [talk.message, talk.said, talk.view, *room.decoding.asked, *room.editor.asked]
    for event in (buttons.go.click, room.question.prompt.submit, arrived.change):
        event(ask, new, room.outputs, concurrency_limit=AT_ONCE, concurrency_id="answers", **QUIET)
    for event in (talk.send.click, talk.message.submit):
        event(follow, on, room.outputs, concurrency_limit=AT_ONCE, concurrency_id="answers", **QUIET)
    _end(room, cancels)
    _look_again(room)
    return arrived


def _askers(shared: Shared, room: Asking, cancels: Cancels) -> tuple[Any, Any]:
    """What asks anew, and what goes on."""
    root = shared.jobs.root

    def ask(
        page: gr.Request, prompt: str, view: views.View, system: str | None, *values: Any
    ) -> Iterator[dict[Any, Any]]:
        def answers(asked: Asked) -> Iterator[dict[Any, Any]]:
            picks = tuple(columns.picks(values[4:]))
            turn = _Turn(prompt, picks, (system or "").strip(), tuple(columns_of(picks, root, system)), None)
            return _stream(shared, room, cancels, page, asked, turn, settings(*values[:4]), view)

        yield from repeated(_heard(room, cancels, page, answers), once=[room.talk.message])

    def follow(
        page: gr.Request, prompt: str, said: Said | None, view: views.View, system: str | None, *values: Any
    ) -> Iterator[dict[Any, Any]]:
        def answers(asked: Asked) -> Iterator[dict[Any, Any]]:
            if said is None:
                raise UserError(say.NO_TALK)
            if (said.picks, said.system) != (tuple(columns.picks(values[4:])), (system or "").strip()):
                raise UserError(say.OTHER_COLUMNS)
            turn = _Turn(prompt, said.picks, said.system, said.columns, said.comparison)
            return _stream(shared, room, cancels, page, asked, turn, settings(*values[:4]), view)

        yield from repeated(_heard(room, cancels, page, answers), once=[room.talk.message])

    return ask, follow


def _heard(
    room: Asking, cancels: Cancels, page: gr.Request, answers: Callable[[Asked], Iterator[dict[Any, Any]]]
) -> Iterator[dict[Any, Any]]:
    """What a page hears of a question, also where it can't be answered."""
    asked = Asked()
    try:
        yield from answers(asked)
    except Exception as error:
        if asked.wanted:
            yield {room.message: as_message(error), room.buttons.cancel: gr.update(interactive=cancels.waits(page))}


def _stream(
    shared: Shared,
    room: Asking,
    cancels: Cancels,
    page: gr.Request,
    asked: Asked,
    turn: _Turn,
    decoding: dict[str, Any],
    view: views.View,
) -> Iterator[dict[Any, Any]]:
    """The answers as they grow. Until it is clear that the question can be asked, what stands there stays."""
    history = turn.before.continued if turn.before else ()
    growing = shared.comparer.ask(turn.columns, turn.prompt or "", history=history, cancel=asked, **decoding)
    cancels.begin(page, asked)
    try:
        blank = {} if turn.before else {room.talk.said: None, **_shown(room, None, view)}
        yield {room.message: say.MOMENT, room.buttons.cancel: gr.update(interactive=True), **blank}
        written = turn.before is not None  # what was sent stands in its box, until it does above
        last: Comparison | None = None
        for last in paced(growing):
            if not asked.wanted:
                return
            shown = _shown(room, last, view) if last.answers else {}
            if shown and written:
                written, shown[room.talk.message] = False, ""
            yield {
                room.message: plain_markdown(last.note or ""),
                room.buttons.cancel: gr.update(interactive=True),
                **shown,
            }
        yield {room.buttons.cancel: gr.update(interactive=False), **_settled(room, turn, last)}
    finally:
        cancels.over(page, asked)


def _settled(room: Asking, turn: _Turn, last: Comparison | None) -> dict[Any, Any]:
    """The conversation as it stands after an answer."""
    if last is None or not last.answers:
        return {}
    return {room.talk.said: Said(turn.picks, turn.system, turn.columns, last)}


def _shown(room: Asking, said: Comparison | None, view: views.View) -> dict[Any, Any]:
    """Every column's answer, and what stands under it."""
    changes: dict[Any, Any] = {}
    groups = said.by_column if said else ()
    for number, place in enumerate(room.places):
        changes[place.answer] = views.answer_html(said, number, view, say.EMPTY)
        changes[place.footer] = views.answer_footer(groups[number]) if number < len(groups) else ""
    return changes


def _end(room: Asking, cancels: Cancels) -> None:
    """Cancel, the page that is left, and the new conversation free what a page waits for at once."""

    def end(page: gr.Request) -> None:
        cancels.end(page)

    def begin_anew(page: gr.Request) -> dict[Any, Any]:
        cancels.forget(page)
        empty = {place.answer: views.answer_html(None, n, empty=say.EMPTY) for n, place in enumerate(room.places)}
        footers = {place.footer: "" for place in room.places}
        hidden = {room.talk.message: "", room.talk.said: None}
        return {**empty, **footers, **hidden, room.message: "", room.buttons.cancel: gr.update(interactive=False)}

    room.buttons.cancel.click(end, None, None, queue=False, **PRIVATE)
    # queued: only then does the change of a State reach its listeners
    room.talk.new.click(begin_anew, None, room.outputs, concurrency_limit=None, **QUIET)
    page = gr.context.Context.root_block
    assert page is not None
    page.unload(end)


def _look_again(room: Asking) -> None:
    """The same answers, shown otherwise."""

    def look(view: views.View, said: Said | None) -> dict[Any, Any]:
        if said is None:
            return {place.answer: gr.skip() for place in room.places}
        return {
            place.answer: views.answer_html(said.comparison, n, view, say.EMPTY) for n, place in enumerate(room.places)
        }

    answers = [place.answer for place in room.places]
    # also when answers are complete: somebody may have chosen another view meanwhile
    gr.on(
        [room.talk.view.input, room.talk.said.change],
        look, [room.talk.view, room.talk.said], answers, queue=False, **QUIET,
    )  # fmt: skip
