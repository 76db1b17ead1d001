"""The choice of a model, of rows, and of what there is at the moment."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any

import gradio as gr

from tunelab import ModelSpec


def _there(self: gr.Dropdown, payload: Any) -> Any:
    there = [value for _label, value in self.choices]
    if isinstance(payload, list):
        return gr.Dropdown.preprocess(self, [one for one in payload if one in there])
    return gr.Dropdown.preprocess(self, payload if payload in there else "" if "" in there else None)


# A drop-down whose choices change while a page is open. A choice that is gone counts as none, for the page may send it
# before it hears of that; Gradio's own drop-down refuses the whole press then. The page shows it as the drop-down that
# it is (`is_template`). It is made without Gradio's metaclass, which writes a file beside the source of each component.
OfTheMoment: type[gr.Dropdown] = ABCMeta.__new__(
    type(gr.Dropdown),
    "OfTheMoment",
    (gr.Dropdown,),
    {"preprocess": _there, "is_template": True, "__module__": __name__},
)


def model_choice(label: str, info: str | None = None) -> gr.Dropdown:
    """A model: the starter, or whatever is written."""
    return gr.Dropdown(
        ["starter"],
        value="starter",
        allow_custom_value=True,
        label=label,
        info=info or ModelSpec.model_fields["repo_id"].description,
    )


def rows_file(label: str, elem_id: str) -> gr.File:
    """A file with rows of one's own."""
    return gr.File(label=label, file_count="single", height=170, elem_id=elem_id)
