"""The Train tab: configure, preview, start, watch, stop, resume. Work happens in `jobs`; what is shown in `views`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

from playground import forms, views
from playground.errors import shown
from playground.jobs import Jobs
from tunelab import TECHNIQUES, DataSpec, LoRA, ModelSpec, Run, RunConfig, Stage, TrainConfig, list_runs, preview
from tunelab.data.builtin import BUILTIN
from tunelab.errors import UserError
from tunelab.machine import hardware
from tunelab.measure.charts import loss_chart
from tunelab.train.memory import read_and_forecast

POLL_SECONDS = 1.0
# another run is shown: have its status on the screen, wherever on the page it was started or chosen
BRING_INTO_VIEW = "() => document.getElementById('status')?.scrollIntoView({block: 'nearest', behavior: 'smooth'})"
VISIBLE = ("steps", "learning_rate", "batch_size")
# the settings of each technique that matter most; the rest is folded
FIRST = {
    "lora": ("r",),
    "full": ("layers",),
    "prefix": ("num_virtual_tokens",),
    "prompt": ("num_virtual_tokens", "initialisation"),
    "bottleneck": ("size", "placement"),
    "ia3": (),
}
NOTHING_BEFORE = ("a fresh start", "")
REGULARISATION = ("weight_decay", "label_smoothing", "neftune_alpha", "kl_weight", "replay_share")
FOLDED_TRAINING = tuple(n for n in TrainConfig.model_fields if n not in (*VISIBLE, *REGULARISATION))
SPECS: dict[str, Any] = {"TrainConfig": TrainConfig, "ModelSpec": ModelSpec, **TECHNIQUES}


@dataclass
class TrainTab:
    """The components other parts of the page need."""

    timer: gr.Timer
    quick_done: Any  # the event after the quick adapter has been started
    to_compare: gr.Button


def quick_config() -> RunConfig:
    """The quick adapter: QLoRA r16 on the starter and python-docs, everything else at its default."""
    return RunConfig(
        name="quick adapter",
        model=ModelSpec(repo_id="starter", quantization="nf4"),
        technique=LoRA(),
        stages=(Stage(data=DataSpec(source="python-docs", heldout=200)),),
    )


def build(jobs: Jobs, selected: gr.State) -> TrainTab:
    """The tab's components and what they do."""
    inputs: dict[str, Any] = {}
    first = not list_runs(jobs.root)
    with gr.Group(visible=first, elem_classes="first-visit") as first_visit:
        gr.Markdown(
            "### Start here\nOne press trains a small adapter on the built-in model and shows its answers beside the "
            "base's. About two minutes on a laptop, no account, no GPU, no network.",
            elem_classes="padded",
        )
    quick = gr.Button("Train a quick adapter", variant=_emphasis(first), elem_id="quick")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            gr.Markdown("### What to train")
            _model_and_data(inputs)
            _technique(inputs)
            _start_from(inputs, jobs)
            _settings(inputs)
            with gr.Row():
                look = gr.Button("Preview rows", elem_id="preview")
                start = gr.Button("Start training", variant="primary", elem_id="start")
            message = gr.Markdown("", elem_id="train-message", elem_classes="message")
        with gr.Column(scale=7, min_width=320, elem_id="training-column"):
            gr.Markdown("### Training")
            status = gr.HTML(views.progress_html(None, None, None), elem_id="status")
            plot = gr.HTML(loss_chart(_no_progress()), elem_id="loss-chart")
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
            run_message = gr.Markdown("", elem_id="run-message", elem_classes="message")
            with gr.Accordion("What this run uses", open=False):
                notes = gr.Markdown(elem_id="notes")
            with gr.Accordion("The curve as a table", open=False):
                table = gr.Dataframe(
                    headers=["Step", "Train loss (mean)", "Held-out loss", ""],
                    datatype="str",
                    interactive=False,
                    elem_id="curve",
                    buttons=[],
                )
    with gr.Column(visible=False) as preview_box:
        gr.Markdown("### As the model will read it")
        legend = gr.Markdown()
        pieces = gr.HighlightedText(
            label="Learned tokens are marked; the rest is only read",
            color_map={"learned": "#f59e0b", "row": "#94a3b8"},
            show_legend=True,
            combine_adjacent=False,
            elem_id="preview-rows",
        )
    gr.Markdown("### Runs\nPress one to show it above.")
    runs = gr.Dataframe(
        headers=views.RUN_COLUMNS,
        datatype="str",
        interactive=False,
        elem_id="runs",
        show_label=False,
        column_widths=["220px", "130px", "140px", "90px", "170px", "120px", "300px"],
        buttons=[],
        max_height=420,
    )
    seen = gr.State(None)
    timer = gr.Timer(POLL_SECONDS)
    outputs = [seen, status, plot, table, notes, runs, stop, resume, to_compare, result, first_visit, quick]

    def poll(run_id: str | None, before: Any) -> dict[Any, Any]:
        state = _state(jobs, run_id)
        if state == before:
            return {seen: gr.skip()}
        run = _run(jobs, run_id)
        progress = run.progress() if run else _no_progress()
        every = list_runs(jobs.root)
        stages, current = views.stage_results(run, progress)
        places = {r.id: n for n, r in enumerate(jobs.queued(), 1)}
        return {
            seen: state,
            status: views.progress_html(run, progress if run else None, jobs.place(run) if run else None),
            plot: loss_chart(progress, run.config if run and run.readable else None),
            table: views.curve_text(progress),
            notes: views.notes_text(run, progress) if run else "",
            runs: views.run_table(every, places),
            stop: gr.update(interactive=progress.status in ("running", "queued") and run is not None),
            resume: gr.update(interactive=progress.status in ("stopped", "failed", "lost")),
            to_compare: gr.update(interactive=run is not None and run.readable and run.has_adapter),
            result: gr.update(choices=stages, value=current, visible=bool(stages)),
            first_visit: gr.update(visible=not every),
            quick: gr.update(variant=_emphasis(not every)),
        }

    timer.tick(poll, [selected, seen], outputs, queue=False, show_progress="hidden", api_visibility="private")
    selected.change(poll, [selected, seen], outputs, queue=False, show_progress="hidden", api_visibility="private")

    def choose(event: gr.SelectData) -> str:
        return event.row_value[-1]  # not the row's number: the table can be sorted, or older than the runs

    runs.select(choose, None, selected, api_visibility="private")

    ordered = list(inputs.values())
    names = list(inputs)

    @shown(message)
    def begin(*values: Any) -> dict[Any, Any]:
        run = jobs.start(_config(jobs, dict(zip(names, values, strict=True))))
        return {selected: run.id, message: ""}

    @shown(run_message)
    def begin_quick() -> dict[Any, Any]:
        return {selected: jobs.start(quick_config()).id, run_message: ""}

    @shown(message)
    def show_rows(*values: Any) -> dict[Any, Any]:
        config = _config(jobs, dict(zip(names, values, strict=True)))
        rows, read = preview(config.stages[0], config.model)
        ahead = read_and_forecast(config)
        lines = [*views.preview_warnings(rows), *read, ahead.note(hardware.available_memory_bytes(ahead.device))]
        text = "\n".join(f"- {views.plain_markdown(line)}" for line in lines)
        return {preview_box: gr.update(visible=True), legend: text, pieces: views.preview_pieces(rows), message: ""}

    @shown(run_message)
    def end(run_id: str | None) -> dict[Any, Any]:
        run = _wanted(jobs, run_id)
        queued = run.status == "queued"
        jobs.stop(run)
        return {run_message: "" if queued else "It stops after the step it is in; the adapter is kept."}

    @shown(run_message)
    def go_on(run_id: str | None) -> dict[Any, Any]:
        jobs.resume(_wanted(jobs, run_id))
        return {run_message: ""}

    @shown(run_message)
    def go_back(run_id: str | None, stage: int) -> dict[Any, Any]:
        run = _wanted(jobs, run_id)
        if views.stage_results(run, run.progress())[1] != stage:  # the browser may say it twice
            run.roll_back(stage)
        return {run_message: run.progress().message}

    start.click(begin, ordered, [selected, message], api_visibility="private")
    quick_done = quick.click(begin_quick, None, [selected, run_message], api_visibility="private")
    look.click(show_rows, ordered, [preview_box, legend, pieces, message], api_visibility="private")
    stop.click(end, selected, run_message, api_visibility="private")
    resume.click(go_on, selected, run_message, api_visibility="private")
    result.input(go_back, [selected, result], run_message, concurrency_limit=1, api_visibility="private")
    # what was said about one run says nothing about another
    selected.change(lambda: "", None, run_message, queue=False, show_progress="hidden", api_visibility="private")
    selected.change(None, None, None, js=BRING_INTO_VIEW)
    return TrainTab(timer, quick_done, to_compare)


