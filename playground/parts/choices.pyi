"""The choice of a model, of rows, and of what there is at the moment."""

from __future__ import annotations

from typing import Any

import gradio as gr

from tunelab import ModelSpec

class OfTheMoment(gr.Dropdown):
    """A drop-down whose choices change while a page is open. A choice that is gone counts as none, for the page may
    send it before it hears of that; Gradio's own drop-down refuses the whole press then."""

    is_template = True  # the page shows it as the drop-down that it is

    def preprocess(self, payload: Any) -> Any:
        there = [value for _label, value in self.choices]
        if isinstance(payload, list):
            return super().preprocess([one for one in payload if one in there])
        return super().preprocess(payload if payload in there else "" if "" in there else None)
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

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
