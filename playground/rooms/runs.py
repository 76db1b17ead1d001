"""The Runs room: everything that was trained, to be found again, compared, gone on with and taken along. Lists and
figures are `live` (made in `views`, asked for by `web/runs.js`); what changes a run goes through `jobs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.english import runs as say
from playground.errors import shown
from playground.parts import bringing, deleting, labels, taking
from playground.parts.choices import OfTheMoment
from playground.parts.events import PRIVATE, QUIET, changed, shown_if
from playground.parts.hidden import hidden
from playground.parts.live import live_html
from playground.parts.shared import Shared
from playground.parts.steering import Steering, steer
from tunelab import Progress, Run


@dataclass(frozen=True)
class RunsRoom:
    """The components other parts of the page need."""

    again: gr.Button  # train the run that is chosen again, with changes
    to_compare: gr.Button  # the answers of the run that is chosen
    compare_picked: gr.Button
    picked: gr.State  # ids of the runs that are picked
    message: gr.Markdown


@dataclass(frozen=True)
class _Deeds:
    """What can be done with the run that is chosen."""

    steering: Steering
    again: gr.Button
    compare: gr.Button
    delete: gr.Button
    fix: gr.Textbox  # filled by the page's script: what is done about a run that failed
    owner: gr.HTML


@dataclass(frozen=True)
class _Several:
    """The runs that are picked."""

    names: gr.Textbox
    picked: gr.State
    compare: gr.Button


@dataclass(frozen=True)
class _Room:
    shared: Shared
    labels: labels.Labels
    deeds: _Deeds
    deleting: deleting.Deleting
    several: _Several
    message: gr.Markdown


def build(shared: Shared) -> RunsRoom:
    """The room's components and what they do."""
    with gr.Row(equal_height=False, elem_id="runs-room"):
        with gr.Column(scale=15, min_width=320, elem_classes="act"):
            _lay_out_list()
            bring = bringing.lay_out()
            deleted = deleting.lay_out_bin()
        with gr.Column(scale=9, min_width=320, elem_classes="act", elem_id="run-column"):
            with gr.Row(elem_classes="tight", elem_id="runs-said"):
                message = gr.Markdown("", elem_id="runs-message", elem_classes="message")
                undo = gr.Button(say.UNDO, size="sm", min_width=70, scale=0, visible="hidden", elem_id="undo-delete")
            compare = _lay_out_several()
            with gr.Column(elem_classes="act", elem_id="one-run"):
                called = labels.lay_out()
                deeds = _lay_out_deeds()
                taken = taking.lay_out()
    several = _Several(hidden("picked-runs"), gr.State(()), compare)
    room = _Room(shared, called, deeds, deleting.of_chosen(deeds.delete, undo, message), several, message)
    _follow(room)
    _mend(room)
    _pick(room)
    steer(shared, deeds.steering, message)
    labels.keep_labels(shared, called)
    deleting.wire_deleting(shared, room.deleting)
    deleting.wire_bin(shared, deleted)
    taking.wire(shared, taken, message)
    bringing.wire(shared, bring)
    return RunsRoom(deeds.again, deeds.compare, compare, several.picked, message)


# what the room looks like


def _lay_out_list() -> None:
    gr.Textbox(
        label=say.SEARCH, info=say.SEARCH_HELP, placeholder=say.SEARCH_EXAMPLE, max_lines=1, elem_id="runs-search"
    )
    live_html("runs", elem_id="runs")


def _lay_out_several() -> gr.Button:
    """What the page's script shows in place of the run that is chosen, while several are picked."""
    with gr.Column(elem_id="several-runs", elem_classes="act"):
        live_html("picked", elem_id="picked")
        return gr.Button(say.COMPARE_PICKED, variant="primary", size="sm", elem_id="compare-picked")


