"""The Train room: configure, preview, start, watch, stop, resume. The form is `run_form`; work happens in `jobs`; what
is shown is made in `views`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import gradio as gr

from playground import preview_views, run_form, views
from playground.errors import shown
from playground.jobs import Jobs
from playground.owners import Caller
from playground.parts import PRIVATE, QUIET, by_name
from tunelab import DataSpec, LoRA, ModelSpec, Progress, Run, RunConfig, Stage, TrainConfig, list_runs, overview
from tunelab.errors import UserError
from tunelab.machine import hardware
from tunelab.measure.charts import training_charts
from tunelab.train.forecast import Unforeseen
from tunelab.train.memory import read_and_forecast

# each look takes browser and app together a quarter of a second of a core, from the training beside them
POLL_SECONDS = 2.0
# another run is shown: have its status on the screen, wherever on the page it was started or chosen
BRING_INTO_VIEW = "() => document.getElementById('status')?.scrollIntoView({block: 'nearest', behavior: 'smooth'})"


@dataclass(frozen=True)
class TrainRoom:
    """The components other parts of the page need."""

    timer: gr.Timer
    quick_done: Any  # the event after the quick adapter has been started
    to_compare: gr.Button


@dataclass(frozen=True)
class _Welcome:
    """What a first visitor sees, and the button that trains the quick adapter."""

    box: gr.Group
    quick: gr.Button


@dataclass(frozen=True)
class _Order:
    """What to train, and what can be done with it."""

    form: dict[str, Any]
    look: gr.Button
    start: gr.Button
    warnings: gr.Markdown  # what is wrong with the rows, and why Start can't be pressed
    message: gr.Markdown


@dataclass(frozen=True)
class _Seen:
    """What a page shows already."""

    state: Any = None  # of the jobs
    shown: dict[int, str] = field(default_factory=dict)  # of each part, what it was given


@dataclass(frozen=True)
class _Watched:
    """The run that is selected: how it goes, and what can be done with it."""

    status: gr.HTML
    plot: gr.HTML
    stop: gr.Button
    resume: gr.Button
    to_compare: gr.Button
    result: gr.Dropdown
    message: gr.Markdown
    notes: gr.Markdown
    table: gr.Dataframe


@dataclass(frozen=True)
class _Preview:
    """Rows as the model will read them."""

    box: gr.Column
    notes: gr.Markdown
    rows: gr.HTML


@dataclass(frozen=True)
class _Room:
    jobs: Jobs
    selected: gr.State  # the id of the run that is watched
    welcome: _Welcome
    order: _Order
    watched: _Watched
    preview: _Preview
    runs: gr.Dataframe


def quick_config() -> RunConfig:
    """The quick adapter: QLoRA r16 on the starter and python-docs. It measures no forgetting on the way, to be quick;
    everything else is at its default."""
    return RunConfig(
        name="quick adapter",
        model=ModelSpec(repo_id="starter", quantization="nf4"),
        technique=LoRA(),
        stages=(Stage(data=DataSpec(source="python-docs", heldout=200), training=TrainConfig(forgetting_rows=0)),),
    )


def is_quick(run: Run) -> bool:
    """Whether the run is the quick adapter's."""
    return run.readable and run.config == quick_config()


def build(jobs: Jobs, selected: gr.State) -> TrainRoom:
    """The room's components and what they do."""
    room = _lay_out(jobs, selected)
    timer = _follow(room)
    room.runs.select(_id_of, None, selected, **PRIVATE)
    quick_done = _start(room)
    _show_rows(room)
    _steer(room)
    _change_run(room)
    return TrainRoom(timer, quick_done, room.watched.to_compare)


# what the room looks like


def _lay_out(jobs: Jobs, selected: gr.State) -> _Room:
    welcome = _lay_out_welcome(first_visit=not list_runs(jobs.root))
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            order = _lay_out_order(jobs)
        with gr.Column(scale=7, min_width=320, elem_id="training-column"):
            watched = _lay_out_watched()
    return _Room(jobs, selected, welcome, order, watched, _lay_out_preview(), _lay_out_runs())


def _lay_out_welcome(first_visit: bool) -> _Welcome:
    with gr.Group(visible=first_visit, elem_classes="first-visit") as box:
        gr.Markdown(
            "### Start here\nOne press trains a small adapter on the built-in model and shows its answers beside the "
            "base's. About two minutes on a laptop, no account, no GPU, no network.",
            elem_classes="padded",
        )
    return _Welcome(box, gr.Button("Train a quick adapter", variant=_emphasis(first_visit), elem_id="quick"))


