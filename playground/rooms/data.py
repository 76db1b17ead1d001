"""The Data room: left where rows come from and which column plays which role, right what there is to see of them. The
form is `data_form`; what is seen is found out in `looking`, and shown by `views`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import data_form, views
from playground.english import data as say
from playground.errors import shown, words_for
from playground.looking import SHOWN, Sight, Trouble, look, rows_from
from playground.material import Material
from playground.parts.events import PRIVATE, QUIET, by_name
from playground.parts.shared import Shared
from tunelab import ModelSpec, Stage, list_handed

PAUSE_SECONDS = 0.6  # after the last letter, before what was written is read
FIX = "data-fix"


class Turns:
    """Of one page: which look is the newest; those before it are over."""

    def __init__(self) -> None:
        self.newest = 0

    def take(self) -> int:
        self.newest += 1
        return self.newest


@dataclass(frozen=True)
class DataRoom:
    """The components other parts of the page need."""

    model: gr.State  # the `ModelSpec` whose tokenizer reads the rows
    kind: gr.Radio
    panels: dict[str, gr.Column]


@dataclass(frozen=True)
class _Seen:
    """What there is to see."""

    summary: gr.HTML
    train: gr.Button
    message: gr.Markdown
    rows: gr.HTML
    back: gr.Button
    next: gr.Button
    findings_tab: gr.Tab
    findings: gr.HTML
    pictures: gr.HTML
    division: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        found = [self.findings_tab, self.findings, self.pictures, self.division]
        return [self.summary, self.train, self.rows, self.back, self.next, *found]


@dataclass(frozen=True)
class _Room:
    shared: Shared
    form: data_form.Form
    seen: _Seen
    turns: gr.State
    model: gr.State
    fixes: gr.State  # names of the doctor's fixes that are applied
    ready: gr.State  # the `Material` that could be trained on
    stage: gr.State  # what is shown, and from which row on
    first: gr.State
    fix: gr.Textbox  # filled by the page's script: a fix to apply or to undo
    use: gr.Textbox  # the same: choices that were proposed where something is wrong

    @property
    def inputs(self) -> list[Any]:
        return [self.turns, self.model, self.fixes, *self.form.widgets.values()]

    @property
    def outputs(self) -> list[Any]:
        form = self.form
        shown = [form.cards, form.mapping, form.amount, form.heldout_file, *form.places.values()]
        told = [*form.troubles.values(), *form.roles.values()]
        return [*self.seen.outputs, self.ready, self.stage, self.first, *shown, *told]


def build(shared: Shared, tab: gr.Tab) -> DataRoom:
    """The room's components and what they do; `tab` is what it stands in."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_classes="act"):
            form = data_form.lay_out()
        with gr.Column(scale=7, min_width=320, elem_id="data-seen", elem_classes="act"):
            seen = _lay_out_seen()
    hidden: dict[str, Any] = {"visible": "hidden", "label": "hidden"}
    room = _Room(
        shared,
        form,
        seen,
        turns=gr.State(Turns()),
        model=gr.State(ModelSpec(repo_id="starter")),
        fixes=gr.State(()),
        ready=gr.State(None),
        stage=gr.State(None),
        first=gr.State(0),
        fix=gr.Textbox(elem_id=FIX, **hidden),
        use=gr.Textbox(elem_id="data-use", **hidden),
    )
    _choose_source(room)
    _look(room, tab)
    _mend(room)
    _turn_pages(room)
    _train(room)
    return DataRoom(room.model, form.widgets["kind"], form.panels)


def _lay_out_seen() -> _Seen:
    with gr.Row(equal_height=True, elem_classes="tight", elem_id="data-head"):
        summary = gr.HTML(views.summary_html(Sight()), elem_id="data-summary")
        train = gr.Button(
            say.TRAIN, variant="primary", interactive=False, scale=0, min_width=190, elem_id="train-on-this"
        )
    message = gr.Markdown("", elem_id="data-message", elem_classes="message")
    with gr.Tabs(elem_id="data-views"):
        with gr.Tab(say.ROWS, id="rows"):
            rows = gr.HTML("", elem_id="data-rows")
            with gr.Row(elem_classes="tight"):
                quiet: dict[str, Any] = {"size": "sm", "interactive": False, "scale": 0, "min_width": 120}
                back = gr.Button(say.BACK, elem_id="data-back", **quiet)
                forth = gr.Button(say.NEXT, elem_id="data-next", **quiet)
        with gr.Tab(say.FINDINGS, id="findings") as findings_tab:
            findings = gr.HTML(views.findings_html(Sight()), elem_id="data-findings")
        with gr.Tab(say.PICTURES, id="pictures"):
            pictures = gr.HTML(views.pictures_html(Sight()), elem_id="data-pictures")
        with gr.Tab(say.DIVISION, id="division"):
            division = gr.HTML(views.division_html(Sight()), elem_id="data-division")
    return _Seen(summary, train, message, rows, back, forth, findings_tab, findings, pictures, division)


