"""What the model will see of a row, with the scored tokens marked: for people, before any training."""

from __future__ import annotations

from dataclasses import dataclass

from tunelab.data.blocks import training_rows
from tunelab.data.chat import chat_format
from tunelab.data.split import read_data
from tunelab.spec import ModelSpec, Stage


@dataclass(frozen=True)
class PreviewRow:
    segments: list[tuple[str, bool]]  # text as the model reads it, and whether it is learned
    tokens: int
    scored_tokens: int
    truncated: bool
    ends: bool  # the end of turn is scored; without it the tuned model never learns to stop


def preview(
    stage: Stage, model: ModelSpec, rows: int = 3, positions_taken: int = 0
) -> tuple[list[PreviewRow], tuple[str, ...]]:
    """The first training rows as they are encoded, plain text in its blocks, and the notes of the reader.
    `positions_taken`: by a technique's own tokens.

    Raises:
        UserError: the data can't be read.
    """
    from tunelab.model.load import find, load_tokenizer
    from tunelab.model.positions import row_limit

    split = read_data(stage.data, stage.learn)
    tokenizer = load_tokenizer(model)
    limit = row_limit(find(model), model, positions_taken)
    is_text = stage.learn == "text"
    encoded, row_notes = training_rows(split.train if is_text else split.train[:rows], tokenizer, limit.tokens)
    ends = chat_format(tokenizer).end_ids
    shown = []
    for row in encoded[:rows]:
        segments: list[tuple[str, bool]] = []
        start = 0
        for stop in range(1, len(row.scored) + 1):
            if stop == len(row.scored) or row.scored[stop] != row.scored[start]:
                segments.append((str(tokenizer.decode(row.input_ids[start:stop])), row.scored[start]))
                start = stop
        shown.append(
            PreviewRow(
                segments=segments,
                tokens=len(row.input_ids),
                scored_tokens=sum(row.scored),
                truncated=row.truncated,
                # of a text it is the document that ends, wherever its blocks do
                ends=is_text or (row.input_ids[-1] in ends and row.scored[-1] and not row.truncated),
            )
        )
    count = f"{len(split.train):,} rows to train on, {len(split.heldout):,} held out"
    more = (f"training rows: {note}" if is_text else note for note in row_notes)
    return shown, (count, *limit.notes, *split.notes, *more)
