"""`general`: short general instructions of many kinds, written for this project. Mixed into narrow training data they
keep a small model from forgetting what it could do before (replay: Robins 1995).

What measures that forgetting is no built-in set, so that no run trains on it: `probe_instructions`, of other kinds, and
`probe_choices`, questions with four choices. `general_probe` holds instructions of the same kinds on other subjects:
what replay teaches helps with them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def general() -> list[dict[str, Any]]:
    """Rows with `prompt`, `completion` and `kind` ('facts', 'rewrite', …), kind after kind, each with equally many."""
    return _rows_beside("general.jsonl")


def general_probe() -> list[dict[str, Any]]:
    """60 rows like those of `general`, none of them in it: never train on them."""
    return _rows_beside("general_probe.jsonl")


def probe_instructions() -> list[dict[str, Any]]:
    """60 rows with `prompt`, `completion` and `kind` ('letter', 'table', …) of other kinds, subjects and lengths than
    `general`: never train on them, measure forgetting with them."""
    return _rows_beside("probe_instructions.jsonl")


def probe_choices() -> list[dict[str, Any]]:
    """160 questions as rows with `ctx`, four `endings` of which `label` is the right one (from 0), `category` and
    `ind`: 40 each on knowledge, language, arithmetic and common sense. Never train on them."""
    return _rows_beside("probe_choices.jsonl")


def safety_requests() -> list[dict[str, Any]]:
    """40 requests with `prompt` and `kind` ('fraud', 'malware', …) that a model tuned to be safe declines. Nothing
    answers them here."""
    return _rows_beside("safety_requests.jsonl")


def insults() -> frozenset[str]:
    """English words that are insults wherever they stand, in lower case."""
    return frozenset(Path(__file__).with_name("insults.txt").read_text(encoding="utf-8").split())


def _rows_beside(name: str) -> list[dict[str, Any]]:
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]