# what happens


def _seeing(room: _Room) -> dict[str, Any]:
    """How a look is wired: a newer one begins at once, and what the older one finds is shown no more."""
    return {
        "inputs": room.inputs,
        "outputs": room.outputs,
        "trigger_mode": "multiple",
        "concurrency_limit": 8,
        **QUIET,
    }


def _looks(room: _Room, pause: float = 0.0) -> Any:
    """A handler that shows what there is to see of the rows that are chosen, as it is found out."""

    def handler(turns: Turns, model: ModelSpec, fixes: tuple[str, ...], *values: Any) -> Iterator[dict[Any, Any]]:
        turn = turns.take()
        time.sleep(pause)
        if turns.newest == turn:
            yield from _found(room, model, fixes, values, lambda: turns.newest != turn)
        if turns.newest != turn:
            yield nothing_new(room)

    return handler


def nothing_new(room: _Room) -> dict[Any, Any]:
    """An update that changes nothing. Gradio empties the outputs of a generator that yields nothing, and shows what it
    yielded last once more when it ends: a look that is over must end with this."""
    return {room.seen.summary: gr.skip()}


def _found(
    room: _Room, model: ModelSpec, fixes: tuple[str, ...], values: tuple[Any, ...], is_over: Callable[[], bool]
) -> Iterator[dict[Any, Any]]:
    named = by_name(room.form.widgets, values)
    try:
        stage = data_form.stage_of(named, fixes, room.shared.jobs)
        for sight in look(stage, model, is_over) if stage else (Sight(),):
            yield shown_as(room, sight, named)
    except Exception as error:
        if not is_over():
            yield shown_as(room, Sight(trouble=Trouble(_where(error), words_for(error))), named)


def _where(error: Exception) -> str:
    """The choice that a form is wrong in."""
    said = str(error)
    return "labels" if said.startswith(say.LABELS_WRONG[:5]) else "heldout" if "heldout" in said else "source"


def shown_as(room: _Room, sight: Sight, values: dict[str, Any]) -> dict[Any, Any]:
    """The updates that show what is known."""
    seen, form = room.seen, room.form
    ready = views.material_of(sight)
    return {
        room.ready: ready,
        room.stage: sight.stage,
        room.first: 0,
        seen.summary: views.summary_html(sight),
        seen.train: gr.update(interactive=ready is not None),
        seen.rows: views.rows_html(sight.rows, 0, sight),
        seen.back: gr.update(interactive=False),
        seen.next: gr.update(interactive=sight.more_rows and not sight.is_part),
        seen.findings_tab: gr.update(label=views.findings_title(sight)),
        seen.findings: views.findings_html(sight),
        seen.pictures: views.pictures_html(sight),
        seen.division: views.division_html(sight),
        form.mapping: views.mapping_html(sight),
        form.cards: views.builtin_html(data_form.builtin_of(values)),
        form.amount: gr.update(visible=values["heldout"] == "amount"),
        form.heldout_file: gr.update(visible=values["heldout"] == "file"),
        **_troubles(form, sight.trouble),
        **_roles(form, sight, values),
    }


def _troubles(form: data_form.Form, trouble: Trouble | None) -> dict[Any, Any]:
    """The trouble beside its choice, nothing beside the others."""
    where = trouble.where if trouble and trouble.where in form.troubles else "source"
    return {place: views.trouble_html(trouble if name == where else None) for name, place in form.troubles.items()}


def _roles(form: data_form.Form, sight: Sight, values: dict[str, Any]) -> dict[Any, Any]:
    """The drop-downs filled with the columns there are, and those that this shape of rows has."""
    if not sight.columns and not sight.trouble:
        return {}
    updates: dict[Any, Any] = {}
    for role, dropdown in form.roles.items():
        proposed = sight.roles.get(role) or (sight.roles.get("conversations") if role == "messages" else None)
        by_itself = say.PROPOSED.format(column=proposed) if proposed else say.NOT_USED
        chosen = values[f"role.{role}"] or ""
        updates[dropdown] = gr.update(choices=[(by_itself, ""), *((c, c) for c in sight.columns)], value=chosen)
    turns = "messages" in sight.roles or "conversations" in sight.roles or values["role.messages"]
    main = data_form.TEXT if values["learn"] == "text" else ("messages",) if turns else data_form.MAIN[:2]
    told = sight.trouble.where if sight.trouble else ""
    return updates | {place: gr.update(visible=role in (*main, told)) for role, place in form.places.items()}


