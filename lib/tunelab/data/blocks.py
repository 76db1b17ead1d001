"""Examples as the rows that are trained on and measured: conversations each for themselves, plain text in blocks.

Documents are tokenised whole and joined, each closed by the end-of-text token, and the stream is cut into blocks of
`max_length`: nothing of a document is lost, however long it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunelab.data.encode import Encoded, encode_all, pack
from tunelab.data.examples import Example


def training_rows(examples: Sequence[Example], tokenizer: Any, max_length: int) -> tuple[list[Encoded], list[str]]:
    """The rows of one side of a stage, and notes: what was cut or left out, of plain text how many tokens there are."""
    rows, notes = encode_all(examples, tokenizer, max_length)
    if not any(example.text is not None for example in examples):
        return rows, notes
    blocks = pack(rows, max_length)
    count = sum(len(row.input_ids) for row in rows)
    note = f"{count:,} tokens of {_counted(len(rows), 'document')} in {_counted(len(blocks), 'block')} of {max_length}"
    return blocks, [*notes, note]


def rows_alone(example: Example, tokenizer: Any, max_length: int) -> list[Encoded]:
    """The rows of one example by itself: a document's blocks hold nothing of another one."""
    rows, _notes = encode_all([example], tokenizer, max_length)
    return rows if example.text is None else pack(rows, max_length)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
