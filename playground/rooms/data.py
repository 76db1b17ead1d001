"""The Data room: left where rows come from and which column plays which role, right what there is to see of them. The
form is `data_form`; what is seen is found out in `looking`, and shown by `views`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import data_form, views
from playground.chosen_rows import kept, stage_of
from playground.english import data as say
from playground.errors import shown, words_for
from playground.looking import SHOWN, Sight, look, rows_from
from playground.material import Material
from playground.parts import data_seen
from playground.parts.events import PRIVATE, QUIET, by_name, shown_if
from playground.parts.hidden import hidden
from playground.parts.shared import Shared
from playground.troubles import Trouble, where_wrong
from tunelab import ModelSpec, Stage, list_handed

PAUSE_SECONDS = 0.6  # after the last letter, before what was written is read
LONGEST_WAIT = 5.0  # seconds for what an older look has said to be sent; a page that left hears nothing
CLOCK = "(_asked, ...given) => [String(performance.now()), ...given]"  # before an event is sent; see `Turns`


class Turns:
    """Of one page: which look is the newest; those asked for before it are over, and show nothing after it.

    A look's turn is the page's clock when it was asked for. Gradio begins what waits in any order: a look that begins
    later may have been asked for earlier.
    """

    def __init__(self) -> None:
        self.newest = -1.0
        self._told: set[object] = set()  # what looks have said and the page may not have heard yet
        self._heard = threading.Condition()

    def __deepcopy__(self, _known: dict[int, Any]) -> Turns:
        return Turns()  # of the next page

    def take(self, turn: float) -> None:
        """Begin a look: older ones are over, and what they have said has reached the page."""
        with self._heard:
            if self.is_over(turn):
                return
            self.newest = turn
            before = set(self._told)
            self._heard.wait_for(lambda: not before & self._told, LONGEST_WAIT)

    def is_over(self, turn: float) -> bool:
        return self.newest > turn

    def say(self, turn: float, update: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
        """The update, unless the look is over. Gradio comes back for the next one when it has sent this one."""
        mark = object()
        with self._heard:
            if self.is_over(turn):
                return
            self._told.add(mark)
        try:
            yield update
        finally:
            with self._heard:
                self._told.discard(mark)
                self._heard.notify_all()


@dataclass(frozen=True)
class DataRoom:
    """The components other parts of the page need."""

    model: gr.State  # the `ModelSpec` whose tokenizer reads the rows
    kind: gr.Radio
    panels: dict[str, gr.Column]


@dataclass(frozen=True)
class _Room:
    shared: Shared
    form: data_form.Form
    seen: data_seen.Seen
    turns: gr.State
    asked: gr.Textbox  # filled by the page: its clock when a look is asked for
    model: gr.State
    fixes: gr.State  # names of the doctor's fixes that are applied
    ready: gr.State  # the `Material` that could be trained on
    stage: gr.State  # what is shown, and from which row on
    first: gr.State
    fix: gr.Textbox  # filled by the page's script: a fix to apply or to undo
    use: gr.Textbox  # the same: choices that were proposed where something is wrong

    @property
    def inputs(self) -> list[Any]:
        return [self.asked, self.turns, self.model, self.fixes, *self.form.widgets.values()]

    @property
    def outputs(self) -> list[Any]:
        return [*self.seen.outputs, self.ready, self.stage, self.first, *self.form.outputs]


def build(shared: Shared, tab: gr.Tab) -> DataRoom:
    """The room's components and what they do; `tab` is what it stands in."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320, elem_classes="act"):
            form = data_form.lay_out()
        with gr.Column(scale=7, min_width=320, elem_id="data-seen", elem_classes="act"):
            seen = data_seen.lay_out()
    room = _Room(
        shared,
        form,
        seen,
        turns=gr.State(Turns()),
        asked=hidden("data-asked"),
        model=gr.State(ModelSpec(repo_id="starter")),
        fixes=gr.State(()),
        ready=gr.State(None),
        stage=gr.State(None),
        first=gr.State(0),
        fix=hidden("data-fix"),
        use=hidden("data-use"),
    )
    _choose_source(room)
    _look(room, tab)
    _mend(room)
    _turn_pages(room)
    _train(room)
    return DataRoom(room.model, form.widgets["kind"], form.panels)


