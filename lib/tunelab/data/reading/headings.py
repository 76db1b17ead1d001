"""Names that columns have: by them a header is told from a row, and columns from objects that are keyed by an id."""

from __future__ import annotations

import re

HEADINGS = frozenset(
    "id index text label labels category class intent sentiment topic prompt completion instruction input output "
    "response "
    "answer answers question context system system_prompt messages conversations source target title query user "
    "assistant "
    "message content summary chosen rejected sentence review body subject date name number split language score rating "
    "description".split()
)


def is_heading(text: str) -> bool:
    """Whether a column is often called so, whatever its case."""
    return re.sub(r"[\s-]+", "_", text.strip().lower()) in HEADINGS
