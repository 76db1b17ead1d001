"""What there is to see of the rows that are chosen: how many, token by token, what is wrong, pictures, the split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.english import data as say
from playground.looking import Sight


@dataclass(frozen=True)
class Seen:
    """What there is to see."""

    summary: gr.HTML
    train: gr.Button
    message: gr.Markdown
    rows: gr.HTML
    back: gr.Button
    next: gr.Button
    findings_tab: gr.Tab
    findings: gr.HTML
    pictures: gr.HTML
    division: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        found = [self.findings_tab, self.findings, self.pictures, self.division]
        return [self.summary, self.train, self.rows, self.back, self.next, *found]


def lay_out() -> Seen:
    """The components."""
    with gr.Row(equal_height=True, elem_classes="tight", elem_id="data-head"):
        summary = gr.HTML(views.summary_html(Sight()), elem_id="data-summary")
        train = gr.Button(
            say.TRAIN, variant="primary", interactive=False, scale=0, min_width=190, elem_id="train-on-this"
        )
    message = gr.Markdown("", elem_id="data-message", elem_classes="message")
    with gr.Tabs(elem_id="data-views"):
        with gr.Tab(say.ROWS, id="rows"):
            rows = gr.HTML("", elem_id="data-rows")
            with gr.Row(elem_classes="tight"):
                quiet: dict[str, Any] = {"size": "sm", "interactive": False, "scale": 0, "min_width": 120}
                back = gr.Button(say.BACK, elem_id="data-back", **quiet)
                forth = gr.Button(say.NEXT, elem_id="data-next", **quiet)
        with gr.Tab(say.FINDINGS, id="findings") as findings_tab:
            findings = gr.HTML(views.findings_html(Sight()), elem_id="data-findings")
        with gr.Tab(say.PICTURES, id="pictures"):
            pictures = gr.HTML(views.pictures_html(Sight()), elem_id="data-pictures")
        with gr.Tab(say.DIVISION, id="division"):
            division = gr.HTML(views.division_html(Sight()), elem_id="data-division")
    return Seen(summary, train, message, rows, back, forth, findings_tab, findings, pictures, division)


def shown_as(seen: Seen, sight: Sight) -> dict[Any, Any]:
    """The updates that show what is known."""
    return {
        seen.summary: views.summary_html(sight),
        seen.train: gr.update(interactive=views.material_of(sight) is not None),
        seen.rows: views.rows_html(sight.rows, 0, sight),
        seen.back: gr.update(interactive=False),
        seen.next: gr.update(interactive=sight.more_rows and not sight.is_part),
        seen.findings_tab: gr.update(label=views.findings_title(sight)),
        seen.findings: views.findings_html(sight),
        seen.pictures: views.pictures_html(sight),
        seen.division: views.division_html(sight),
    }
