"""The choice of a model and of rows."""

from __future__ import annotations

from typing import Any

import gradio as gr

from playground.jobs import Jobs
from tunelab import ModelSpec
from tunelab.data.builtin import BUILTIN


def model_choice(label: str, info: str | None = None) -> gr.Dropdown:
    """A model: the starter, or whatever is written."""
    return gr.Dropdown(
        ["starter"],
        value="starter",
        allow_custom_value=True,
        label=label,
        info=info or ModelSpec.model_fields["repo_id"].description,
    )


def builtin_choice() -> gr.Radio:
    """One of the built-in sets of rows."""
    return gr.Radio(list(BUILTIN), value="python-docs", label="Built-in data", info="Used when no file is given.")


def rows_file(
    label: str = "Your own data: a table, JSON, text, or a zip of these", elem_id: str | None = None
) -> gr.File:
    """A file with rows of one's own."""
    return gr.File(label=label, file_count="single", height=170, elem_id=elem_id)


def data_values(jobs: Jobs, values: dict[str, Any]) -> dict[str, Any]:
    """Fields of a `DataSpec` from the widgets `source`, `file` and `heldout_file`; files are kept beside the runs."""
    data = {"source": jobs.keep_upload(values["file"]) if values["file"] else values["source"]}
    if values["heldout_file"]:
        data["heldout"] = jobs.keep_upload(values["heldout_file"])
    return data
