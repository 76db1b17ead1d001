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
from playground.parts.choices import model_choice
from playground.parts.events import PRIVATE, QUIET, shown_if
from playground.parts.live import live_html
from playground.parts.shared import Shared
from tunelab import ModelSpec, Progress, Run, as_command, as_python, list_runs
from tunelab.run.deleting import run_bytes
from tunelab.runs_cli import size_text

LOOK = "() => window.playground?.look()"
LONGEST_CODE = 20_000  # characters that are shown


@dataclass(frozen=True)
class RunsRoom:
    """The components other parts of the page need."""

    again: gr.Button  # train the run that is chosen again, with changes
    to_compare: gr.Button  # the answers of the run that is chosen
    compare_picked: gr.Button
    picked: gr.State  # ids of the runs that are picked
    message: gr.Markdown


@dataclass(frozen=True)
class _Labels:
    """What a run is called, and of which run the fields say it."""

    of: gr.Textbox
    name: gr.Textbox
    tags: gr.Textbox
    note: gr.Textbox
    said: gr.Markdown

    @property
    def fields(self) -> list[Any]:
        return [self.of, self.name, self.tags, self.note]


@dataclass(frozen=True)
class _Deeds:
    """What can be done with the run that is chosen."""

    resume: gr.Button
    pause: gr.Button
    stop: gr.Button
    again: gr.Button
    compare: gr.Button
    delete: gr.Button
    result: gr.Dropdown
    sure: gr.State  # the id of the run that a second press deletes
    owner: gr.HTML


@dataclass(frozen=True)
class _Pressed:
    """Hidden text boxes that buttons inside `live` parts write into: what was pressed, and a number that is new."""

    fix: gr.Textbox
    make: gr.Textbox
    restore: gr.Textbox


@dataclass(frozen=True)
class _Several:
    """The runs that are picked."""

    names: gr.Textbox
    picked: gr.State
    compare: gr.Button


@dataclass(frozen=True)
class _Room:
    shared: Shared
    labels: _Labels
    deeds: _Deeds
    pressed: _Pressed
    several: _Several
    message: gr.Markdown
    undo: gr.Button
    gone: gr.State  # the id of the run that was deleted last


def build(shared: Shared) -> RunsRoom:
    """The room's components and what they do."""
    with gr.Row(equal_height=False, elem_id="runs-room"):
        with gr.Column(scale=15, min_width=320, elem_classes="act"):
            _lay_out_list()
            bring = _lay_out_bring()
            emptying = _lay_out_bin()
        with gr.Column(scale=9, min_width=320, elem_classes="act", elem_id="run-column"):
            with gr.Row(elem_classes="tight", elem_id="runs-said"):
                message = gr.Markdown("", elem_id="runs-message", elem_classes="message")
                undo = gr.Button(say.UNDO, size="sm", min_width=70, scale=0, visible="hidden", elem_id="undo-delete")
            compare = _lay_out_several()
            with gr.Column(elem_classes="act", elem_id="one-run"):
                labels, deeds = _lay_out_one()
                code = _lay_out_taking()
    pressed = _Pressed(*(_hidden(name) for name in ("fix-run", "make-export", "restore-run")))
    several = _Several(_hidden("picked-runs"), gr.State(()), compare)
    room = _Room(shared, labels, deeds, pressed, several, message, undo, gr.State(None))
    _follow(room)
    _keep_labels(room)
    _steer(room)
    _delete(room)
    _empty(room, emptying)
    _pick(room)
    _take(room, code)
    _bring(room, bring)
    return RunsRoom(deeds.again, deeds.compare, compare, several.picked, message)


# what the room looks like


def _hidden(name: str) -> gr.Textbox:
    return gr.Textbox(visible="hidden", elem_id=name, label=name)


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


