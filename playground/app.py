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


def build(jobs: Jobs, comparer: Comparer) -> gr.Blocks:
    """The page of one runs root."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(
            f"# {TITLE}\nTune a language model on your own examples, on this machine, and read base and tuned answers "
            "side by side.",
            elem_id="header",
        )
        selected = gr.State(None)
        # the quick adapter's run, while the page waits for its end to show it in Compare, after a reload as well
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
            known = compare.choices(jobs)
            ids = [value for _label, value in known]
            return {
                selected: run.id if run else None,
                awaited: run.id if run and run.status in ("running", "queued") and train.is_quick(run) else None,
                comparing.run: gr.update(choices=known, value=[run.id] if run and run.id in ids else ids[:1]),
            }

        def fresh_choices(chosen: list[str]) -> Any:
            known = compare.choices(jobs)
            return gr.update(choices=known, value=chosen or [value for _label, value in known[:1]])

        def fresh_examples(chosen: list[str]) -> Any:
            return compare.fresh_examples(jobs, chosen)

        def land(run_id: str | None) -> dict[Any, Any]:
            run = Run(jobs.root / run_id) if run_id else None
            if run is None or run.status in ("running", "queued"):
                return {awaited: gr.skip()}
            if run.status != "finished":
                return {awaited: None}
            return {awaited: None, **show_in_compare(run), comparing.arrived: run.id}

        def show_in_compare(run: Run) -> dict[Any, Any]:
            examples = compare.examples_of(run)
            question, answer = examples[0] if examples else ("", "")
            return {
                tabs: gr.Tabs(selected="compare"),
                comparing.run: gr.update(choices=compare.choices(jobs), value=[run.id]),
                comparing.examples: gr.update(choices=[asked for asked, _ in examples], value=question or None),
                comparing.prompt: question,
                comparing.reference: gr.update(value=answer, visible=bool(answer)),
            }

        arrival = [tabs, comparing.run, comparing.examples, comparing.prompt, comparing.reference]
        # examples come second: reading them can take a second, and nobody should wait for them
        hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        for filled in (
            page.load(attach, None, [selected, awaited, comparing.run], **hidden),
            compare_tab.select(fresh_choices, comparing.run, comparing.run, **hidden),
        ):
            # not queued: a page that is left meanwhile must not leave a stream behind
            filled.then(fresh_examples, comparing.run, comparing.examples, queue=False, **hidden)
        training.timer.tick(None, None, None, js=REMEMBER)
        training.quick_done.then(
            lambda run_id: run_id, selected, awaited, show_progress="hidden", api_visibility="private"
        )
        training.to_compare.click(
            lambda run_id: show_in_compare(Run(jobs.root / run_id)), selected, arrival, api_visibility="private"
        )
        training.timer.tick(
            land,
            awaited,
            [awaited, *arrival, comparing.arrived],
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
