"""Widgets made from the fields of the specs, and specs made from the widgets' values.

One `Field` gives the label, the line of help, the limits and the validation; nothing is described twice.
"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import gradio as gr
from pydantic import BaseModel
from pydantic.fields import FieldInfo

LABELS = {
    "repo_id": "Model",
    "quantization": "Quantisation of the base",
    "r": "LoRA rank",
    "steps": "Steps",
    "batch_size": "Batch size",
    "learning_rate": "Learning rate",
    "max_length": "Longest row (tokens)",
    "lora_alpha": "LoRA alpha",
    "lora_dropout": "LoRA dropout",
    "use_rslora": "Rank-stabilised scale (rsLoRA)",
    "use_dora": "Train row lengths as well (DoRA)",
    "layers": "Layers",
    "num_virtual_tokens": "Virtual tokens",
    "size": "Bottleneck size",
    "kl_weight": "Pull towards the base (KL)",
    "neftune_alpha": "Noise on embeddings (NEFTune)",
    "replay_share": "Replay of general examples",
}


def label_of(name: str) -> str:
    return LABELS.get(name, name.replace("_", " ").capitalize())


def widget(spec: type[BaseModel], name: str, info: str | None = None) -> Any:
    """The widget for one field, with its description (or `info`) as help and its default as value."""
    field = spec.model_fields[name]
    options: dict[str, Any] = {"label": label_of(name), "info": info or field.description, "interactive": True}
    kind, default = field.annotation, field.default
    choices = literal_choices(field)
    if choices and len(choices) == len(flat_types(kind)):
        return gr.Dropdown(choices=choices, value=default, **options)
    if kind is bool:
        return gr.Checkbox(value=default, **options)
    if kind is int:
        low, high = limits(field)
        return gr.Number(value=default, precision=0, minimum=low, maximum=high, **options)
    if kind is float:
        low, high = limits(field)
        return gr.Number(value=default, minimum=low, maximum=high, **options)
    # several types at once ("auto" or a number, a number or nothing) are written as text
    return gr.Textbox(value="" if default is None else as_text(default), max_lines=1, **options)


def shown_value(spec: type[BaseModel], name: str, given: BaseModel) -> Any:
    """What the widget of a field shows for the value it has in `given`."""
    value, kind = getattr(given, name), spec.model_fields[name].annotation
    if kind in (bool, int, float) or literal_choices(spec.model_fields[name]):
        return value
    return "" if value is None else as_text(value)


def as_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def flat_types(kind: Any) -> list[Any]:
    """The values of a Literal, or the members of a union."""
    return list(get_args(kind)) if get_origin(kind) is not None else [kind]


def literal_choices(field: FieldInfo) -> list[Any]:
    return list(get_args(field.annotation)) if get_origin(field.annotation) is Literal else []


def limits(field: FieldInfo) -> tuple[float | None, float | None]:
    """Lowest and highest value a number may have, as far as the field says."""
    low = next((m.ge for m in field.metadata if hasattr(m, "ge")), None)
    high = next((m.le for m in field.metadata if hasattr(m, "le")), None)
    return low, high


def values_for(spec: type[BaseModel], given: dict[str, Any]) -> dict[str, Any]:
    """Field values from widget values: empty text is the field's default, numbers in text become numbers."""
    values = {}
    for name, value in given.items():
        field = spec.model_fields[name]
        if value is None or value == "":
            continue
        if isinstance(value, str) and field.annotation is not str and not literal_choices(field):
            value = from_text(value)
        values[name] = value
    return values


def from_text(text: str) -> Any:
    """A number, a list or the word itself."""
    text = text.strip()
    if "," in text:
        return [part.strip() for part in text.split(",") if part.strip()]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