def _lay_out_one() -> tuple[_Labels, _Deeds]:
    with gr.Row(elem_classes="settings"):
        name = gr.Textbox(label=say.NAME, info=say.NAME_HELP, max_lines=1, min_width=140, elem_id="run-name")
        tags = gr.Textbox(label=say.TAGS, info=say.TAGS_HELP, max_lines=1, min_width=140, elem_id="run-tags")
    note = gr.Textbox(label=say.NOTE, info=say.NOTE_HELP, lines=1, max_lines=6, elem_id="run-note")
    said = gr.Markdown("", elem_id="labels-message", elem_classes="message")
    labels = _Labels(_hidden("labels-of"), name, tags, note, said)
    with gr.Row(elem_classes="tight"):
        compare = _button(say.COMPARE, "compare-run", 130, variant="primary")
        again = _button(say.AGAIN, "again", 130)
        resume, pause, stop = (
            _button(words, name, 70)
            for words, name in ((say.RESUME, "go-on"), (say.PAUSE, "pause"), (say.STOP, "stop-run"))
        )
        delete = _button(say.DELETE, "delete-run", 70)
    result = gr.Dropdown(
        [], label=say.RESULT, info=say.RESULT_HELP, visible="hidden", interactive=True, elem_id="run-result"
    )
    live_html("about", elem_id="about-run", empty=say.NOTHING_CHOSEN)
    owner = gr.HTML("", elem_id="run-owner")
    return labels, _Deeds(resume, pause, stop, again, compare, delete, result, gr.State(None), owner)


def _button(words: str, name: str, width: int, variant: Any = "secondary") -> gr.Button:
    return gr.Button(words, size="sm", min_width=width, scale=0, interactive=False, elem_id=name, variant=variant)


@dataclass(frozen=True)
class _Code:
    drawer: gr.Accordion
    command: gr.Textbox
    python: gr.Textbox


def _lay_out_taking() -> _Code:
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
    return _Code(drawer, command, python)


@dataclass(frozen=True)
class _Bring:
    file: gr.File
    model: gr.Dropdown
    name: gr.Textbox
    go: gr.Button
    message: gr.Markdown


def _lay_out_bring() -> _Bring:
    with gr.Accordion(say.BRING, open=False, elem_id="bring"):
        file = gr.File(label=say.BRING_FILE, file_types=[".zip"], height=120, elem_id="bring-file")
        with gr.Row(elem_classes="settings"):
            model = model_choice(say.BRING_MODEL, say.BRING_MODEL_HELP)
            name = gr.Textbox(label=say.BRING_NAME, info=say.BRING_NAME_HELP, max_lines=1, elem_id="bring-name")
        go = gr.Button(say.BRING_BUTTON, size="sm", elem_id="bring-go")
        message = gr.Markdown("", elem_id="bring-message", elem_classes="message")
    return _Bring(file, model, name, go, message)


@dataclass(frozen=True)
class _Emptying:
    drawer: gr.Accordion
    go: gr.Button
    sure: gr.State
    message: gr.Markdown


def _lay_out_bin() -> _Emptying:
    with gr.Accordion(say.BIN, open=False, elem_id="bin") as drawer:
        live_html("deleted", elem_id="deleted", empty=say.BIN_EMPTY)
        go = gr.Button(say.EMPTY_BIN, size="sm", visible="hidden", elem_id="empty-bin")
        message = gr.Markdown("", elem_id="bin-message", elem_classes="message")
    return _Emptying(drawer, go, gr.State(False), message)


# what happens in it


