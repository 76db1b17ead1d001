"""The form of a run: the few choices that matter, the rest in one drawer made from the specs; and the configuration
that the widgets' values describe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import forms, views
from playground.english import train as say
from playground.jobs import Jobs
from playground.material import Material
from playground.parts.choices import model_choice
from playground.parts.events import QUIET
from tunelab import PACES, TECHNIQUES, ModelSpec, RunConfig, Stage, TrainConfig, list_runs

# the settings of each technique that matter most; the rest is folded
FIRST = {
    "lora": ("r",),
    "full": ("layers",),
    "prefix": ("num_virtual_tokens",),
    "prompt": ("num_virtual_tokens", "initialisation"),
    "bottleneck": ("size", "placement"),
    "ia3": (),
}
VISIBLE = ("steps", "learning_rate", "batch_size")
REGULARISATION = ("weight_decay", "label_smoothing", "neftune_alpha", "kl_weight", "replay_share")
FOLDED_TRAINING = tuple(n for n in TrainConfig.model_fields if n not in (*VISIBLE, *REGULARISATION))
FOLDED_MODEL = ("max_length", "dtype", "device", "keep_dequantized", "revision")
SPECS: dict[str, Any] = {"TrainConfig": TrainConfig, "ModelSpec": ModelSpec, **TECHNIQUES}
OWN_PACE = "own"


@dataclass(frozen=True)
class Choices:
    """The widgets by name ('TrainConfig.steps' sets the field `steps` of that spec), and what stands beside them."""

    widgets: dict[str, Any]
    technique_words: gr.HTML


def lay_out(jobs: Jobs) -> Choices:
    """The form's widgets, with what happens between them."""
    widgets = _model()
    words = gr.HTML(views.technique_html("lora", "nf4"), elem_id="technique-words")
    widgets["technique"] = gr.Radio(
        [(technique.title, kind) for kind, technique in TECHNIQUES.items()],
        value="lora",
        label=say.TECHNIQUE,
        info=say.TECHNIQUE_HELP,
        elem_id="technique",
    )
    widgets["pace"] = gr.Radio(
        [(title, name) for name, title in say.PACES.items()],
        value="quick",
        label=say.PACE,
        info=say.PACE_HELP,
        elem_id="pace",
    )
    with gr.Accordion(say.ALL_SETTINGS, open=False, elem_id="drawer"):
        widgets |= _drawer(jobs, widgets["technique"], widgets["ModelSpec.quantization"], words)
    _set_by_pace(widgets)
    return Choices(widgets, words)


def config(values: dict[str, Any], material: Material, before: tuple[Stage, ...] = ()) -> RunConfig:
    """The configuration that the widgets' values describe: the stages that were kept, then the data in hand.

    Raises:
        pydantic.ValidationError: a value is not one that its field can have.
    """
    return RunConfig.model_validate(
        {
            "name": values["name"] or None,
            "model": {**_given(values, "ModelSpec"), "repo_id": values["repo_id"] or "starter"},
            "technique": {"kind": values["technique"], **_given(values, values["technique"])},
            "stages": [*before, stage(values, material)],
            "start_from": values["start_from"] or None,
        }
    )


def stage(values: dict[str, Any], material: Material) -> Stage:
    """The data in hand with the settings of the form.

    Raises:
        pydantic.ValidationError: a value is not one that its field can have.
    """
    return material.stage(TrainConfig.model_validate(_given(values, "TrainConfig")))