def _lay_out_order(jobs: Jobs) -> _Order:
    gr.Markdown("### What to train")
    form = run_form.build(jobs)
    with gr.Row():
        look = gr.Button("Preview rows", elem_id="preview")
        start = gr.Button("Start training", variant="primary", elem_id="start")
    warnings = gr.Markdown("", elem_id="start-warnings", elem_classes="message")
    return _Order(form, look, start, warnings, gr.Markdown("", elem_id="train-message", elem_classes="message"))


def _lay_out_watched() -> _Watched:
    gr.Markdown("### Training")
    status = gr.HTML(views.progress_html(None, None, None), elem_id="status")
    plot = gr.HTML(training_charts(_no_progress()), elem_id="loss-chart")
    with gr.Row():
        stop = gr.Button("Stop", elem_id="stop", interactive=False, min_width=90)
        resume = gr.Button("Resume", elem_id="resume", interactive=False, min_width=90)
        to_compare = gr.Button("Compare answers", elem_id="to-compare", interactive=False, min_width=150)
    result = gr.Dropdown(
        [],
        label="The run's result",
        info="What answers and what is exported: the adapter at the end of this stage. All of them are kept.",
        visible=False,
        interactive=True,
        elem_id="stage-result",
    )
    message = gr.Markdown("", elem_id="run-message", elem_classes="message")
    with gr.Accordion("What this run uses", open=False):
        notes = gr.Markdown(elem_id="notes")
    with gr.Accordion("The curve as a table", open=False):
        table = gr.Dataframe(
            headers=views.CURVE_COLUMNS, datatype="str", interactive=False, elem_id="curve", buttons=[]
        )
    return _Watched(status, plot, stop, resume, to_compare, result, message, notes, table)


def _lay_out_preview() -> _Preview:
    with gr.Column(visible=False) as box:
        gr.Markdown("### As the model will read it")
        notes = gr.Markdown()
        rows = gr.HTML(elem_id="preview-rows")
    return _Preview(box, notes, rows)


def _lay_out_runs() -> gr.Dataframe:
    gr.Markdown("### Runs\nPress one to show it above.")
    return gr.Dataframe(
        headers=views.RUN_COLUMNS,
        datatype="str",
        interactive=False,
        elem_id="runs",
        show_label=False,
        column_widths=["220px", "130px", "140px", "90px", "170px", "120px", "300px"],
        buttons=[],
        max_height=420,
    )


def _emphasis(first_visit: bool) -> Literal["primary", "secondary"]:
    return "primary" if first_visit else "secondary"


# what happens in it


def _follow(room: _Room) -> gr.Timer:
    """The clock by which the page follows the runs. Only what has changed is sent: what a browser draws anew takes time
    from the training beside it."""
    seen = gr.State(_Seen())
    timer = gr.Timer(POLL_SECONDS)
    watched, welcome = room.watched, room.welcome
    outputs: list[Any] = [seen, watched.status, watched.plot, watched.table, watched.notes, room.runs]
    outputs += [watched.stop, watched.resume, watched.to_compare, watched.result, welcome.box, welcome.quick]

    def poll(run_id: str | None, before: _Seen) -> dict[Any, Any]:
        state = room.jobs.state(run_id)
        if state == before.state:
            return {seen: gr.skip()}
        values = {**_run_as_it_stands(room, run_id), **_runs_as_they_stand(room)}
        now = {part._id: repr(value) for part, value in values.items()}
        changed = {part: value for part, value in values.items() if before.shown.get(part._id) != now[part._id]}
        return {seen: _Seen(state, now), **changed}

    for event in (timer.tick, room.selected.change):
        event(poll, [room.selected, seen], outputs, queue=False, **QUIET)
    return timer


def _run_as_it_stands(room: _Room, run_id: str | None) -> dict[Any, Any]:
    run, watched = room.jobs.find(run_id), room.watched
    progress = run.progress() if run else _no_progress()
    stages, current = views.stage_results(run, progress)
    return {
        watched.status: views.progress_html(run, progress, room.jobs.place(run) if run else None),
        watched.plot: training_charts(progress, run.config if run and run.readable else None),
        watched.table: views.curve_text(progress),
        watched.notes: views.notes_text(run, progress) if run else "",
        watched.stop: gr.update(interactive=run is not None and progress.status in ("running", "queued")),
        watched.resume: gr.update(interactive=progress.status in ("stopped", "paused", "failed", "lost")),
        watched.to_compare: gr.update(interactive=run is not None and run.readable and run.has_adapter),
        watched.result: gr.update(choices=stages, value=current, visible=bool(stages)),
    }


