"""What the page shows, as text, HTML and plain data made from runs, rows and answers. Knows nothing of Gradio: HTML
comes from `playground/templates`, which escape what they are given; Markdown goes through `plain_markdown`.
"""

from playground.views.answers import answer_footer
from playground.views.ladders import ladder_choices, ladder_html, rung_choices
from playground.views.one_run import about_html, take_html
from playground.views.runs import (
    MOST_LISTED,
    MOST_PICKED,
    change_text,
    chosen_run_html,
    deleted_html,
    loss_text,
    picked_html,
    run_choices,
    runs_html,
)
from playground.views.texts import counted, duration, moment, plain_markdown
from playground.views.training import (
    CURVE_COLUMNS,
    Ahead,
    chart_html,
    chosen_html,
    curve_text,
    figures,
    forecast_html,
    forecast_of,
    material_html,
    memory_text,
    notes_text,
    progress_html,
    samples_html,
    stage_results,
    stages_html,
    status_html,
    status_line,
    technique_html,
)

__all__ = [
    "CURVE_COLUMNS",
    "MOST_LISTED",
    "MOST_PICKED",
    "Ahead",
    "about_html",
    "answer_footer",
    "change_text",
    "chart_html",
    "chosen_html",
    "chosen_run_html",
    "counted",
    "curve_text",
    "deleted_html",
    "duration",
    "figures",
    "forecast_html",
    "forecast_of",
    "ladder_choices",
    "ladder_html",
    "loss_text",
    "material_html",
    "memory_text",
    "moment",
    "notes_text",
    "picked_html",
    "plain_markdown",
    "progress_html",
    "run_choices",
    "rung_choices",
    "runs_html",
    "samples_html",
    "stage_results",
    "stages_html",
    "status_html",
    "status_line",
    "take_html",
    "technique_html",
]
