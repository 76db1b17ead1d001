"""The page: its rooms, and what happens between them. Composition only."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from playground.errors import LeftPages
from playground.jobs import Jobs
from playground.parts import PRIVATE, QUIET
from playground.rooms import compare, methods, train
from tunelab import Comparer, Run, list_runs

TITLE = "Fine-tuning Playground"
STYLE = (Path(__file__).parent / "style.css").read_text()
# the run shown stands in the address, so that reloading it, or opening it again, re-attaches to that run; read from the
# page, because the browser never sees the values of a State
REMEMBER = """() => {
    const id = document.querySelector('.run-status')?.dataset.run, url = new URL(window.location);
    if (id && url.searchParams.get('run') !== id) {
        url.searchParams.set('run', id);
        window.history.replaceState({}, '', url);
    }
}"""


def theme() -> Any:
    return gr.themes.Soft(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.slate,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        # what can be filled in stands out from the page: white boxes with an edge on grey
        body_background_fill="*neutral_50",
        block_border_width="1px",
        block_border_width_dark="1px",
        input_background_fill="*neutral_50",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_600",
        input_shadow="none",
        button_secondary_shadow="none",
        button_secondary_shadow_hover="none",
        button_secondary_border_color="*neutral_300",
        button_secondary_background_fill_hover_dark="*neutral_500",
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        block_label_border_width="0px",
        block_label_shadow="none",
        # labels are read before their values, they need not shout
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_padding="0",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_text_color="*body_text_color",
        block_label_text_color_dark="*body_text_color",
    )


@dataclass(frozen=True)
class _App:
    """What the rooms have to do with each other happens between these."""

    jobs: Jobs
    page: gr.Blocks
    selected: gr.State  # the id of the run that is shown in Train
    awaited: gr.State  # the quick adapter's id, while its end is waited for to show it in Compare; after a reload too
    tabs: gr.Tabs
    compare_tab: gr.Tab
    training: train.TrainRoom
    comparing: compare.CompareRoom


def build(jobs: Jobs, comparer: Comparer) -> gr.Blocks:
    """The page of one runs root."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        app = _lay_out(page, jobs, comparer)
        _open(app)
        _lead_to_compare(app)
    return page


def _lay_out(page: gr.Blocks, jobs: Jobs, comparer: Comparer) -> _App:
    gr.Markdown(
        f"# {TITLE}\nTune a language model on your own examples, on this machine, and read base and tuned answers "
        "side by side.",
        elem_id="header",
    )
    selected, awaited = gr.State(None), gr.State(None)
    with gr.Tabs(selected="train") as tabs:
        with gr.Tab("Train", id="train"):
            training = train.build(jobs, selected)
        with gr.Tab("Compare", id="compare") as compare_tab:
            comparing = compare.build(jobs, comparer)
        with gr.Tab("Methods", id="methods"):
            methods.build(jobs)
    return _App(jobs, page, selected, awaited, tabs, compare_tab, training, comparing)


def _open(app: _App) -> None:
    """The page finds its run when it is opened, and Compare its runs whenever it is entered."""
    jobs, chosen = app.jobs, app.comparing.run

    def attach(request: gr.Request) -> dict[Any, Any]:
        run = _run_to_show(jobs, request.query_params.get("run"))
        known = compare.choices(jobs)
        ids = [value for _label, value in known]
        return {
            app.selected: run.id if run else None,
            app.awaited: run.id if run and run.status in ("running", "queued") and train.is_quick(run) else None,
            chosen: gr.update(choices=known, value=[run.id] if run and run.id in ids else ids[:1]),
        }

    def fresh_choices(runs: list[str]) -> Any:
        known = compare.choices(jobs)
        return gr.update(choices=known, value=runs or [value for _label, value in known[:1]])

    def fresh_examples(runs: list[str]) -> Any:
        return compare.fresh_examples(jobs, runs)

    for filled in (
        app.page.load(attach, None, [app.selected, app.awaited, chosen], **QUIET),
        app.compare_tab.select(fresh_choices, chosen, chosen, **QUIET),
    ):
        # examples come second: reading them can take a second, and nobody should wait for them
        # not queued: a page that is left meanwhile must not leave a stream behind
        filled.then(fresh_examples, chosen, app.comparing.examples, queue=False, **QUIET)
    app.training.timer.tick(None, None, None, js=REMEMBER)


def _lead_to_compare(app: _App) -> None:
    """From a run to its answers: when its button is pressed, and by itself when the quick adapter is done."""

    def arrive(run: Run) -> dict[Any, Any]:
        return {app.tabs: gr.Tabs(selected="compare"), **compare.show(app.jobs, app.comparing, run)}

    def pressed(run_id: str) -> dict[Any, Any]:
        return arrive(Run(app.jobs.root / run_id))

    def land(run_id: str | None) -> dict[Any, Any]:
        run = Run(app.jobs.root / run_id) if run_id else None
        if run is None or run.status in ("running", "queued"):
            return {app.awaited: gr.skip()}
        if run.status != "finished":
            return {app.awaited: None}
        return {app.awaited: None, **arrive(run), app.comparing.arrived: run.id}

    arrival = [app.tabs, *app.comparing.arrival]
    app.training.quick_done.then(lambda run_id: run_id, app.selected, app.awaited, **QUIET)
    app.training.to_compare.click(pressed, app.selected, arrival, **PRIVATE)
    landed = [app.awaited, *arrival, app.comparing.arrived]
    # queued, unlike other ticks: only then does the change of a State reach its listeners
    app.training.timer.tick(land, app.awaited, landed, concurrency_limit=8, **QUIET)


def launch(page: gr.Blocks, host: str, port: int, open_browser: bool) -> str:
    """The address the page can be seen at from now on."""
    page.queue(api_open=False, default_concurrency_limit=4)
    logging.getLogger("uvicorn.error").addFilter(LeftPages())
    server, url, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=open_browser,
        prevent_thread_lock=True,
        quiet=True,
        theme=theme(),
        css=STYLE,
        max_file_size="200mb",
        footer_links=[],
        enable_monitoring=False,
        run_history=False,
        show_error=False,
    )
    # deep links would write every value of a page into a file that others can fetch
    server.router.routes[:] = [r for r in server.router.routes if not getattr(r, "path", "").endswith("/deep_link")]
    return url


def _run_to_show(jobs: Jobs, run_id: str | None) -> Run | None:
    """The run the address names, else the one that trains, else the newest."""
    every = list_runs(jobs.root)
    named = next((run for run in every if run.id == run_id), None)
    alive = next((run for run in every if run.is_alive), None)
    return named or alive or (every[0] if every else None)