def _emphasis(first_visit: bool) -> Literal["primary", "secondary"]:
    return "primary" if first_visit else "secondary"


def is_quick(run: Run) -> bool:
    """Whether the run is the quick adapter's."""
    return run.readable and run.config == quick_config()


def _model_and_data(inputs: dict[str, Any]) -> None:
    inputs["name"] = gr.Textbox(label="Name", info="To recognise the run by.", max_lines=1, placeholder="my adapter")
    inputs["repo_id"] = gr.Dropdown(
        ["starter"],
        value="starter",
        allow_custom_value=True,
        label="Model",
        info=ModelSpec.model_fields["repo_id"].description,
    )
    inputs["ModelSpec.quantization"] = forms.widget(ModelSpec, "quantization")
    inputs["ModelSpec.quantization"].value = "nf4"
    inputs["source"] = gr.Radio(
        list(BUILTIN), value="python-docs", label="Built-in data", info="Used when no file is given."
    )
    inputs["file"] = gr.File(label="Your own data: CSV, JSON or JSONL", file_count="single", height=170, elem_id="file")
    with gr.Accordion("Rows, columns and held-out rows", open=False):
        inputs["learn"] = gr.Radio(
            [("questions and answers", "instructions"), ("plain text", "text")],
            value="instructions",
            label="What the rows are",
            info=Stage.model_fields["learn"].description,
        )
        inputs["prompt"] = gr.Textbox(label="Prompt column", info="Empty: detected.", max_lines=1)
        inputs["completion"] = gr.Textbox(label="Completion column", info="Empty: detected.", max_lines=1)
        inputs["template"] = gr.Textbox(
            label="Prompt template", info=DataSpec.model_fields["template"].description, max_lines=3
        )
        inputs["system"] = gr.Textbox(label="System prompt", info=DataSpec.model_fields["system"].description)
        inputs["heldout"] = gr.Textbox(
            value="0.1", label="Held out", info="A share (0.1) or a number of rows (200).", max_lines=1
        )
        inputs["heldout_file"] = gr.File(label="Or a held-out file of its own", file_count="single", height=170)


