"""What several rooms are made of: the choice of a model and of data, and how their events are wired."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gradio as gr

from playground.jobs import Jobs
from tunelab import ModelSpec
from tunelab.data.builtin import BUILTIN

# for every event: nothing of the app can be called from elsewhere
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# for events that nobody asked for
QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}


def model_choice(label: str) -> gr.Dropdown:
    """A model: the starter, or whatever is written."""
    return gr.Dropdown(
        ["starter"],
        value="starter",
        allow_custom_value=True,
        label=label,
        info=ModelSpec.model_fields["repo_id"].description,
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


def by_name(widgets: dict[str, Any], values: Iterable[Any]) -> dict[str, Any]:
    """The values of widgets, as a handler gets them, by the widgets' names."""
    return dict(zip(widgets, values, strict=True))
