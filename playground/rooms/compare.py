"""The Compare room: one question, answers of two to four columns streaming side by side, with where each comes from;
then the conversation goes on, the answers are set against each other, a whole set of prompts is asked, people vote.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import gradio as gr

from playground import quick, views
from playground.columns import MOST, asks_once, find
from playground.english import compare as say
from playground.jobs import Jobs
from playground.parts import asking, columns, prompt_sets, token_view, voting
from playground.parts.choices import OfTheMoment
from playground.parts.events import PRIVATE, QUIET
from playground.parts.shared import Shared
from tunelab import Run, UserError, heldout_examples, list_runs

EXAMPLES, LOOKED_AT = 12, 60
HELD_OUT = say.HELD_OUT


@dataclass(frozen=True)
class CompareRoom:
    """The components other parts of the page need."""

    editor: columns.Editor
    prompt: gr.Textbox
    examples: gr.Dropdown
    reference: gr.Textbox
    landed: gr.HTML
    to_data: gr.Button
    to_measure: gr.Button
    arrived: gr.State  # setting it to something new asks for an answer, as pressing the button does

    @property
    def arrival(self) -> list[Any]:
        """What `show` fills in."""
        own = [self.examples, self.prompt, self.reference, self.landed]
        return [*self.editor.outputs, *own]


@dataclass(frozen=True)
class _Landed:
    """What stands on top after the quick adapter."""

    words: gr.HTML
    to_data: gr.Button
    to_measure: gr.Button


@dataclass(frozen=True)
class _Rows:
    """The run's held-out rows to ask, with their reference answer."""

    examples: gr.Dropdown
    reference: gr.Textbox


def build(shared: Shared, held: columns.Held) -> CompareRoom:
    """The room's components and what they do. `held`: see `columns.hold`."""
    landed = _lay_out_landed()
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=320, elem_classes="act"):
            question = asking.lay_out_question()
            with gr.Row(elem_classes="tight"):
                buttons = asking.lay_out_buttons()
                add = gr.Button(say.ADD, elem_id="add-column", scale=1, min_width=110)
            message = gr.Markdown("", elem_id="compare-message", elem_classes="message")
        with gr.Column(scale=5, min_width=320, elem_classes="act"):
            rows = _lay_out_rows()
            decoding = asking.lay_out_decoding()
    editor, places = _lay_out_columns(add, held)
    talk = asking.lay_out_talk()
    room = asking.Asking(question, decoding, buttons, message, editor, places, talk)
    arrived = asking.wire(shared, room)
    _keep_examples_and_prompt_together(shared, room, rows, columns.wire(editor, shared))
    with gr.Accordion(say.TOKENS, open=False, elem_id="tokens"):
        token_view.build(shared, talk.said)
    with gr.Accordion(say.SET, open=False, elem_id="prompt-set"):
        answered = prompt_sets.build(shared, editor, decoding)
    with gr.Accordion(say.VOTE, open=False, elem_id="vote"):
        voting.build(shared, talk.said, answered)
    return CompareRoom(
        editor,
        question.prompt,
        rows.examples,
        rows.reference,
        landed.words,
        landed.to_data,
        landed.to_measure,
        arrived,
    )


# what the room looks like


def _lay_out_landed() -> _Landed:
    with gr.Column(elem_id="landed"):  # the style sheet shows it while there are words in it
        words = gr.HTML("")
        with gr.Row(elem_classes="tight"):
            to_data = gr.Button(say.NOW_OWN, variant="primary", elem_id="now-own", scale=0, min_width=200)
            to_measure = gr.Button(say.MEASURE_IT, elem_id="measure-it", scale=0, min_width=140)
    return _Landed(words, to_data, to_measure)


def _lay_out_rows() -> _Rows:
    examples = OfTheMoment([], value=None, label=say.EXAMPLES, info=say.HELD_OUT, elem_id="examples")
    # the style sheet hides it while it is empty: Gradio forgets `visible` of what stands in a room not yet opened
    reference = gr.Textbox(
        label=say.REFERENCE, interactive=False, placeholder=" ", elem_id="reference", lines=1, max_lines=4
    )
    return _Rows(examples, reference)


def _lay_out_columns(add: gr.Button, held: columns.Held) -> tuple[columns.Editor, list[asking.Place]]:
    cards, places = [], []
    with gr.Row(equal_height=False, elem_id="columns"):
        for number in range(MOST):
            with gr.Column(min_width=240, elem_classes="answering"):
                cards.append(columns.lay_out(number))
                places.append(asking.lay_out_place(number))
    return columns.Editor(cards, held, add), places