# what happens


def _seeing(room: _Room) -> dict[str, Any]:
    """How a look is wired: a newer one begins at once, and what the older one finds is shown no more."""
    return {
        "inputs": room.inputs,
        "outputs": room.outputs,
        "trigger_mode": "multiple",
        "concurrency_limit": 8,
        "js": CLOCK,
        **QUIET,
    }


def _looks(room: _Room, pause: float = 0.0) -> Any:
    """A handler that shows what there is to see of the rows that are chosen, as it is found out."""

    def handler(
        asked: str, turns: Turns, model: ModelSpec, fixes: tuple[str, ...], *values: Any
    ) -> Iterator[dict[Any, Any]]:
        turn = float(asked)
        turns.take(turn)
        time.sleep(pause)
        for update in _found(room, model, fixes, values, lambda: turns.is_over(turn)):
            yield from turns.say(turn, update)
        if turns.is_over(turn):
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
    if is_over():
        return
    try:
        stage = stage_of(named, fixes, room.shared.jobs)
        for sight in look(stage, model, is_over) if stage else (Sight(),):
            yield shown_as(room, sight, named)
    except Exception as error:
        if not is_over():
            yield shown_as(room, Sight(trouble=Trouble(where_wrong(error), words_for(error))), named)


def shown_as(room: _Room, sight: Sight, values: dict[str, Any]) -> dict[Any, Any]:
    """The updates that show what is known."""
    return {
        room.ready: views.material_of(sight),
        room.stage: sight.stage,
        room.first: 0,
        **data_seen.shown_as(room.seen, sight),
        **data_form.shown_as(room.form, sight, values),
    }


def _choose_source(room: _Room) -> None:
    """Other rows: what was chosen for those before does not hold for them."""
    form, widgets = room.form, room.form.widgets
    reset = {widgets[name]: value for name, value in data_form.UNCHOSEN.items()} | {room.fixes: ()}
    reset |= dict.fromkeys(form.roles.values(), "")

    def anew() -> dict[Any, Any]:
        return reset

    def choose(kind: str) -> dict[Any, Any]:
        panels = {panel: gr.update(visible=name == kind) for name, panel in form.panels.items()}
        return {**panels, widgets["handed"]: handed(room)}

    widgets["kind"].change(choose, widgets["kind"], [*form.panels.values(), widgets["handed"]], **QUIET)
    form.reload.click(lambda: handed(room), None, widgets["handed"], **QUIET)
    events = [widgets["kind"].change, widgets["file"].upload, widgets["file"].clear, widgets["handed"].input]
    events += [widgets["builtin"].change, form.fetch.click, widgets["hub"].submit]
    gr.on(events, anew, None, list(reset), trigger_mode="multiple", **QUIET).then(_looks(room), **_seeing(room))


def handed(room: _Room) -> Any:
    """The choice of what was handed over, as it stands now."""
    choices = views.handed_choices(list_handed(room.shared.jobs.root))
    return gr.update(choices=choices, visible=shown_if(choices))


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
        if values[1].newest < 0:
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
    def go(ready: Material, fixes: tuple[str, ...], *values: Any) -> dict[Any, Any]:
        stage = Stage(data=ready.data, learn=ready.learn)
        if stage_of(by_name(room.form.widgets, values), fixes, shared.jobs) != stage:
            return {seen.message: say.READ_AGAIN}  # something was chosen since, and pressed before it was read
        stage = kept(stage, shared.jobs)
        material = Material(stage.data, ready.learn, ready.summary, ready.metric)
        return {shared.material: material, seen.message: "", **shared.go("train")}

    asked = [room.ready, room.fixes, *room.form.widgets.values()]
    seen.train.click(go, asked, [shared.material, seen.message, shared.tabs], **PRIVATE)
