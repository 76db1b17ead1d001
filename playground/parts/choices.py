"""The choice of a model and of rows."""

from __future__ import annotations

import gradio as gr

from tunelab import ModelSpec


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