def _runs_as_they_stand(room: _Room) -> dict[Any, Any]:
    every = list_runs(room.jobs.root)
    places = {run.id: place for place, run in enumerate(room.jobs.queued(), 1)}
    return {
        room.runs: views.run_table(every, places),
        room.welcome.box: gr.update(visible=not every),
        room.welcome.quick: gr.update(variant=_emphasis(not every)),
    }


def _id_of(event: gr.SelectData) -> str:
    return event.row_value[-1]  # not the row's number: the table can be sorted, or older than the runs


def _start(room: _Room) -> Any:
    """The event after the quick adapter has been started. The other button starts what the form describes."""
    order, watched = room.order, room.watched

    @shown(order.message)
    def begin(*values: Any) -> dict[Any, Any]:
        run = room.jobs.start(run_form.config(room.jobs, by_name(order.form, values)), Caller.server())
        return {room.selected: run.id, order.message: ""}

    @shown(watched.message)
    def begin_quick() -> dict[Any, Any]:
        return {room.selected: room.jobs.start(quick_config(), Caller.server()).id, watched.message: ""}

    order.start.click(begin, list(order.form.values()), [room.selected, order.message], **PRIVATE)
    return room.welcome.quick.click(begin_quick, None, [room.selected, watched.message], **PRIVATE)


def _show_rows(room: _Room) -> None:
    """The button that shows how the first rows will be read, with what is wrong with all of them and what they will
    take. Where nothing can be trained on them Start is disabled, until something in the form changes."""
    order, box = room.order, room.preview

    @shown(order.message)
    def look(*values: Any) -> dict[Any, Any]:
        config = run_form.config(room.jobs, by_name(order.form, values))
        seen = overview(config.stages[0], config.model, positions_taken=config.technique.positions_taken)
        forecast, refusal = ("", seen.refusal) if seen.refusal else _forecast(config)
        notes = [*seen.notes, *([forecast] if forecast else [])]
        return {
            box.box: gr.update(visible=True),
            box.notes: "\n".join(f"- {views.plain_markdown(line)}" for line in notes),
            box.rows: preview_views.preview_html(seen),
            order.warnings: preview_views.start_words(seen.warnings, refusal),
            order.start: gr.update(interactive=refusal is None),
            order.message: "",
        }

    outputs: list[Any] = [box.box, box.notes, box.rows, order.warnings, order.start, order.message]
    order.look.click(look, list(order.form.values()), outputs, **PRIVATE)

    def forget() -> dict[Any, Any]:
        return {order.start: gr.update(interactive=True), order.warnings: ""}

    changes = [widget.change for widget in order.form.values()]
    gr.on(changes, forget, None, [order.start, order.warnings], queue=False, **QUIET)


def _forecast(config: RunConfig) -> tuple[str, str | None]:
    """What training will take, in words, and why it can't begin."""
    try:
        ahead = read_and_forecast(config, time=False)
        return ahead.note(hardware.available_memory_bytes(ahead.device)), None
    except Unforeseen as reason:
        return str(reason), None
    except UserError as reason:
        return "", str(reason)


def _steer(room: _Room) -> None:
    """Stop, go on, and go back to the end of another stage."""
    jobs, watched = room.jobs, room.watched

    @shown(watched.message)
    def end(run_id: str | None) -> dict[Any, Any]:
        run = _wanted(jobs, run_id)
        queued = run.status == "queued"
        jobs.stop(run, Caller.server())
        return {watched.message: "" if queued else "It stops after the step it is in; the adapter is kept."}

    @shown(watched.message)
    def go_on(run_id: str | None) -> dict[Any, Any]:
        jobs.resume(_wanted(jobs, run_id), Caller.server())
        return {watched.message: ""}

    @shown(watched.message)
    def go_back(run_id: str | None, stage: int) -> dict[Any, Any]:
        run = _wanted(jobs, run_id)
        if views.stage_results(run, run.progress())[1] != stage:  # the browser may say it twice
            jobs.roll_back(run, stage, Caller.server())
        return {watched.message: run.progress().message}

    watched.stop.click(end, room.selected, watched.message, **PRIVATE)
    watched.resume.click(go_on, room.selected, watched.message, **PRIVATE)
    watched.result.input(go_back, [room.selected, watched.result], watched.message, concurrency_limit=1, **PRIVATE)


def _change_run(room: _Room) -> None:
    """What was said about one run says nothing about another; the other is brought into view."""
    room.selected.change(lambda: "", None, room.watched.message, queue=False, **QUIET)
    room.selected.change(None, None, None, js=BRING_INTO_VIEW)


def _wanted(jobs: Jobs, run_id: str | None) -> Run:
    run = jobs.find(run_id)
    if run is None:
        raise UserError("No run is chosen. Choose one in the list of runs.")
    return run


def _no_progress() -> Progress:
    return Progress("queued", "")
