"""`general`: short general instructions of many kinds, written for this project. Mixed into narrow training data they
keep a small model from forgetting what it could do before (replay: Robins 1995).

`general_probe` measures that forgetting: instructions of the same kinds on other subjects, which are no built-in set,
so that no run trains on them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def general() -> list[dict[str, Any]]:
    """Rows with `prompt`, `completion` and `kind` ('facts', 'rewrite', …), kind after kind, each with equally many."""
    return _rows_beside("general.jsonl")


def general_probe() -> list[dict[str, Any]]:
    """60 rows like those of `general`, none of them in it: never train on them, measure forgetting with them."""
    return _rows_beside("general_probe.jsonl")


def _rows_beside(name: str) -> list[dict[str, Any]]:
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]
