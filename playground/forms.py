"""Widgets made from the fields of the specs, and specs made from the widgets' values.

One `Field` gives the label, the line of help, the limits and the validation; nothing is described twice.
"""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import gradio as gr
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from playground.english import settings as say
from tunelab import UserError

NOTHING = "none"  # of a list, as text


def label_of(name: str) -> str:
    return say.LABELS.get(name, name.replace("_", " ").capitalize())


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
    if kind in (int, float):
        return number(default, **options)
    # several types at once ("auto" or a number, a number or nothing) are written as text
    return gr.Textbox(value="" if default is None else as_text(default), max_lines=1, **options)


def number(value: float | None, **options: Any) -> gr.Number:
    """A number without limits and rounding of Gradio's own: these end a handler before it begins, with a message that
    names no field, and make another number of 2.6 in silence. What is wrong with a number its spec says."""
    return gr.Number(value, **options)


def shown_value(spec: type[BaseModel], name: str, given: BaseModel) -> Any:
    """What the widget of a field shows for the value it has in `given`."""
    value, kind = getattr(given, name), spec.model_fields[name].annotation
    if kind in (bool, int, float) or literal_choices(spec.model_fields[name]):
        return value
    return "" if value is None else as_text(value)


def as_text(value: Any) -> str:
    return (", ".join(map(str, value)) or NOTHING) if isinstance(value, (tuple, list)) else str(value)


def flat_types(kind: Any) -> list[Any]:
    """The values of a Literal, or the members of a union."""
    return list(get_args(kind)) if get_origin(kind) is not None else [kind]


def _members(kind: Any) -> list[Any]:
    """The types that a value may have, and the words of Literals, whatever they stand in."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [member for one in get_args(kind) for member in _members(one)]
    return list(get_args(kind)) if get_origin(kind) is Literal else [get_origin(kind) or kind]


def literal_choices(field: FieldInfo) -> list[Any]:
    return list(get_args(field.annotation)) if get_origin(field.annotation) is Literal else []


def values_for(spec: type[BaseModel], given: dict[str, Any]) -> dict[str, Any]:
    """Field values from widget values: empty text is the field's default, numbers in text become numbers.

    Raises:
        UserError: a number is empty.
    """
    values = {}
    for name, value in given.items():
        field = spec.model_fields[name]
        if value is None and field.annotation in (int, float):
            raise UserError(say.EMPTY.format(label=label_of(name), default=field.default))
        if value is None or value == "":
            continue
        if isinstance(value, str):
            value = from_text(value, field.annotation)
        values[name] = value
    return values


def from_text(text: str, kind: Any) -> Any:
    """What a text says where a value of this kind is wanted: a text itself, one of its words, a list, a number."""
    members = _members(kind)
    if str in members or text.strip() in members:
        return text if str in members else text.strip()
    if tuple in members:
        return [part.strip() for part in text.split(",") if part.strip() and part.strip() != NOTHING]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text.strip()