def _follow(room: _Room) -> None:
    """What Gradio keeps of the run that is chosen; the rest is `live`."""
    shared, deeds = room.shared, room.deeds
    buttons = [deeds.resume, deeds.pause, deeds.stop, deeds.again, deeds.compare, deeds.delete]

    def stand(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        run = shared.jobs.find(run_id)
        progress = run.progress() if run else Progress("queued", "")
        stages, current = views.stage_results(run, progress)
        can_do = dict(zip(buttons, _can_do(run, progress), strict=True))
        return {
            **{button: gr.update(interactive=can, visible=shown_if(can)) for button, can in can_do.items()},
            deeds.result: gr.update(choices=stages, value=current, visible=shown_if(bool(stages))),
            deeds.owner: say.OWNERS[shared.jobs.owners.whose(run, shared.caller(request))] if run else "",
        }

    def anew(run_id: str | None) -> dict[Any, Any]:
        run = shared.jobs.find(run_id)
        return {**_labelled(room.labels, run), deeds.sure: None, deeds.delete: say.DELETE}

    for event in (shared.refresh.click, shared.chosen.change):
        event(stand, shared.chosen, [*buttons, deeds.result, deeds.owner], queue=False, **QUIET)
    outputs = [*room.labels.fields, room.labels.said, deeds.sure, deeds.delete]
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


def _labelled(labels: _Labels, run: Run | None) -> dict[Any, Any]:
    """The fields as a run is called now."""
    known = run.labels if run else None
    return {
        labels.of: run.id if run else "",
        labels.name: gr.update(value=run.name if run else "", interactive=run is not None),
        labels.tags: gr.update(value=", ".join(known.tags) if known else "", interactive=run is not None),
        labels.note: gr.update(value=known.note if known else "", interactive=run is not None),
        labels.said: "",
    }


def _keep_labels(room: _Room) -> None:
    """Name, tags and note are kept when their field is left. The fields say of which run they are: another one may
    have been chosen meanwhile."""
    shared, labels = room.shared, room.labels

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


def _steer(room: _Room) -> None:
    """Go on, pause, stop, go back to another stage, and what helps a run that failed."""
    shared, deeds, jobs = room.shared, room.deeds, room.shared.jobs

    @shown(room.message)
    def go_on(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        jobs.resume(shared.run(run_id), shared.caller(request))
        return {room.message: say.GOES_ON}

    @shown(room.message)
    def pause(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        jobs.pause(shared.run(run_id), shared.caller(request))
        return {room.message: say.PAUSING}

    @shown(room.message)
    def stop(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        jobs.stop(shared.run(run_id), shared.caller(request))
        return {room.message: say.STOPPING}

    @shown(room.message)
    def go_back(request: gr.Request, run_id: str | None, stage: int) -> dict[Any, Any]:
        run = shared.run(run_id)
        if views.stage_results(run, run.progress())[1] != stage:  # the browser may say it twice
            jobs.roll_back(run, stage, shared.caller(request))
        return {room.message: run.progress().message}

    @shown(room.message)
    def mend(request: gr.Request, pressed: str) -> dict[Any, Any]:
        run_id, _, number = pressed.partition(" ")[0].partition("/")
        run = jobs.retry(shared.run(run_id), int(number), shared.caller(request))
        return {room.message: views.plain_markdown(say.RETRIED.format(name=run.name)), shared.chosen: run.id}

    for button, deed in ((deeds.resume, go_on), (deeds.pause, pause), (deeds.stop, stop)):
        button.click(deed, shared.chosen, room.message, **PRIVATE)
    deeds.result.input(go_back, [shared.chosen, deeds.result], room.message, concurrency_limit=1, **PRIVATE)
    room.pressed.fix.change(mend, room.pressed.fix, [room.message, shared.chosen], concurrency_limit=1, **PRIVATE)


def _delete(room: _Room) -> None:
    """A second press deletes; one more brings it back."""
    shared, deeds, jobs = room.shared, room.deeds, room.shared.jobs

    @shown(room.message)
    def delete(request: gr.Request, run_id: str | None, sure: str | None) -> dict[Any, Any]:
        run = shared.run(run_id)
        if sure != run.id:
            jobs.owners.check(run, shared.caller(request))
            words = say.REALLY.format(size=size_text(run_bytes(run)))
            return {deeds.sure: run.id, deeds.delete: gr.update(value=words, variant="stop")}
        name, next_one = run.name, _beside(run, jobs.root)
        deleted = jobs.delete(run, shared.caller(request))
        return {
            deeds.sure: None,
            deeds.delete: gr.update(value=say.DELETE, variant="secondary"),
            shared.chosen: next_one,
            room.gone: run.id,
            room.undo: gr.update(visible=True),
            room.message: views.plain_markdown(say.DELETED.format(name=name, size=size_text(deleted.bytes))),
        }

    @shown(room.message)
    def restore(request: gr.Request, pressed: str | None) -> dict[Any, Any]:
        run = jobs.restore((pressed or "").partition(" ")[0], shared.caller(request))
        said = views.plain_markdown(say.RESTORED.format(name=run.name))
        return {shared.chosen: run.id, room.message: said, room.undo: gr.update(visible="hidden")}

    outputs = [deeds.sure, deeds.delete, shared.chosen, room.gone, room.undo, room.message]
    deeds.delete.click(delete, [shared.chosen, deeds.sure], outputs, concurrency_limit=1, **PRIVATE)
    back = [shared.chosen, room.message, room.undo]
    room.undo.click(restore, room.gone, back, **PRIVATE)
    room.pressed.restore.change(restore, room.pressed.restore, back, **PRIVATE)


def _beside(run: Run, root: Any) -> str | None:
    """The run that is chosen when this one is gone: the one below it, else the newest."""
    others = [one.id for one in list_runs(root) if one.id != run.id]
    return next((one for one in others if one < run.id), others[0] if others else None)


def _empty(room: _Room, emptying: _Emptying) -> None:
    """Whoever runs the server can remove what was deleted."""
    shared, jobs = room.shared, room.shared.jobs

    def offer(request: gr.Request) -> dict[Any, Any]:
        is_server = jobs.owners.runs_server(shared.caller(request))
        return {emptying.go: gr.update(value=say.EMPTY_BIN, visible=shown_if(is_server)), emptying.sure: False}

    @shown(emptying.message)
    def empty(request: gr.Request, sure: bool) -> dict[Any, Any]:
        if not sure:
            return {emptying.sure: True, emptying.go: gr.update(value=say.EMPTY_BIN_SURE, variant="stop")}
        freed = size_text(jobs.empty_deleted(shared.caller(request)))
        done = gr.update(value=say.EMPTY_BIN, variant="secondary")
        return {emptying.sure: False, emptying.go: done, emptying.message: say.EMPTIED.format(size=freed)}

    emptying.drawer.expand(offer, None, [emptying.go, emptying.sure], queue=False, **QUIET)
    emptying.go.click(empty, emptying.sure, [emptying.sure, emptying.go, emptying.message], **PRIVATE)


def _pick(room: _Room) -> None:
    """What other rooms are told of the runs that are picked; what is shown of them is `live`."""
    several, jobs = room.several, room.shared.jobs

    def pick(names: str) -> dict[Any, Any]:
        found = tuple(name for name in dict.fromkeys(names.split()) if jobs.find(name))
        return {several.picked: found, several.compare: gr.update(interactive=len(found) > 1)}

    outputs = [several.picked, several.compare]
    several.names.change(pick, several.names, outputs, queue=False, trigger_mode="always_last", **QUIET)


def _take(room: _Room, code: _Code) -> None:
    """Exports that take a while, and the run as code."""
    shared, jobs = room.shared, room.shared.jobs

    @shown(room.message)
    def make(pressed: str) -> dict[Any, Any]:
        run_id, _, kind = pressed.partition(" ")[0].partition("/")
        jobs.exports.make(shared.run(run_id), kind)
        return {room.message: ""}

    @shown(room.message)
    def write(run_id: str | None) -> dict[Any, Any]:
        run = jobs.find(run_id)
        if run is None or not run.readable or run.imported_from:
            return {code.command: "", code.python: ""}
        return {code.command: _shown_code(as_command(run)), code.python: _shown_code(as_python(run.config))}

    room.pressed.make.change(make, room.pressed.make, room.message, **PRIVATE).then(None, None, None, js=LOOK)
    for event in (code.drawer.expand, shared.chosen.change):
        event(write, shared.chosen, [code.command, code.python, room.message], queue=False, **QUIET)


def _shown_code(text: str) -> str:
    return text if len(text) <= LONGEST_CODE else say.TOO_LONG.format(size=size_text(len(text)))


def _bring(room: _Room, bring: _Bring) -> None:
    """An adapter made elsewhere becomes a run."""
    shared = room.shared

    @shown(bring.message)
    def take_in(request: gr.Request, file: str | None, model: str, name: str) -> dict[Any, Any]:
        if not file:
            return {bring.message: say.BRING_NOTHING}
        spec = ModelSpec(repo_id=model or "starter")
        run = shared.jobs.bring(file, spec, name.strip() or None, shared.caller(request))
        said = views.plain_markdown(say.BROUGHT.format(name=run.name))
        return {shared.chosen: run.id, bring.message: said, bring.file: None}

    outputs = [shared.chosen, bring.message, bring.file]
    bring.go.click(take_in, [bring.file, bring.model, bring.name], outputs, concurrency_limit=1, **PRIVATE)
