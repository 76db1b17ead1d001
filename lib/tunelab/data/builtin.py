"""Data that is there without a download: the built-in sets by name, and their cards."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.data.sets import support_tickets, text_to_sql
from tunelab.data.sets.card import Card, measured
from tunelab.data.sets.cards import CARDS
from tunelab.data.sets.general import general, general_probe
from tunelab.data.sets.python_docs import python_docs
from tunelab.data.sets.shop import shop_database
from tunelab.data.sets.ticket_rules import answer_by_rules
from tunelab.errors import UserError, listed

__all__ = ["BUILTIN", "DESCRIPTIONS", "BuiltinSet", "card", "general_probe", "shop_database"]

Rows = Callable[[], list[dict[str, Any]]]
FIGURES = Path(__file__).parent / "sets" / "figures.json"


@dataclass(frozen=True)
class BuiltinSet:
    """A built-in set: how to read it, and by what its answers are measured."""

    name: str
    rows: Rows  # to train on; all there are where the set has no held-out rows of its own
    heldout: Rows | None = None  # never to train on
    metrics: tuple[str, ...] = ("chrf",)  # the first one is the one to report
    explanation: str = ""  # the format of an answer, for a model that was not tuned
    rules: Callable[[str], str] | None = None  # what rules by hand answer to a prompt
    database: Callable[[], sqlite3.Connection] | None = None  # what queries are run on


BUILTIN: dict[str, BuiltinSet] = {
    one.name: one
    for one in (
        BuiltinSet("python-docs", python_docs),
        BuiltinSet("general", general),
        BuiltinSet(
            "support-tickets",
            support_tickets.train_rows,
            support_tickets.heldout_rows,
            metrics=("field_accuracy", "same_json", "valid_json"),
            explanation=support_tickets.EXPLANATION,
            rules=answer_by_rules,
        ),
        BuiltinSet(
            "text-to-sql",
            text_to_sql.train_rows,
            text_to_sql.heldout_rows,
            metrics=("execution_accuracy",),
            explanation=text_to_sql.EXPLANATION,
            database=shop_database,
        ),
    )
}
DESCRIPTIONS = {card.name: card.summary for card in CARDS}


def card(name: str) -> Card:
    """The data card of a built-in set, with its measured figures.

    Raises:
        UserError: there is no such set.
    """
    found = {card.name: card for card in CARDS}.get(name)
    if found is None:
        raise UserError(f"There is no built-in set '{name}'. Built in are: {listed(BUILTIN)}.")
    return measured(found, _figures()[name])


@functools.cache
def _figures() -> dict[str, Any]:
    return json.loads(FIGURES.read_text(encoding="utf-8"))
