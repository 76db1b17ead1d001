"""How a run is measured: the few choices, in one drawer, and what they come to."""

from __future__ import annotations

from typing import Any

import gradio as gr

from playground.english import measure as say
from playground.jobs import Jobs
from tunelab import Run
from tunelab.errors import UserError
from tunelab.measure.settings import LONGEST_ANSWER, MOST_EXAMPLES, QUESTIONS, ROWS, Measuring


def lay_out() -> dict[str, Any]:
    """The widgets, by the names of what they set."""
    with gr.Row(elem_classes="settings"):
        rows = gr.Number(ROWS, precision=0, minimum=2, label=say.ROWS, info=say.ROWS_HELP, min_width=120)
        longest = gr.Number(
            LONGEST_ANSWER, precision=0, minimum=1, label=say.LONGEST, info=say.LONGEST_HELP, min_width=120
        )
    by = gr.Radio([(title, by) for by, title in say.BY_CHOICES.items()], value="answer", label=say.BY, info=say.BY_HELP)
    against = gr.Dropdown([], multiselect=True, label=say.AGAINST, info=say.AGAINST_HELP, elem_id="measure-against")
    system = gr.Textbox(label=say.SYSTEM, info=say.SYSTEM_HELP, placeholder=say.SYSTEM_EXAMPLE, lines=2)
    examples = gr.Slider(0, MOST_EXAMPLES, 0, step=1, label=say.EXAMPLES, info=say.EXAMPLES_HELP)
    ability = gr.Checkbox(True, label=say.ABILITY, info=say.ABILITY_HELP)
    memory = gr.Checkbox(False, label=say.MEMORY, info=say.MEMORY_HELP)
    safety = gr.Checkbox(False, label=say.SAFETY, info=say.SAFETY_HELP)
    return {
        "rows": rows,
        "max_new_tokens": longest,
        "by": by,
        "against": against,
        "system": system,
        "examples": examples,
        "ability": ability,
        "memorisation": memory,
        "safety": safety,
    }


def settings(values: dict[str, Any]) -> Measuring:
    """The settings of the widgets' values.

    Raises:
        UserError: a number is left empty.
    """
    for name, label in (("rows", say.ROWS), ("max_new_tokens", say.LONGEST)):
        if values[name] is None:
            raise UserError(f"{label} is empty. Write a number.")
    return Measuring(
        rows=int(values["rows"]),
        max_new_tokens=int(values["max_new_tokens"]),
        by=values["by"],
        system=(values["system"] or "").strip() or None,
        examples=int(values["examples"] or 0),
        questions=QUESTIONS if values["ability"] else 0,
        memorisation=bool(values["memorisation"]),
        safety=bool(values["safety"]),
    )


def others(jobs: Jobs, values: dict[str, Any]) -> list[Run]:
    """The other runs that are measured on the same rows.

    Raises:
        UserError: one of them is gone.
    """
    found = [jobs.find(identity) for identity in values["against"] or ()]
    if gone := [identity for identity, run in zip(values["against"] or (), found, strict=True) if run is None]:
        raise UserError(f"Run {gone[0]} is gone. Take it out of {say.AGAINST}.")
    return [run for run in found if run is not None]