def _lay_out_deeds() -> _Deeds:
    with gr.Row(elem_classes="tight"):
        compare = _button(say.COMPARE, "compare-run", 130, variant="primary")
        again = _button(say.AGAIN, "again", 130)
        resume, pause, stop = (
            _button(words, name, 70)
            for words, name in ((say.RESUME, "go-on"), (say.PAUSE, "pause"), (say.STOP, "stop-run"))
        )
        delete = _button(say.DELETE, "delete-run", 70)
    result = OfTheMoment(
        [], label=say.RESULT, info=say.RESULT_HELP, visible="hidden", interactive=True, elem_id="run-result"
    )
    live_html("about", elem_id="about-run", empty=say.NOTHING_CHOSEN)
    owner = gr.HTML("", elem_id="run-owner")
    return _Deeds(Steering(pause, stop, resume, result), again, compare, delete, hidden("fix-run"), owner)


def _button(words: str, name: str, width: int, variant: Any = "secondary") -> gr.Button:
    return gr.Button(words, size="sm", min_width=width, scale=0, interactive=False, elem_id=name, variant=variant)


# what happens in it


def _follow(room: _Room) -> None:
    """What Gradio keeps of the run that is chosen; the rest is `live`."""
    shared, deeds = room.shared, room.deeds
    steering = deeds.steering
    buttons = [steering.resume, steering.pause, steering.stop, deeds.again, deeds.compare, deeds.delete]

    def stand(request: gr.Request, run_id: str | None, result: int | None) -> dict[Any, Any]:
        run = shared.jobs.find(run_id)
        progress = run.progress() if run else Progress("queued", "")
        stages, current = views.stage_results(run, progress)
        can_do = dict(zip(buttons, _can_do(run, progress), strict=True))
        return {
            **{button: gr.update(interactive=can, visible=shown_if(can)) for button, can in can_do.items()},
            steering.result: gr.update(choices=stages, visible=shown_if(bool(stages)), **changed(current, result)),
            deeds.owner: say.OWNERS[shared.jobs.owners.whose(run, shared.caller(request))] if run else "",
        }

    def anew(run_id: str | None) -> dict[Any, Any]:
        run = shared.jobs.find(run_id)
        return {**labels.labelled(room.labels, run), **room.deleting.unsure}

    shared.keep(stand, [shared.chosen, steering.result], [*buttons, steering.result, deeds.owner])
    outputs = [*room.labels.fields, room.labels.said, *room.deleting.unsure]
    shared.chosen.change(anew, shared.chosen, outputs, queue=False, **QUIET)


def _can_do(run: Run | None, progress: Progress) -> tuple[bool, ...]:
    """Whether a run can be resumed, paused, stopped, trained again, asked, deleted."""
    is_there = run is not None and run.readable
    goes = progress.status in ("running", "queued")
    return (
        is_there and progress.status in ("stopped", "paused", "failed", "lost"),
        is_there and goes,
        is_there and (goes or progress.status == "paused"),
        is_there and run is not None and not run.imported_from,
        is_there and run is not None and run.has_adapter,
        run is not None and progress.status != "running",
    )


def _mend(room: _Room) -> None:
    """A press does what helps a run that failed."""
    shared, fix = room.shared, room.deeds.fix

    @shown(room.message)
    def mend(request: gr.Request, pressed: str) -> dict[Any, Any]:
        run_id, _, number = pressed.partition(" ")[0].partition("/")
        run = shared.jobs.retry(shared.run(run_id), int(number), shared.caller(request))
        return {room.message: views.plain_markdown(say.RETRIED.format(name=run.name)), shared.chosen: run.id}

    fix.change(mend, fix, [room.message, shared.chosen], concurrency_limit=1, **PRIVATE)


def _pick(room: _Room) -> None:
    """What other rooms are told of the runs that are picked; what is shown of them is `live`."""
    several, jobs = room.several, room.shared.jobs

    def pick(names: str) -> dict[Any, Any]:
        found = tuple(name for name in dict.fromkeys(names.split()) if jobs.find(name))
        return {several.picked: found, several.compare: gr.update(interactive=len(found) > 1)}

    outputs = [several.picked, several.compare]
    several.names.change(pick, several.names, outputs, queue=False, trigger_mode="always_last", **QUIET)