def _given(values: dict[str, Any], spec: str) -> dict[str, Any]:
    fields = {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{spec}.")}
    return forms.values_for(SPECS[spec], fields)


def _model() -> dict[str, Any]:
    with gr.Row():
        repo_id = model_choice(say.MODEL, say.MODEL_HELP)
        quantization = forms.widget(ModelSpec, "quantization", say.QUANTIZATION_HELP)
    quantization.value = "nf4"
    return {"repo_id": repo_id, "ModelSpec.quantization": quantization}


def _drawer(jobs: Jobs, technique: Any, quantization: Any, words: Any) -> dict[str, Any]:
    widgets: dict[str, Any] = {
        "name": gr.Textbox(label=say.NAME, info=say.NAME_HELP, max_lines=1, placeholder=say.NAME_EXAMPLE)
    }
    with gr.Row(elem_classes="settings"):
        for name in VISIBLE:
            widgets[f"TrainConfig.{name}"] = forms.widget(TrainConfig, name)
    widgets |= _technique_settings(technique, quantization, words)
    widgets |= _start_from(jobs)
    with gr.Accordion(say.FORGETTING, open=False):
        for name in REGULARISATION:
            widgets[f"TrainConfig.{name}"] = forms.widget(TrainConfig, name)
    with gr.Accordion(say.MORE, open=False):
        for name in FOLDED_TRAINING:
            widgets[f"TrainConfig.{name}"] = forms.widget(TrainConfig, name)
        for name in FOLDED_MODEL:
            widgets[f"ModelSpec.{name}"] = forms.widget(ModelSpec, name)
    return widgets


def _technique_settings(choice: Any, quantization: Any, words: Any) -> dict[str, Any]:
    """The settings of each technique; those of the one that is chosen are shown."""
    widgets: dict[str, Any] = {}
    groups = {}
    for kind in TECHNIQUES:
        with gr.Column(visible=kind == "lora") as groups[kind]:
            widgets |= _settings_of(kind)

    def choose(chosen: str, quantized: str) -> dict[Any, Any]:
        # every weight of a quantised base can't be trained
        fitting = "none" if chosen == "full" else quantized
        shown = {group: gr.update(visible=kind == chosen) for kind, group in groups.items()}
        return {**shown, quantization: fitting, words: views.technique_html(chosen, fitting)}

    outputs = [*groups.values(), quantization, words]
    choice.change(choose, [choice, quantization], outputs, **QUIET)
    quantization.input(views.technique_html, [choice, quantization], words, **QUIET)
    return widgets


def _settings_of(kind: str) -> dict[str, Any]:
    technique = TECHNIQUES[kind]
    widgets = {}
    with gr.Row():
        for name in FIRST[kind]:
            widgets[f"{kind}.{name}"] = forms.widget(technique, name)
    folded = [name for name in technique.model_fields if name not in ("kind", *FIRST[kind])]
    if folded:
        with gr.Accordion(say.MORE_OF.format(technique=technique.title), open=False):
            for name in folded:
                widgets[f"{kind}.{name}"] = forms.widget(technique, name)
    return widgets


def _start_from(jobs: Jobs) -> dict[str, Any]:
    """The run to go on from, for training in several stages."""
    nothing = (say.FRESH, "")

    def known() -> Any:
        every = [run for run in list_runs(jobs.root) if run.has_adapter]
        return gr.update(choices=[nothing, *views.run_choices(every)])

    # any value: "train again" fills in a run that is not among the choices, or is gone; who opens it says so
    options: dict[str, Any] = {"label": say.START_FROM, "info": say.START_FROM_HELP, "allow_custom_value": True}
    chosen = gr.Dropdown([nothing], value="", elem_id="start-from", **options)
    chosen.focus(known, None, chosen, **QUIET)
    return {"start_from": chosen}


def _set_by_pace(widgets: dict[str, Any]) -> None:
    """A pace sets the fields of its `TrainConfig`; a field that is set by hand makes the pace one's own."""
    pace = widgets["pace"]
    fields = {name.partition(".")[2]: w for name, w in widgets.items() if name.startswith("TrainConfig.")}

    def take(chosen: str) -> dict[Any, Any]:
        if chosen == OWN_PACE:
            return {}
        training = PACES[chosen].training
        return {widget: forms.shown_value(TrainConfig, name, training) for name, widget in fields.items()}

    pace.input(take, pace, list(fields.values()), **QUIET)
    gr.on([widget.input for widget in fields.values()], lambda: OWN_PACE, None, pace, queue=False, **QUIET)


def fill(choices: Choices, given: RunConfig) -> dict[Any, Any]:
    """Updates that make the form say what a configuration says (its last stage): to train it again with a change."""
    specs = {"TrainConfig": given.stages[-1].training, "ModelSpec": given.model, given.technique.kind: given.technique}
    updates = {
        choices.widgets["repo_id"]: given.model.repo_id,
        choices.widgets["technique"]: given.technique.kind,
        choices.widgets["pace"]: OWN_PACE,
        choices.widgets["name"]: given.name or "",
        choices.widgets["start_from"]: given.start_from or "",
        choices.technique_words: views.technique_html(given.technique.kind, given.model.quantization),
    }
    for name, widget in choices.widgets.items():
        spec, _dot, field = name.partition(".")
        if field and spec in specs:
            updates[widget] = forms.shown_value(SPECS[spec], field, specs[spec])
    return updates
