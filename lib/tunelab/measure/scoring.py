"""What a model makes of rows: -log p of their scored tokens, row by row.

row_losses(loss, rows, base) ──> a RowSum per row;  known_losses(…, known) asks what is on disk first
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tunelab.errors import UserError
from tunelab.measure.known import Known

if TYPE_CHECKING:
    from tunelab.data import Encoded, Example
    from tunelab.losses import Loss
    from tunelab.model.load import Base

BATCH, BATCH_TOKENS = 8, 1024  # rows scored at once, and positions: (N, V) logits exist for them


class RowSum(NamedTuple):
    """-log p of a row's scored tokens, summed, in nats, and how many tokens those are."""

    loss: float
    tokens: int


def row_losses(loss: Loss, rows: Sequence[Encoded], base: Base) -> list[RowSum]:
    """What the loss's model, as it is now (adapter on, or off), makes of each row."""
    return in_order(len(rows), summed(rows, by_length(rows), loss, base))


def known_losses(
    loss: Loss,
    rows: Sequence[Encoded],
    base: Base,
    known: Known,
    counting: Callable[[int], Callable[[int], None]] = lambda known: lambda more: None,
) -> list[RowSum]:
    """`row_losses`; what has been measured before comes from disk. `counting` is told how many those are, and gives
    what is told of each other row."""

    def measure(missing: list[int]) -> Iterator[tuple[int, RowSum]]:
        some = [rows[index] for index in missing]
        add = counting(len(rows) - len(missing))
        for place, value in summed(some, by_length(some), loss, base):
            yield missing[place], value
            add(1)

    asked = [[row.input_ids, list(map(int, row.scored))] for row in rows]
    return [RowSum(value, count) for value, count in known.ask("losses", asked, measure)]


def in_order(count: int, found: Iterator[tuple[int, RowSum]]) -> list[RowSum]:
    """The values by their places."""
    values = [RowSum(0.0, 0)] * count
    for place, value in found:
        values[place] = value
    return values


def by_length(rows: Sequence[Encoded], most: int = BATCH, positions: int = BATCH_TOKENS) -> list[list[int]]:
    """Places of the rows in batches of similar length, the longest first: at most `most` rows and `positions` tokens,
    padding included."""
    left = sorted(range(len(rows)), key=lambda index: len(rows[index].input_ids))
    batches = []
    while left:
        size = max(1, min(most, positions // len(rows[left[-1]].input_ids)))
        batches.append(left[-size:])
        left = left[:-size]
    return batches


def summed(
    rows: Sequence[Encoded], batches: Sequence[list[int]], loss: Loss, base: Base
) -> Iterator[tuple[int, RowSum]]:
    """The place of each row and what the model makes of it, batch by batch."""
    from tunelab.data.batches import collate
    from tunelab.losses import token_losses

    for places in batches:
        batch = collate([rows[place] for place in places], base.pad_id).to(base.device)
        counts = batch.scored[:, 1:].sum(1).tolist()
        for place, part, count in zip(places, token_losses(loss, batch).split(counts), counts, strict=True):
            yield place, RowSum(float(part.double().sum()), count)


def rows_to_score(examples: Sequence[Example], base: Base, max_length: int) -> list[Encoded]:
    """The examples that have something scored within `max_length`, encoded.

    Raises:
        UserError: none has.
    """
    from tunelab.data.encode import encode_all

    rows, _notes = encode_all(examples, base.tokenizer, max_length)
    if not rows:
        raise nothing_to_score(len(examples))
    return rows


def nothing_to_score(count: int) -> UserError:
    return UserError(f"None of the {count} rows has anything to score. Raise max_length.")