def _technique(inputs: dict[str, Any]) -> None:
    """The choice of a technique, and the settings of the one that is chosen."""
    inputs["technique"] = gr.Radio(
        [(technique.title, kind) for kind, technique in TECHNIQUES.items()],
        value="lora",
        label="Technique",
        info="LoRA on a quantised base is QLoRA.",
        elem_id="technique",
    )
    groups = {}
    for kind, technique in TECHNIQUES.items():
        with gr.Column(visible=kind == "lora") as groups[kind]:
            gr.Markdown(technique.summary, elem_classes="muted")
            names = [name for name in technique.model_fields if name != "kind"]
            with gr.Row():
                for name in FIRST[kind]:
                    inputs[f"{kind}.{name}"] = forms.widget(technique, name)
            folded = [name for name in names if name not in FIRST[kind]]
            if folded:
                with gr.Accordion(f"More about {technique.title}", open=False):
                    for name in folded:
                        inputs[f"{kind}.{name}"] = forms.widget(technique, name)

    def choose(chosen: str, quantization: str) -> dict[Any, Any]:
        # every weight of a quantised base can't be trained
        fitting = "none" if chosen == "full" else quantization
        shown_groups = {group: gr.update(visible=kind == chosen) for kind, group in groups.items()}
        return {**shown_groups, inputs["ModelSpec.quantization"]: fitting}

    inputs["technique"].change(
        choose,
        [inputs["technique"], inputs["ModelSpec.quantization"]],
        [*groups.values(), inputs["ModelSpec.quantization"]],
        show_progress="hidden",
        api_visibility="private",
    )


