"""The page: its tabs, and what happens when it is opened. Composition only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from playground.jobs import Jobs
from playground.tabs import compare, methods, train
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


def build(jobs: Jobs, comparer: Comparer) -> gr.Blocks:
    """The page of one runs root."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(
            f"# {TITLE}\nTune a language model on your own examples, on this machine, and read base and tuned answers "
            "side by side.",
            elem_id="header",
        )
        selected = gr.State(None)
        # the quick adapter's run, while the page waits for its end to show it in Compare
        awaited = gr.State(None)
        with gr.Tabs(selected="train") as tabs:
            with gr.Tab("Train", id="train"):
                training = train.build(jobs, selected)
            with gr.Tab("Compare", id="compare") as compare_tab:
                comparing = compare.build(jobs, comparer)
            with gr.Tab("Methods", id="methods"):
                methods.build(jobs)

        def attach(request: gr.Request) -> dict[Any, Any]:
            run = _run_to_show(jobs, request.query_params.get("run"))
            chosen = [run.id] if run and run.has_adapter else []
            return {
                selected: run.id if run else None,
                comparing.run: gr.update(choices=compare.choices(jobs), value=chosen),
            }

        def fresh_choices(chosen: list[str]) -> Any:
            known = compare.choices(jobs)
            return gr.update(choices=known, value=chosen or [value for _label, value in known[:1]])

        def land(run_id: str | None) -> dict[Any, Any]:
            run = Run(jobs.root / run_id) if run_id else None
            if run is None or run.status in ("running", "queued"):
                return {awaited: gr.skip()}
            if run.status != "finished":
                return {awaited: None}
            question = compare.first_example(run)
            return {
                awaited: None,
                tabs: gr.Tabs(selected="compare"),
                comparing.run: gr.update(choices=compare.choices(jobs), value=[run.id]),
                comparing.prompt: question,
                comparing.arrived: run.id,
            }

        page.load(attach, None, [selected, comparing.run], show_progress="hidden", api_visibility="private")
        compare_tab.select(fresh_choices, comparing.run, comparing.run, api_visibility="private")
        training.timer.tick(None, None, None, js=REMEMBER)
        training.quick_done.then(
            lambda run_id: run_id, selected, awaited, show_progress="hidden", api_visibility="private"
        )
        training.timer.tick(
            land,
            awaited,
            [awaited, tabs, comparing.run, comparing.prompt, comparing.arrived],
            # queued, unlike other ticks: only then does the change of a State reach its listeners
            concurrency_limit=8,
            show_progress="hidden",
            api_visibility="private",
        )
    return page


def _run_to_show(jobs: Jobs, wanted: str | None) -> Run | None:
    """The run the address names, else the one that trains, else the newest."""
    every = list_runs(jobs.root)
    named = next((run for run in every if run.id == wanted), None)
    alive = next((run for run in every if run.is_alive), None)
    return named or alive or (every[0] if every else None)
