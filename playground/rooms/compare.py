"""The Compare room: one prompt, answers of base and tuned streaming side by side, with where each comes from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.errors import as_message
from playground.jobs import Jobs
from playground.parts.events import PRIVATE, QUIET, shown_if
from playground.parts.shared import Shared
from tunelab import Comparer, Comparison, Run, UserError, heldout_examples, list_runs

COLUMNS = 4  # the base and up to three runs
EXAMPLES = 12
HELD_OUT = "Held-out rows: the model never trained on them."


@dataclass(frozen=True)
class CompareRoom:
    """The components other parts of the page need."""

    run: gr.Dropdown
    prompt: gr.Textbox
    examples: gr.Dropdown
    reference: gr.Textbox
    arrived: gr.State  # setting it to something new asks for an answer, as pressing the button does

    @property
    def arrival(self) -> list[Any]:
        """What `show` fills in."""
        return [self.run, self.examples, self.prompt, self.reference]


@dataclass(frozen=True)
class _Question:
    """What is asked, of which runs, and how it is decoded."""

    run: gr.Dropdown
    examples: gr.Dropdown
    prompt: gr.Textbox
    reference: gr.Textbox
    system: gr.Textbox
    length: gr.Slider
    temperature: gr.Slider
    seed: gr.Number

    @property
    def asked(self) -> list[Any]:
        return [self.run, self.prompt, self.system, self.length, self.temperature, self.seed]


@dataclass(frozen=True)
class _Answers:
    """The buttons, and a column for the base and each run: its answer, and where that comes from."""

    go: gr.Button
    cancel: gr.Button
    message: gr.Markdown
    boxes: list[gr.Textbox]
    footers: list[gr.Markdown]
    columns: list[gr.Column]


def build(shared: Shared) -> CompareRoom:
    """The room's components and what they do."""
    question = _lay_out_question()
    answers = _lay_out_answers()
    arrived = _answer(shared.comparer, question, answers)
    _keep_examples_and_prompt_together(shared.jobs, question)
    _keep_choices(shared, question)
    return CompareRoom(question.run, question.prompt, question.examples, question.reference, arrived)


# what the room looks like


def _lay_out_question() -> _Question:
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            run, examples = _lay_out_choices()
        with gr.Column(scale=7, min_width=320):
            prompt = gr.Textbox(label="Prompt", lines=6, placeholder="Ask something …", elem_id="prompt")
            reference = gr.Textbox(
                label="Reference answer of this row", interactive=False, visible="hidden", elem_id="reference"
            )
    with gr.Accordion("System prompt and decoding", open=False):
        system = gr.Textbox(label="System prompt", info="Empty: the run's own, or the template's.", lines=2)
        with gr.Row():
            length = gr.Slider(8, 512, 96, step=8, label="Longest answer", info="In tokens.")
            temperature = gr.Slider(0, 2, 0, step=0.1, label="Temperature", info="0: always the most likely token.")
            seed = gr.Number(0, precision=0, minimum=0, label="Seed", info="The same noise for every column.")
    return _Question(run, examples, prompt, reference, system, length, temperature, seed)


def _lay_out_choices() -> tuple[gr.Dropdown, gr.Dropdown]:
    run = gr.Dropdown(
        [],
        multiselect=True,
        max_choices=COLUMNS - 1,
        label="Runs to compare with the base",
        info="One to three runs of the same base.",
        elem_id="compare-runs",
    )
    examples = gr.Dropdown(
        [],
        value=None,
        label="Examples",
        info=HELD_OUT,
        elem_id="examples",
    )
    return run, examples


def _lay_out_answers() -> _Answers:
    with gr.Row():
        go = gr.Button("Compare", variant="primary", elem_id="compare")
        cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")
    message = gr.Markdown("", elem_id="compare-message", elem_classes="message")
    answers = _Answers(go, cancel, message, [], [], [])
    with gr.Row(equal_height=False):
        for index in range(COLUMNS):
            with gr.Column(visible=shown_if(index < 2), min_width=280) as column:
                box = gr.Textbox(
                    label="Base" if index == 0 else "Tuned",
                    lines=7,
                    max_lines=24,
                    interactive=False,
                    buttons=["copy"],
                    elem_id=f"answer-{index}",
                )
                footer = gr.Markdown("", elem_classes="provenance", elem_id=f"provenance-{index}")
            answers.boxes.append(box)
            answers.footers.append(footer)
            answers.columns.append(column)
    return answers


# what happens in it