def _start_from(inputs: dict[str, Any], jobs: Jobs) -> None:
    """The run to go on from, for training in several stages."""

    def known() -> Any:
        every = [run for run in list_runs(jobs.root) if run.has_adapter]
        return gr.update(choices=[NOTHING_BEFORE, *views.run_choices(every)])

    chosen = gr.Dropdown(
        [NOTHING_BEFORE],
        value="",
        label="Start from",
        info="A fresh adapter, or the result of another run of the same technique and base (multi-stage fine-tuning).",
        elem_id="start-from",
    )
    chosen.focus(known, None, chosen, show_progress="hidden", api_visibility="private")
    inputs["start_from"] = chosen


def _settings(inputs: dict[str, Any]) -> None:
    with gr.Row(elem_classes="settings"):
        for name in VISIBLE:
            inputs[f"TrainConfig.{name}"] = forms.widget(TrainConfig, name)
        inputs["ModelSpec.max_length"] = forms.widget(ModelSpec, "max_length")
    with gr.Accordion("Against overfitting and forgetting", open=False):
        for name in REGULARISATION:
            inputs[f"TrainConfig.{name}"] = forms.widget(TrainConfig, name)
    with gr.Accordion("More settings", open=False):
        for name in FOLDED_TRAINING:
            inputs[f"TrainConfig.{name}"] = forms.widget(TrainConfig, name)
        for name in ("dtype", "device", "keep_dequantized"):
            inputs[f"ModelSpec.{name}"] = forms.widget(ModelSpec, name)


def _config(jobs: Jobs, values: dict[str, Any]) -> RunConfig:
    """The configuration the form describes."""

    def given(spec: str) -> dict[str, Any]:
        fields = {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{spec}.")}
        return forms.values_for(SPECS[spec], fields)

    data: dict[str, Any] = {
        "source": jobs.keep_upload(values["file"]) if values["file"] else values["source"],
        "template": values["template"] or None,
        "system": values["system"] or None,
    }
    data["columns"] = {role: values[role] for role in ("prompt", "completion") if values[role]} or None
    if values["heldout_file"]:
        data["heldout"] = jobs.keep_upload(values["heldout_file"])
    elif values["heldout"]:
        data["heldout"] = forms.from_text(values["heldout"])
    return RunConfig.model_validate(
        {
            "name": values["name"] or None,
            "model": {**given("ModelSpec"), "repo_id": values["repo_id"] or "starter"},
            "technique": {"kind": values["technique"], **given(values["technique"])},
            "stages": [{"data": data, "learn": values["learn"], "training": given("TrainConfig")}],
            "start_from": values["start_from"] or None,
        }
    )


def _run(jobs: Jobs, run_id: str | None) -> Run | None:
    run = Run(jobs.root / run_id) if run_id else None
    return run if run and run.path.is_dir() else None


def _wanted(jobs: Jobs, run_id: str | None) -> Run:
    run = _run(jobs, run_id)
    if run is None:
        raise UserError("No run is chosen. Choose one in the list of runs.")
    return run


def _state(jobs: Jobs, run_id: str | None) -> list[Any]:
    """What the page depends on, cheap to read: when it is as before, nothing is sent."""
    run = _run(jobs, run_id)
    size = run.events_path.stat().st_size if run and run.events_path.exists() else 0
    alive = bool(run and run.is_alive)
    others = [[r.id, r.events_path.stat().st_size if r.events_path.exists() else 0] for r in list_runs(jobs.root)]
    return [run_id, size, alive, others, [r.id for r in jobs.queued()]]


def _no_progress() -> Any:
    from tunelab import Progress

    return Progress("queued", "")
