"""Which metrics fit a task, read from its answers."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Literal

from tunelab.data.doctor.labels import Labels
from tunelab.data.examples import Example, Message
from tunelab.measure.metrics.fields import FieldF1, SameJSON, ValidJSON, is_json
from tunelab.measure.metrics.labels import Accuracy, MacroF1
from tunelab.measure.metrics.number import NUMBER, NumberMatch
from tunelab.measure.metrics.protocol import Metric
from tunelab.measure.metrics.sql import ExecutionAccuracy
from tunelab.measure.metrics.text import ChrF, ExactMatch, RougeL, TokenF1

Task = Literal["labels", "json", "sql", "numbers", "text"]
ENOUGH = 0.9  # share of answers that look like queries, where a few may be mistaken
PARSED = 50  # answers that SQLite is asked about
QUERY = re.compile(r"\s*(?:select|with|insert|update|delete)\b", re.I)
SCHEMA = re.compile(r"\bcreate\s+table\b|\b\w+\s*\(\s*\w+(?:\s+\w+)*\s*,[^()]*\)", re.I)
RESULT = re.compile(r"####\s*\S*\s*$")  # how GSM8K and its kin mark the result


def metrics_for(
    answers: Sequence[str],
    prompts: Sequence[str] = (),
    database: sqlite3.Connection | None = None,
    labels: Iterable[str] = (),
) -> list[Metric]:
    """The metrics that fit these answers, the one to report first.

    answers: of all rows there are, training rows too: they are the set of labels, with what else is in `labels`.
    database: what queries can be run on; without one they are compared as texts.

    Raises:
        ValueError: there are no answers.
    """
    match task_of(answers, prompts):
        case "labels":
            return [Accuracy(), MacroF1(answer for answer in (*answers, *labels) if answer.strip())]
        case "json":
            return [FieldF1(), SameJSON(), ValidJSON()]
        case "sql":
            return [*([ExecutionAccuracy(database)] if database is not None else []), ExactMatch(), ChrF()]
        case "numbers":
            return [NumberMatch(), ExactMatch()]
        case "text":
            return [ChrF(), RougeL(), TokenF1()]


def task_of(answers: Sequence[str], prompts: Sequence[str] = ()) -> Task:
    """What kind of answers these are. A set of few numbers that come again and again (ratings) is one of labels.

    Raises:
        ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("there are no answers to propose metrics for")
    if all(answer.lstrip()[:1] in ("{", "[") and is_json(answer) for answer in answers):
        return "json"
    if _are_queries(answers, prompts):
        return "sql"
    if _are_labels(answers):
        return "labels"
    if all(_is_number(answer) for answer in answers):
        return "numbers"
    return "text"


def _are_labels(answers: Sequence[str]) -> bool:
    seen = Labels()
    for row, answer in enumerate(answers, 1):
        seen.see(Example((Message("assistant", answer),), row=row))
    return bool(seen.groups())


def _are_queries(answers: Sequence[str], prompts: Sequence[str]) -> bool:
    """Whether most answers are queries that SQLite can parse, and most prompts tell the tables."""
    likely = [answer for answer in answers if QUERY.match(answer)]
    if len(likely) < ENOUGH * len(answers):
        return False
    if prompts and sum(SCHEMA.search(prompt) is not None for prompt in prompts) < ENOUGH * len(prompts):
        return False
    asked = likely[:: max(1, len(likely) // PARSED)]
    with closing(sqlite3.connect(":memory:")) as empty:
        # other dialects have words that SQLite doesn't know
        return sum(_is_parsed(empty, answer) for answer in asked) >= len(asked) / 2


def _is_parsed(empty: sqlite3.Connection, query: str) -> bool:
    """Whether SQLite gets as far as looking for the tables."""
    try:
        empty.execute(f"EXPLAIN {query}").close()
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        return str(error).startswith("no such table")
    return True


def _is_number(answer: str) -> bool:
    """Whether an answer is a number with at most a unit or a sign of currency, or marks one as its result."""
    rest = NUMBER.sub("", answer, count=1)
    return rest != answer and (
        RESULT.search(answer) is not None or re.fullmatch(r"\W*[^\W\d]{0,3}\W*", rest) is not None
    )
