"""General ability, measured before and after tuning: what a narrow run has forgotten.

    read.py      questions with choices and instructions: the project's own, or a file in HellaSwag's columns
    choices.py   which choice a model finds most likely, per byte        ability.py   both sides compared

Uses `data`, `losses` and, for intervals, `measure.metrics`.
"""