# what happens in it


def _keep_examples_and_prompt_together(shared: Shared, room: asking.Asking, rows: _Rows, stands: Any) -> None:
    """The reference answers the row it belongs to, and no other prompt; examples are those of the first run."""
    editor, prompt, examples, reference = room.editor, room.question.prompt, rows.examples, rows.reference
    jobs = shared.jobs

    def row_chosen(choice: str | None, *values: Any) -> dict[Any, Any]:
        found = dict(_examples_of_first(jobs, _runs(values))[0])
        if choice not in found:
            return {prompt: gr.skip(), reference: ""}
        return {prompt: choice, reference: found[choice]}

    def prompt_written(written: str, chosen: str | None) -> dict[Any, Any]:
        if written == chosen:
            return {examples: gr.skip(), reference: gr.skip()}
        return {examples: None, reference: ""}

    def fresh(choice: str | None, answer: str, *values: Any) -> dict[Any, Any]:
        there = fresh_examples(jobs, _runs(values), (choice, answer) if choice else None)
        return {examples: there, reference: "" if "value" in there else gr.skip()}

    # not `input`, which a drop-down sends again when it is left, over what was written meanwhile
    examples.select(row_chosen, [examples, *editor.asked], [prompt, reference], **PRIVATE)
    # typing is faster than answers to it: the last word counts
    prompt.input(prompt_written, [prompt, examples], [examples, reference], trigger_mode="always_last", **QUIET)
    # examples come second: reading them can take a second, and nobody should wait for them
    # not queued: a page that is left meanwhile must not leave a stream behind
    inputs = [examples, reference, *editor.asked]
    stands.then(fresh, inputs, [examples, reference], queue=False, trigger_mode="always_last", **QUIET)


def _runs(values: tuple[Any, ...]) -> list[str]:
    """The runs among the columns."""
    return [pick.who for pick in columns.picks(values) if pick.who]


# what other parts of the page ask of it


MOST_RUNS = columns.MOST - 1  # beside the base


def show(jobs: Jobs, room: CompareRoom, *runs: Run) -> dict[Any, Any]:
    """The room as it stands when one comes to it with runs: the base and those, and a held-out question of the first.
    After the quick adapter a card on top says what happened and leads on, as long as nothing was trained since."""
    run = runs[0]
    chosen = [columns.Pick(), *(columns.Pick(one.id) for one in runs)]
    examples = examples_of(run)
    question, answer = examples[0] if examples else ("", "")
    since = takewhile(lambda one: one.id != run.id, list_runs(jobs.root))
    landed = run if quick.is_quick(run) and not any(one.has_adapter for one in since) else None
    return {
        **columns.stand(room.editor, jobs.root, chosen, laid="" if len(runs) > 1 else columns.written(chosen)),
        room.examples: gr.update(choices=[asked for asked, _ in examples], value=question or None),
        room.prompt: question,
        room.reference: answer,
        room.landed: views.landed_html(landed),
    }


def examples_of(run: Run) -> list[tuple[str, str]]:
    """Prompts and reference answers of the run's first held-out rows; none where they can't be had any more."""
    return _examples_or_reason(run)[0]


def fresh_examples(jobs: Jobs, runs: list[str], chosen: tuple[str, str] | None = None) -> dict[str, Any]:
    """An update of the examples to choose from for these runs; where there are none, it says why. None is chosen any
    more if `chosen`, with its answer, is not among them."""
    found, reason = _examples_of_first(jobs, runs)
    there = gr.update(choices=[question for question, _answer in found], info=reason or HELD_OUT)
    return there if chosen is None or chosen in found else {**there, "value": None}


def _examples_or_reason(run: Run) -> tuple[list[tuple[str, str]], str]:
    try:
        rows = heldout_examples(run, LOOKED_AT)
    except UserError as error:  # data that has changed or gone is no reason not to compare
        return [], f"None: {error}"
    # of a conversation the last question alone would be another one
    found = [(row.prompt, row.answer) for row in rows if row.text is not None or asks_once(row)]
    return found[:EXAMPLES], say.CONVERSATIONS if rows and not found else ""


def _examples_of_first(jobs: Jobs, runs: list[str]) -> tuple[list[tuple[str, str]], str]:
    run = find(runs[0], jobs.root) if runs else None
    return _examples_or_reason(run) if run else ([], "")
