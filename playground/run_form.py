"""The form of a run: a widget for every field of its configuration, and the configuration its values describe."""

from __future__ import annotations

from typing import Any

import gradio as gr

from playground import forms, parts, views
from playground.jobs import Jobs
from playground.parts import QUIET
from tunelab import TECHNIQUES, DataSpec, ModelSpec, RunConfig, Stage, TrainConfig, list_runs

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


def build(jobs: Jobs) -> dict[str, Any]:
    """The widgets by name; 'TrainConfig.steps' sets the field `steps` of that spec."""
    widgets = {**_model(), **_data()}
    widgets |= _technique(widgets["ModelSpec.quantization"])
    return widgets | _start_from(jobs) | _settings()


def config(jobs: Jobs, values: dict[str, Any]) -> RunConfig:
    """The configuration the widgets' values describe.

    Raises:
        pydantic.ValidationError: a value is not one that its field can have.
    """

    def given(spec: str) -> dict[str, Any]:
        fields = {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{spec}.")}
        return forms.values_for(SPECS[spec], fields)

    stage = {"data": _data_values(jobs, values), "learn": values["learn"], "training": given("TrainConfig")}
    return RunConfig.model_validate(
        {
            "name": values["name"] or None,
            "model": {**given("ModelSpec"), "repo_id": values["repo_id"] or "starter"},
            "technique": {"kind": values["technique"], **given(values["technique"])},
            "stages": [stage],
            "start_from": values["start_from"] or None,
        }
    )


def _data_values(jobs: Jobs, values: dict[str, Any]) -> dict[str, Any]:
    data = {
        "template": values["template"] or None,
        "system": values["system"] or None,
        "columns": {role: values[role] for role in ("prompt", "completion") if values[role]} or None,
    }
    if values["header"]:
        data["header"] = values["header"]
    if values["heldout"]:
        data["heldout"] = forms.from_text(values["heldout"])
    return data | parts.data_values(jobs, values)


def _model() -> dict[str, Any]:
    widgets: dict[str, Any] = {
        "name": gr.Textbox(label="Name", info="To recognise the run by.", max_lines=1, placeholder="my adapter"),
        "repo_id": parts.model_choice("Model"),
        "ModelSpec.quantization": forms.widget(ModelSpec, "quantization"),
    }
    widgets["ModelSpec.quantization"].value = "nf4"
    return widgets


def _data() -> dict[str, Any]:
    widgets: dict[str, Any] = {"source": parts.builtin_choice(), "file": parts.rows_file(elem_id="file")}
    with gr.Accordion("Rows, columns and held-out rows", open=False):
        widgets["learn"] = gr.Radio(
            [("questions and answers", "instructions"), ("plain text", "text")],
            value="instructions",
            label="What the rows are",
            info=Stage.model_fields["learn"].description,
        )
        widgets["prompt"] = gr.Textbox(label="Prompt column", info="Empty: detected.", max_lines=1)
        widgets["completion"] = gr.Textbox(label="Completion column", info="Empty: detected.", max_lines=1)
        widgets["template"] = gr.Textbox(
            label="Prompt template", info=DataSpec.model_fields["template"].description, max_lines=3
        )
        widgets["system"] = gr.Textbox(label="System prompt", info=DataSpec.model_fields["system"].description)
        widgets["header"] = forms.widget(DataSpec, "header")
        widgets["heldout"] = gr.Textbox(
            value="auto",
            label="Held out",
            info="A share (0.1) or a number of rows (200); auto: the data's own test part if it has one, else a tenth.",
            max_lines=1,
        )
        widgets["heldout_file"] = parts.rows_file("Or a held-out file of its own")
    return widgets


def _technique(quantization: Any) -> dict[str, Any]:
    """The choice of a technique, and the settings of the one that is chosen."""
    choice = gr.Radio(
        [(technique.title, kind) for kind, technique in TECHNIQUES.items()],
        value="lora",
        label="Technique",
        info="LoRA on a quantised base is QLoRA.",
        elem_id="technique",
    )
    widgets: dict[str, Any] = {"technique": choice}
    groups = {}
    for kind in TECHNIQUES:
        with gr.Column(visible=kind == "lora") as groups[kind]:
            widgets |= _technique_settings(kind)

    def choose(chosen: str, quantized: str) -> dict[Any, Any]:
        # every weight of a quantised base can't be trained
        fitting = "none" if chosen == "full" else quantized
        shown_groups = {group: gr.update(visible=kind == chosen) for kind, group in groups.items()}
        return {**shown_groups, quantization: fitting}

    choice.change(choose, [choice, quantization], [*groups.values(), quantization], **QUIET)
    return widgets


def _technique_settings(kind: str) -> dict[str, Any]:
    technique = TECHNIQUES[kind]
    gr.Markdown(technique.summary, elem_classes="muted")
    widgets = {}
    with gr.Row():
        for name in FIRST[kind]:
            widgets[f"{kind}.{name}"] = forms.widget(technique, name)
    folded = [name for name in technique.model_fields if name not in ("kind", *FIRST[kind])]
    if folded:
        with gr.Accordion(f"More about {technique.title}", open=False):
            for name in folded:
                widgets[f"{kind}.{name}"] = forms.widget(technique, name)
    return widgets


def _start_from(jobs: Jobs) -> dict[str, Any]:
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
    chosen.focus(known, None, chosen, **QUIET)
    return {"start_from": chosen}


def _settings() -> dict[str, Any]:
    widgets = {}
    with gr.Row(elem_classes="settings"):
        for name in VISIBLE:
            widgets[f"TrainConfig.{name}"] = forms.widget(TrainConfig, name)
        widgets["ModelSpec.max_length"] = forms.widget(ModelSpec, "max_length")
    with gr.Accordion("Against overfitting and forgetting", open=False):
        for name in REGULARISATION:
            widgets[f"TrainConfig.{name}"] = forms.widget(TrainConfig, name)
    with gr.Accordion("More settings", open=False):
        for name in FOLDED_TRAINING:
            widgets[f"TrainConfig.{name}"] = forms.widget(TrainConfig, name)
        for name in ("dtype", "device", "keep_dequantized"):
            widgets[f"ModelSpec.{name}"] = forms.widget(ModelSpec, name)
    return widgets