def _answer(comparer: Comparer, question: _Question, answers: _Answers) -> gr.State:
    """A state that asks for an answer when it is set to something new, as pressing the button does."""
    cancels: dict[str, threading.Event] = {}  # by page, so that Cancel reaches the answer its page asked for
    message, cancel = answers.message, answers.cancel

    def answer(
        runs: list[str], text: str, system: str, tokens: float, heat: float, number: float, page: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        stop = cancels[str(page.session_hash)] = threading.Event()
        decoding: dict[str, Any] = {"max_new_tokens": int(tokens), "temperature": float(heat), "seed": int(number or 0)}
        try:
            stream = comparer.stream(runs or [], text or "", system=system or None, cancel=stop, **decoding)
            blank = dict.fromkeys([*answers.boxes, *answers.footers], "")
            yield {message: "One moment …", cancel: gr.update(interactive=True), **blank}
            for comparison in stream:
                yield {**_shown(comparison, answers), message: comparison.note or ""}
            yield {cancel: gr.update(interactive=False)}
        except Exception as error:
            yield {message: as_message(error), cancel: gr.update(interactive=False)}

    def stop_answer(page: gr.Request) -> None:
        if stop := cancels.get(str(page.session_hash)):
            stop.set()

    outputs = [message, cancel, *answers.boxes, *answers.footers, *answers.columns]
    arrived = gr.State(None)
    for event in (answers.go.click, question.prompt.submit, arrived.change):
        event(answer, question.asked, outputs, concurrency_limit=8, **QUIET)
    cancel.click(stop_answer, None, None, queue=False, **PRIVATE)
    return arrived


def _shown(comparison: Comparison, answers: _Answers) -> dict[Any, Any]:
    changes: dict[Any, Any] = {}
    for index, (box, footer, column) in enumerate(zip(answers.boxes, answers.footers, answers.columns, strict=True)):
        there = index < max(2, len(comparison.answers))
        changes[column] = gr.update(visible=shown_if(there))
        if index < len(comparison.answers):
            answer = comparison.answers[index]
            label = "Base" if index == 0 else f"Tuned: {answer.label}"
            changes[box] = gr.update(value=answer.text, label=label)
            changes[footer] = views.answer_footer(answer)
    return changes


def _keep_examples_and_prompt_together(jobs: Jobs, question: _Question) -> None:
    """The reference answers the row it belongs to, and no other prompt."""
    run, examples, prompt, reference = question.run, question.examples, question.prompt, question.reference

    def row_chosen(choice: str | None, runs: list[str]) -> dict[Any, Any]:
        rows = dict(_examples_of_first(jobs, runs))
        if choice not in rows:
            return {prompt: gr.skip(), reference: gr.update(visible="hidden")}
        return {prompt: choice, reference: gr.update(value=rows[choice], visible=True)}

    def prompt_written(written: str, chosen: str | None) -> dict[Any, Any]:
        if written == chosen:
            return {examples: gr.skip(), reference: gr.skip()}
        return {examples: None, reference: gr.update(visible="hidden")}

    def runs_chosen(runs: list[str]) -> dict[Any, Any]:
        return {examples: fresh_examples(jobs, runs) | {"value": None}, reference: gr.update(visible="hidden")}

    # not `input`, which a drop-down sends again when it is left, over what was written meanwhile
    examples.select(row_chosen, [examples, run], [prompt, reference], **PRIVATE)
    # typing is faster than answers to it: the last word counts
    prompt.input(prompt_written, [prompt, examples], [examples, reference], trigger_mode="always_last", **QUIET)
    # only what people choose: code that sets the runs sets their examples as well
    run.input(runs_chosen, run, [examples, reference], **PRIVATE)


def _keep_choices(shared: Shared, question: _Question) -> None:
    """The runs to choose from are those that are there; the run that is chosen is asked unless others are."""

    def known(run_id: str | None, asked: list[str]) -> dict[Any, Any]:
        there = choices(shared.jobs)
        ids = [value for _label, value in there]
        kept = [one for one in asked if one in ids] or [one for one in (run_id, *ids) if one in ids][:1]
        return {question.run: gr.update(choices=there, value=kept)}

    def examples(asked: list[str]) -> Any:
        return fresh_examples(shared.jobs, asked)

    for event in (shared.refresh.click, shared.chosen.change):
        filled = event(known, [shared.chosen, question.run], question.run, queue=False, **QUIET)
        # examples come second: reading them can take a second, and nobody should wait for them
        # not queued: a page that is left meanwhile must not leave a stream behind
        filled.then(examples, question.run, question.examples, queue=False, **QUIET)


# what other parts of the page ask of it


def show(jobs: Jobs, room: CompareRoom, run: Run) -> dict[Any, Any]:
    """The room as it stands when one comes to it with a run: that run, and its first held-out question."""
    examples = examples_of(run)
    question, answer = examples[0] if examples else ("", "")
    return {
        room.run: gr.update(choices=choices(jobs), value=[run.id]),
        room.examples: gr.update(choices=[asked for asked, _ in examples], value=question or None),
        room.prompt: question,
        room.reference: gr.update(value=answer, visible=shown_if(bool(answer))),
    }


def examples_of(run: Run) -> list[tuple[str, str]]:
    """Prompts and reference answers of the run's first held-out rows; none where they can't be had any more."""
    return _examples_or_reason(run)[0]


def fresh_examples(jobs: Jobs, runs: list[str]) -> dict[str, Any]:
    """An update of the examples to choose from for these runs; where there are none, it says why."""
    found, reason = _examples_or_reason(Run(jobs.root / runs[0])) if runs else ([], "")
    return gr.update(choices=[question for question, _answer in found], info=reason or HELD_OUT)


def _examples_or_reason(run: Run) -> tuple[list[tuple[str, str]], str]:
    try:
        rows = heldout_examples(run, EXAMPLES)
    except UserError as error:  # data that has changed or gone is no reason not to compare
        return [], f"None: {error}"
    return [(row.prompt, row.answer) for row in rows], ""


def choices(jobs: Jobs) -> list[tuple[str, str]]:
    """Runs that have an adapter, the newest first."""
    return views.run_choices([r for r in list_runs(jobs.root) if r.has_adapter and r.readable])


def _examples_of_first(jobs: Jobs, runs: list[str]) -> list[tuple[str, str]]:
    return examples_of(Run(jobs.root / runs[0])) if runs else []