def _choose_source(room: _Room) -> None:
    """Other rows: what was chosen for those before does not hold for them."""
    form, widgets = room.form, room.form.widgets
    reset = [*form.roles.values(), widgets["template"], widgets["labels"], room.fixes, widgets["heldout"]]
    reset += [widgets["heldout_file"], widgets["learn"]]

    def anew() -> list[Any]:
        return [*("" for _role in form.roles), "", "", (), "auto", None, "instructions"]

    def choose(kind: str) -> dict[Any, Any]:
        panels = {panel: gr.update(visible=name == kind) for name, panel in form.panels.items()}
        return {**panels, widgets["handed"]: handed(room)}

    widgets["kind"].change(choose, widgets["kind"], [*form.panels.values(), widgets["handed"]], **QUIET)
    form.reload.click(lambda: handed(room), None, widgets["handed"], **QUIET)
    events = [widgets["kind"].change, widgets["file"].upload, widgets["file"].clear, widgets["handed"].input]
    events += [widgets["builtin"].change, form.fetch.click, widgets["hub"].submit]
    gr.on(events, anew, None, reset, trigger_mode="multiple", **QUIET).then(_looks(room), **_seeing(room))


def handed(room: _Room) -> Any:
    """The choice of what was handed over, as it stands now."""
    choices = views.handed_choices(list_handed(room.shared.jobs.root))
    return gr.update(choices=choices, visible=bool(choices))


def _look(room: _Room, tab: gr.Tab) -> None:
    """Every change is looked at, at once or when the writing pauses; and the rows when the room is first opened."""
    widgets = room.form.widgets
    at_once = [w.input for name, w in widgets.items() if name.startswith("role.")]
    at_once += [widgets["learn"].input, widgets["header"].input, widgets["heldout"].input, room.model.change]
    at_once += [widgets["heldout_file"].upload, widgets["heldout_file"].clear]
    # Gradio's `input` of a text box is a key that writes: not a paste with the mouse, nor a letter that is deleted
    soon = [widgets[name].change for name in data_form.SOON]
    for events, pause in ((at_once, 0.0), (soon, PAUSE_SECONDS)):
        gr.on(events, _looks(room, pause), **_seeing(room))
    once = _looks(room)

    def opened(*values: Any) -> Iterator[dict[Any, Any]]:
        if values[0].newest == 0:
            yield from once(*values)
        else:
            yield nothing_new(room)

    tab.select(opened, **_seeing(room))


def _mend(room: _Room) -> None:
    """Fixes of the doctor are applied and undone, and proposed choices taken, by a press."""
    form = room.form

    def toggle(written: str, fixes: tuple[str, ...]) -> tuple[str, ...]:
        name = written.partition(" ")[0]
        return tuple(fix for fix in fixes if fix != name) if name in fixes else (*fixes, name)

    def take(written: str) -> dict[Any, Any]:
        chosen = json.loads(written.rpartition(" ")[0] or "{}")
        known = {**form.roles, "learn": form.widgets["learn"], "header": form.widgets["header"]}
        updates: dict[Any, Any] = {known[name]: value for name, value in chosen.items() if name in known}
        if "prompt" in chosen:
            updates[form.widgets["template"]] = ""
        return updates or {form.widgets["template"]: gr.skip()}

    room.fix.change(toggle, [room.fix, room.fixes], room.fixes, **QUIET).then(_looks(room), **_seeing(room))
    named = [*form.roles.values(), form.widgets["learn"], form.widgets["header"], form.widgets["template"]]
    room.use.change(take, room.use, named, **QUIET).then(_looks(room), **_seeing(room))


def _turn_pages(room: _Room) -> None:
    seen = room.seen
    outputs = [seen.rows, seen.back, seen.next, room.first, seen.message]

    def turn(step: int) -> Any:
        @shown(seen.message)
        def handler(stage: Stage, model: ModelSpec, first: int) -> dict[Any, Any]:
            start = max(0, first + step)
            rows, more = rows_from(stage, model, start)
            return {
                seen.rows: views.rows_html(rows, start),
                seen.back: gr.update(interactive=start > 0),
                seen.next: gr.update(interactive=more),
                room.first: start,
                seen.message: "",
            }

        return handler

    for button, step in ((seen.next, SHOWN), (seen.back, -SHOWN)):
        button.click(turn(step), [room.stage, room.model, room.first], outputs, **PRIVATE)


def _train(room: _Room) -> None:
    """The next step: these rows are the data in hand."""
    shared, seen = room.shared, room.seen

    @shown(seen.message)
    def go(ready: Material) -> dict[Any, Any]:
        stage = data_form.kept(Stage(data=ready.data, learn=ready.learn), shared.jobs)
        material = Material(stage.data, ready.learn, ready.summary, ready.metric)
        return {shared.material: material, seen.message: "", **shared.go("train")}

    seen.train.click(go, room.ready, [shared.material, seen.message, shared.tabs], **PRIVATE)
