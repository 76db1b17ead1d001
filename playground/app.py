"""The page: its rooms, and what happens between them. Composition only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import api, quick, views
from playground.english import page as say
from playground.errors import shown
from playground.jobs import Jobs
from playground.material import Material
from playground.parts.events import PRIVATE, QUIET
from playground.parts.shared import Shared
from playground.rooms import compare, learn, methods, runs, train
from tunelab import Comparer, Run, list_runs

DARK = "() => window.playgroundTheme.dark()"
PROJECTOR = "() => window.playgroundTheme.projector()"
DATA = "train"  # the room in which data are chosen
LOOK = "() => window.playground?.look()"


@dataclass(frozen=True)
class _Head:
    """What stands above the rooms."""

    chosen_run: gr.HTML
    choose: gr.Textbox  # filled by the page's script when something that stands for a run is pressed
    awaited: gr.State  # the quick adapter's id, while its end is waited for to show it in Compare
    quick: gr.Button
    own: gr.Button
    message: gr.Markdown


@dataclass(frozen=True)
class _Rooms:
    training: train.TrainRoom
    comparing: compare.CompareRoom
    compare_tab: gr.Tab


def build(jobs: Jobs, comparer: Comparer) -> gr.Blocks:
    """The page of one runs root."""
    with gr.Blocks(title=say.TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        head = _lay_out_head()
        chosen, material = gr.State(None), gr.State(Material())
        refresh = gr.Button(visible="hidden", elem_id="refresh")
        with gr.Tabs(selected="train", elem_id="rooms") as tabs:
            shared = Shared(jobs, comparer, tabs, chosen, material, refresh)
            rooms = _lay_out_rooms(shared)
        api.offer(jobs, comparer)
        _open(page, shared, head)
        _choose(shared, head)
        _first_visit(shared, head, rooms)
        _lead_on(shared, head, rooms)
    return page


def _lay_out_head() -> _Head:
    with gr.Row(elem_id="head", elem_classes="tight"):
        gr.HTML(f"<h1>{say.TITLE}</h1>", elem_id="title")
        chosen_run = gr.HTML(views.chosen_run_html(None), elem_id="chosen-run")
        for words, script, name in ((say.PROJECTOR, PROJECTOR, "projector"), (say.DARK, DARK, "dark")):
            gr.Button(words, size="sm", min_width=60, scale=0, elem_id=name).click(None, None, None, js=script)
    gr.HTML(f'<p role="alert">{say.OFFLINE}</p>', elem_id="offline")
    choose = gr.Textbox(visible="hidden", elem_id="choose-run", label="run")
    with gr.Column(elem_id="first-visit"):  # the style sheet shows it while no run is chosen
        gr.HTML(f"<h2>{say.FIRST_TITLE}</h2><p>{say.FIRST_WORDS}</p>")
        with gr.Row(elem_classes="tight"):
            quick_button = gr.Button(say.FIRST_BUTTON, variant="primary", elem_id="quick", scale=0, min_width=220)
            own = gr.Button(say.FIRST_OWN, elem_id="own", scale=0, min_width=180)
        message = gr.Markdown("", elem_id="first-message", elem_classes="message")
        _tour()
    return _Head(chosen_run, choose, gr.State(None), quick_button, own, message)


def _tour() -> None:
    """What is where, step by step."""
    with gr.Accordion(say.TOUR, open=False), gr.Walkthrough(selected=0, elem_id="tour") as tour:
        for number, (title, words) in enumerate(say.TOUR_STEPS):
            with gr.Step(title, id=number):
                gr.Markdown(words)
                if number + 1 < len(say.TOUR_STEPS):
                    on = gr.Button(say.TOUR_NEXT, size="sm", scale=0, min_width=100)
                    on.click(lambda number=number: gr.Walkthrough(selected=number + 1), None, tour, **QUIET)


def _lay_out_rooms(shared: Shared) -> _Rooms:
    with gr.Tab(say.ROOMS["train"], id="train"):
        training = train.build(shared)
    with gr.Tab(say.ROOMS["compare"], id="compare") as compare_tab:
        comparing = compare.build(shared)
    with gr.Tab(say.ROOMS["measure"], id="measure"):
        methods.build(shared.jobs)
    with gr.Tab(say.ROOMS["runs"], id="runs"):
        runs.build(shared)
    with gr.Tab(say.ROOMS["learn"], id="learn"):
        learn.build()
    return _Rooms(training, comparing, compare_tab)


def _open(page: gr.Blocks, shared: Shared, head: _Head) -> None:
    """The page finds its run when it is opened."""

    def attach(request: gr.Request) -> dict[Any, Any]:
        run = _run_to_show(shared.jobs, request.query_params.get("run"))
        waiting = run and run.status in ("running", "queued") and quick.is_quick(run)
        return {shared.chosen: run.id if run else None, head.awaited: run.id if run and waiting else None}

    page.load(attach, None, [shared.chosen, head.awaited], **QUIET)


def _choose(shared: Shared, head: _Head) -> None:
    """The run that is chosen stands in the head of every room."""

    def named(run_id: str | None) -> Any:
        return views.chosen_run_html(shared.jobs.find(run_id))

    def chosen_by_hand(written: str) -> str | None:
        run = shared.jobs.find(written.partition(" ")[0])
        return run.id if run else None

    event = shared.chosen.change(named, shared.chosen, head.chosen_run, queue=False, **QUIET)
    event.then(None, None, None, js=LOOK)
    head.choose.input(chosen_by_hand, head.choose, shared.chosen, **QUIET)


def _first_visit(shared: Shared, head: _Head, rooms: _Rooms) -> None:
    """One press, and the answers are shown when it is done."""

    @shown(head.message)
    def begin(request: gr.Request) -> dict[Any, Any]:
        run = shared.jobs.start(quick.quick_config(), shared.caller(request))
        return {shared.chosen: run.id, head.awaited: run.id, head.message: "", **shared.go("train")}

    outputs = [shared.chosen, head.awaited, head.message, shared.tabs]
    head.quick.click(begin, None, outputs, **PRIVATE)


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
        return {head.awaited: None, **arrive(run), comparing.arrived: run.id}

    arrival = [shared.tabs, *comparing.arrival]
    rooms.training.to_compare.click(pressed, shared.chosen, arrival, **PRIVATE)
    for button in (rooms.training.to_measure, comparing.to_measure):
        button.click(lambda: gr.Tabs(selected="measure"), None, shared.tabs, **QUIET)
    comparing.to_data.click(lambda: gr.Tabs(selected=DATA), None, shared.tabs, **QUIET)
    # queued: only then does the change of a State reach its listeners
    shared.refresh.click(land, head.awaited, [head.awaited, *arrival, comparing.arrived], concurrency_limit=8, **QUIET)


def _run_to_show(jobs: Jobs, run_id: str | None) -> Run | None:
    """The run the address names, else the one that trains, else the newest."""
    every = list_runs(jobs.root)
    named = next((run for run in every if run.id == run_id), None)
    alive = next((run for run in every if run.is_alive), None)
    return named or alive or (every[0] if every else None)
