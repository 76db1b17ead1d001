"""The page: its rooms, and what happens between them. Composition only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import api, quick, run_form, views
from playground.english import page as say
from playground.english import runs as say_runs
from playground.errors import shown
from playground.jobs import Jobs
from playground.live import moment_of
from playground.material import Material
from playground.owners import Caller
from playground.parts import columns
from playground.parts.changes import Asked
from playground.parts.events import PRIVATE, QUIET, shown_if
from playground.parts.hidden import hidden
from playground.parts.shared import Shared
from playground.rooms import compare, data, learn, measure, runs, train
from playground.sources import check_model
from tunelab import Comparer, ModelSpec, Run, UserError, again, list_runs

DARK = "() => window.playgroundTheme.dark()"
PROJECTOR = "() => window.playgroundTheme.projector()"
LOOK = "() => window.playground?.look()"


@dataclass(frozen=True)
class _Head:
    """What stands above the rooms."""

    chosen_run: gr.HTML
    choose: gr.Textbox  # filled by the page's script when something that stands for a run is pressed
    opened_at: gr.Textbox  # the moment of the runs that Gradio filled the page with
    awaited: gr.State  # the quick adapter's id, while its end is waited for to show it in Compare


@dataclass(frozen=True)
class _FirstVisit:
    """The card that a first visit begins with; it goes when one of its ways has been taken."""

    card: gr.Column
    quick: gr.Button
    own: gr.Button
    message: gr.Markdown


@dataclass(frozen=True)
class _Rooms:
    data: data.DataRoom
    training: train.TrainRoom
    comparing: compare.CompareRoom
    measuring: measure.MeasureRoom
    compare_tab: gr.Tab
    first_visit: _FirstVisit
    kept: runs.RunsRoom


def build(jobs: Jobs, comparer: Comparer) -> gr.Blocks:
    """The page of one runs root."""
    with gr.Blocks(title=say.TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        api.offer(jobs, comparer)  # first: no handler of a room takes its names
        head = _lay_out_head()
        chosen, material = gr.State(None), gr.State(Material())
        refresh, held = gr.Button(visible="hidden", elem_id="refresh"), columns.hold()
        with gr.Tabs(selected="train", elem_id="rooms") as tabs:
            shared = Shared(page, jobs, comparer, tabs, chosen, material, refresh)
            rooms = _lay_out_rooms(shared, held)
        _open(page, shared, head)
        _choose(shared, head)
        _first_visit(shared, head, rooms)
        _lead_on(shared, head, rooms)
        _lead_on_from_runs(shared, rooms)
    return page


def _lay_out_head() -> _Head:
    with gr.Row(elem_id="head", elem_classes="tight"):
        gr.HTML(f"<h1>{say.TITLE}</h1>", elem_id="title")
        chosen_run = gr.HTML(views.chosen_run_html(None), elem_id="chosen-run")
        for words, script, name in ((say.PROJECTOR, PROJECTOR, "projector"), (say.DARK, DARK, "dark")):
            gr.Button(words, size="sm", min_width=60, scale=0, elem_id=name).click(None, None, None, js=script)
    gr.HTML(f'<p role="alert">{say.OFFLINE}</p>', elem_id="offline")
    return _Head(chosen_run, hidden("choose-run"), hidden("opened-at"), gr.State(None))


def _lay_out_first_visit() -> _FirstVisit:
    with gr.Column(elem_id="first-visit") as card:  # the style sheet shows it while no run is chosen
        gr.HTML(f"<h2>{say.FIRST_TITLE}</h2><p>{say.FIRST_WORDS}</p>")
        with gr.Row(elem_classes="tight"):
            quick_button = gr.Button(say.FIRST_BUTTON, variant="primary", elem_id="quick", scale=0, min_width=220)
            own = gr.Button(say.FIRST_OWN, elem_id="own", scale=0, min_width=220)
        message = gr.Markdown("", elem_id="first-message", elem_classes="message")
        _tour()
    return _FirstVisit(card, quick_button, own, message)


def _tour() -> None:
    """What is where, step by step."""
    with gr.Accordion(say.TOUR, open=False), gr.Walkthrough(selected=0, elem_id="tour") as tour:
        for number, (title, words) in enumerate(say.TOUR_STEPS):
            with gr.Step(title, id=number):
                gr.Markdown(words)
                if number + 1 < len(say.TOUR_STEPS):
                    on = gr.Button(say.TOUR_NEXT, size="sm", scale=0, min_width=100)
                    on.click(lambda number=number: gr.Walkthrough(selected=number + 1), None, tour, **QUIET)


def _lay_out_rooms(shared: Shared, held: columns.Held) -> _Rooms:
    with gr.Tab(say.ROOMS["data"], id="data") as data_tab:
        choosing = data.build(shared, data_tab)
    with gr.Tab(say.ROOMS["train"], id="train"):  # which a page opens with
        first_visit = _lay_out_first_visit()
        training = train.build(shared)
    with gr.Tab(say.ROOMS["compare"], id="compare") as compare_tab:
        comparing = compare.build(shared, held)
    with gr.Tab(say.ROOMS["measure"], id="measure"):
        measuring = measure.build(shared)
    with gr.Tab(say.ROOMS["runs"], id="runs"):
        kept = runs.build(shared)
    with gr.Tab(say.ROOMS["learn"], id="learn"):
        learn.build()
    return _Rooms(choosing, training, comparing, measuring, compare_tab, first_visit, kept)


def _open(page: gr.Blocks, shared: Shared, head: _Head) -> None:
    """The page finds its run when it is opened."""

    def attach(request: gr.Request) -> dict[Any, Any]:
        moment = moment_of(shared.jobs)  # first: what the page is filled with is at least as new
        run = _run_to_show(shared.jobs, request.query_params.get("run"))
        awaited = _is_awaited(shared.jobs, run, shared.caller(request)) if run else False
        found = {shared.chosen: run.id if run else None, head.awaited: run.id if run and awaited else None}
        return {**found, head.opened_at: moment}

    page.load(attach, None, [shared.chosen, head.awaited, head.opened_at], **QUIET)


def _choose(shared: Shared, head: _Head) -> None:
    """The run that is chosen stands in the head of every room."""

    def named(run_id: str | None) -> Any:
        return views.chosen_run_html(shared.jobs.find(run_id))

    def chosen_by_hand(written: str) -> str | None:
        run = shared.jobs.find(written.partition(" ")[0])
        return run.id if run else None

    event = shared.chosen.change(named, shared.chosen, head.chosen_run, queue=False, **QUIET)
    event.then(None, None, None, js=LOOK)
    head.choose.change(chosen_by_hand, head.choose, shared.chosen, **QUIET)


def _first_visit(shared: Shared, head: _Head, rooms: _Rooms) -> None:
    """One press, and the answers are shown when it is done. Whoever takes rows of his own has chosen as well."""
    first = rooms.first_visit
    gone = {first.card: gr.update(visible=False)}

    @shown(first.message)
    def begin(request: gr.Request) -> dict[Any, Any]:
        run = shared.jobs.start(quick.quick_config(), shared.caller(request))
        return {shared.chosen: run.id, head.awaited: run.id, first.message: ""}

    first.quick.click(begin, None, [shared.chosen, head.awaited, first.message], **PRIVATE)
    own = [shared.tabs, rooms.data.kind, first.card]
    first.own.click(lambda: {**shared.go("data"), rooms.data.kind: "file", **gone}, None, own, **QUIET)
    shared.material.change(lambda: gone, None, [first.card], queue=False, **QUIET)


def _lead_on(shared: Shared, head: _Head, rooms: _Rooms) -> None:
    """From a run to its answers: when its button is pressed, and by itself when the quick adapter is done."""
    comparing = rooms.comparing

    def arrive(run: Run) -> dict[Any, Any]:
        return {**shared.go("compare"), **compare.show(shared.jobs, comparing, run)}

    def pressed(run_id: str | None) -> dict[Any, Any]:
        return arrive(shared.run(run_id))

    def land(run_id: str | None) -> dict[Any, Any]:
        run = shared.jobs.find(run_id)
        if run is None or run.status in ("running", "queued"):
            return {head.awaited: gr.skip()}
        if run.status != "finished":
            return {head.awaited: None}
        return {head.awaited: None, shared.chosen: run.id, **arrive(run), comparing.arrived: run.id}

    def by_hand(run_id: str | None, asked: Asked | None) -> dict[Any, Any]:
        if asked is None:
            return {shared.tabs: gr.skip()}
        reference = gr.update(value=asked.reference, visible=shown_if(asked.reference))
        filled = {comparing.prompt: asked.prompt, comparing.reference: reference}
        arrived = arrive(shared.run(run_id))
        return {**arrived, **filled, comparing.examples: {**arrived[comparing.examples], "value": None}}

    arrival = [shared.tabs, *comparing.arrival]
    rooms.measuring.to_compare.click(pressed, shared.chosen, arrival, **PRIVATE)
    rooms.measuring.asked.change(by_hand, [shared.chosen, rooms.measuring.asked], arrival, **QUIET)
    rooms.training.to_compare.click(pressed, shared.chosen, arrival, **PRIVATE)
    for button in (rooms.training.change_data, comparing.to_data):
        button.click(lambda: shared.go("data"), None, shared.tabs, **QUIET)
    _read_with(shared, rooms)
    for button in (rooms.training.to_measure, comparing.to_measure):
        button.click(lambda: shared.go("measure"), None, shared.tabs, **QUIET)
    for button in (comparing.to_data, comparing.to_measure):  # what they invite to has been done
        button.click(lambda: views.landed_html(None), None, comparing.landed, queue=False, **QUIET)
    # queued: only then does the change of a State reach its listeners
    landing = [head.awaited, shared.chosen, *arrival, comparing.arrived]
    shared.refresh.click(land, head.awaited, landing, concurrency_limit=8, **QUIET)


def _read_with(shared: Shared, rooms: _Rooms) -> None:
    """The Data room reads rows with the tokenizer of the model that the Train room has chosen."""
    widgets = rooms.training.choices.widgets
    chosen = [widgets["repo_id"], widgets["ModelSpec.revision"], widgets["ModelSpec.max_length"]]

    def model(request: gr.Request, repo_id: str, revision: str, max_length: int) -> Any:
        try:
            spec = ModelSpec(repo_id=repo_id or "starter", revision=revision or None, max_length=max_length)
            check_model(spec, shared.jobs.owners, shared.caller(request))
        except (ValueError, UserError):  # Train says so
            return gr.skip()
        return spec

    gr.on([widget.change for widget in chosen], model, chosen, rooms.data.model, **QUIET)


def _lead_on_from_runs(shared: Shared, rooms: _Rooms) -> None:
    """From runs to their answers side by side, and from one to its settings in the form: to train it again."""
    kept, comparing, training = rooms.kept, rooms.comparing, rooms.training

    @shown(kept.message)
    def compare_one(run_id: str | None) -> dict[Any, Any]:
        return {**shared.go("compare"), **compare.show(shared.jobs, comparing, shared.run(run_id))}

    @shown(kept.message)
    def compare_picked(picked: tuple[str, ...]) -> dict[Any, Any]:
        asked = [shared.run(name) for name in picked]
        if len(asked) > compare.MOST_RUNS:
            raise UserError(say_runs.TOO_MANY_TO_COMPARE.format(most=compare.MOST_RUNS, many=len(asked)))
        return {**shared.go("compare"), **compare.show(shared.jobs, comparing, *asked)}

    @shown(kept.message)
    def train_again(run_id: str | None) -> dict[Any, Any]:
        config = again(shared.run(run_id))
        *before, last = config.stages
        return {
            **shared.go("train"),
            **run_form.fill(training.choices, config),
            shared.material: Material.of(last),
            training.before: tuple(before),
        }

    arrival = [shared.tabs, *comparing.arrival, kept.message]
    kept.to_compare.click(compare_one, shared.chosen, arrival, **PRIVATE)
    kept.compare_picked.click(compare_picked, kept.picked, arrival, **PRIVATE)
    filled = [*training.choices.widgets.values(), training.choices.technique_words]
    kept.again.click(
        train_again, shared.chosen, [shared.tabs, *filled, shared.material, training.before, kept.message], **PRIVATE
    )


def _is_awaited(jobs: Jobs, run: Run, caller: Caller) -> bool:
    """Whether the caller's page goes to Compare when the run is done: nobody is taken away from his work by what
    another one has started."""
    is_his = jobs.owners.whose(run, caller) == "yours"
    return is_his and run.status in ("running", "queued") and quick.is_quick(run)


def _run_to_show(jobs: Jobs, run_id: str | None) -> Run | None:
    """The run the address names, else the one that trains, else the newest."""
    every = list_runs(jobs.root)
    named = next((run for run in every if run.id == run_id), None)
    alive = next((run for run in every if run.is_alive), None)
    return named or alive or (every[0] if every else None)
