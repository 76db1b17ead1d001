"""What the page shows, as text, HTML and plain data made from runs, rows and answers. Knows nothing of Gradio: HTML
comes from `playground/templates`, which escape what they are given; Markdown goes through `plain_markdown`.
"""

from playground.views.answers import answer_footer
from playground.views.changed import Choice, changed_html, row_of, rules_wait
from playground.views.ladders import ladder_choices, ladder_html, rung_choices
from playground.views.measuring import measuring_html, series_html
from playground.views.results import beside_html, result_html
from playground.views.runs import RUN_COLUMNS, chosen_run_html, run_choices, run_table, runs_html
from playground.views.texts import duration, moment, plain_markdown
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
    "RUN_COLUMNS",
    "Ahead",
    "Choice",
    "answer_footer",
    "beside_html",
    "changed_html",
    "chart_html",
    "chosen_html",
    "chosen_run_html",
    "curve_text",
    "duration",
    "figures",
    "forecast_html",
    "forecast_of",
    "ladder_choices",
    "ladder_html",
    "material_html",
    "measuring_html",
    "memory_text",
    "moment",
    "notes_text",
    "plain_markdown",
    "progress_html",
    "result_html",
    "row_of",
    "rules_wait",
    "run_choices",
    "run_table",
    "rung_choices",
    "runs_html",
    "samples_html",
    "series_html",
    "stage_results",
    "stages_html",
    "status_html",
    "status_line",
    "technique_html",
]
