"""What the model will see of rows, token by token, and what is wrong with them: for people, before any training.

preview()   the first rows                  overview()   the same, with warnings and lengths over all rows
Seen        both, of rows that have been read already, and any other rows
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tunelab.data.blocks import training_rows
from tunelab.data.chat import ChatFormat, chat_format
from tunelab.data.encode import UNCUT, Encoded, encode_whole
from tunelab.data.examples import DataSplit, Example
from tunelab.data.lengths import Lengths, lengths_of
from tunelab.data.pieces import Piece, pieces_of
from tunelab.data.split import read_data
from tunelab.data.store import pick
from tunelab.data.untaught import untaught_notes
from tunelab.spec import ModelSpec, Stage

if TYPE_CHECKING:
    from tunelab.data.doctor.markers import Markers

MOST_ENCODED = 2000  # rows that `overview` looks at
NO_END = "a model that learns from such rows alone never stops"
TWICE = "the template is applied twice"


@dataclass(frozen=True)
class PreviewRow:
    segments: list[tuple[str, bool]]  # text as the model reads it, and whether it is learned
    tokens: int
    scored_tokens: int
    truncated: bool
    ends: bool  # an end of turn is scored; without it the tuned model never learns to stop
    pieces: tuple[Piece, ...] = ()  # its tokens, and the first of those that are cut away
    cut_tokens: int = 0  # all that are cut away
    warnings: tuple[str, ...] = ()  # what is wrong with it, a sentence each


@dataclass(frozen=True)
class Overview:
    """The first training rows as the model will see them, and what there is to say about all of them."""

    rows: list[PreviewRow]
    notes: tuple[str, ...]  # of the reader, and of what was changed in the rows that are shown
    warnings: tuple[str, ...]  # a sentence each, with the number of rows
    lengths: Lengths
    refusal: str | None  # why training can't begin: nothing is scored in any row


def preview(
    stage: Stage, model: ModelSpec, rows: int = 3, positions_taken: int = 0
) -> tuple[list[PreviewRow], tuple[str, ...]]:
    """The first training rows as they are encoded, plain text in its blocks, and the notes of the reader. Rows with
    nothing scored are among them, with a warning; they are left out of training.
    `positions_taken`: by a technique's own tokens.

    Raises:
        UserError: the data can't be read.
    """
    return Seen(read_data(stage.data, stage.learn), stage, model, positions_taken).shown(rows)


def overview(stage: Stage, model: ModelSpec, rows: int = 3, positions_taken: int = 0) -> Overview:
    """The same, with what is wrong and how long rows are, over all training rows; of more than `MOST_ENCODED` over as
    many, drawn by the data's seed.

    Raises:
        UserError: the data can't be read.
    """
    return Seen(read_data(stage.data, stage.learn), stage, model, positions_taken).overview(rows)


class Seen:
    """The rows of a stage as `read_data` gives them, and how a model takes them."""

    def __init__(self, split: DataSplit, stage: Stage, model: ModelSpec, positions_taken: int = 0) -> None:
        from tunelab.data.doctor.markers import Markers
        from tunelab.model.load import find, load_tokenizer
        from tunelab.model.positions import row_limit

        self.split = split
        self.tokenizer: Any = load_tokenizer(model)
        folder = find(model)
        self.limit = row_limit(folder, model, positions_taken)
        self.is_text, self.seed = stage.learn == "text", stage.data.seed
        self.cut_at = UNCUT if self.is_text else self.limit.tokens  # text is cut into blocks, and nothing of it is lost
        self.chat: ChatFormat = chat_format(self.tokenizer)
        self.untaught = [] if self.is_text else untaught_notes(self.chat, folder)
        self.markers: Markers = Markers(self.chat.control)

    def overview(self, rows: int = 3) -> Overview:
        """The first rows, with what there is to say about all of them."""
        shown, notes = self.shown(rows)
        warnings, lengths, refusal, of = self.judged()
        return Overview(shown, (*notes, *of), warnings, lengths, refusal)

    def shown(self, rows: int, first: int = 0) -> tuple[list[PreviewRow], tuple[str, ...]]:
        """So many rows, those behind the `first` ones, and the notes."""
        examples = self.split.train if self.is_text else self.split.train[first : first + rows]
        encoded, row_notes = training_rows(examples, self.tokenizer, self.limit.tokens)
        if self.is_text:
            shown = [self._row(block, None) for block in encoded[first : first + rows]]
        else:
            shown = [self._row(row, one) for one in examples for row in self._whole([one])][:rows]
        count = f"{len(self.split.train):,} rows to train on, {len(self.split.heldout):,} held out"
        more = (f"{'training rows' if self.is_text else 'in the rows shown'}: {note}" for note in row_notes)
        return shown, (count, *self.untaught, *self.limit.notes, *self.split.notes, *more)

    def judged(self) -> tuple[tuple[str, ...], Lengths, str | None, list[str]]:
        """Warnings, lengths, why nothing can be trained on the rows, and a note where not all were looked at."""
        every = len(self.split.train)
        places: Sequence[int] = range(every)
        if every > MOST_ENCODED:
            places = sorted(random.Random(self.seed).sample(places, MOST_ENCODED))
        examples = pick(self.split.train, places)
        marked = sum(self.markers.spot(example) is not None for example in examples)
        rows = [_Judged.of(row, self.cut_at, self.chat) for row in self._whole(examples)]
        lengths = lengths_of([row.tokens for row in rows], self.limit.tokens, "document" if self.is_text else "row")
        sampled = f"looked at: {len(examples):,} of {every:,} rows, drawn by seed {self.seed}"
        refusal = None
        if len(examples) == every and not any(row.is_scored for row in rows):
            refusal = (
                f"Nothing is scored in any of {_rows(len(rows))}: there is nothing to learn. {self._way_out(rows)}"
            )
        if self.is_text:
            warnings = self._text_warnings(rows, marked)
        else:
            warnings = self._warnings(rows, marked, len(examples), refused=refusal is not None)
        return tuple(warnings), lengths, refusal, [sampled] if len(examples) < every else []

    def _whole(self, examples: Sequence[Example]) -> list[Encoded]:
        """The rows of examples, uncut; an empty one for a conversation that teaches nothing."""
        nothing = [] if self.is_text else [Encoded([], [])]
        return [row for rows in encode_whole(examples, self.tokenizer) for row in rows or nothing]

    def _row(self, whole: Encoded, example: Example | None) -> PreviewRow:
        pieces = pieces_of(whole, self.cut_at, self.chat)
        kept = [piece for piece in pieces if not piece.cut]
        judged = _Judged.of(whole, self.cut_at, self.chat)
        spot = self.markers.spot(example) if example else None
        runs = groupby(kept, key=lambda piece: piece.scored)
        return PreviewRow(
            segments=[("".join(piece.text for piece in run), scored) for scored, run in runs],
            tokens=len(kept),
            scored_tokens=sum(piece.scored for piece in kept),
            truncated=judged.is_cut,
            ends=self.is_text or judged.ends,  # of a text it is the document that ends, wherever its blocks do
            pieces=pieces,
            cut_tokens=len(whole.input_ids) - len(kept),
            warnings=tuple(_row_warnings(judged, self.cut_at, spot)) if example else (),
        )

    def _warnings(self, rows: Sequence[_Judged], marked: int, examples: int, refused: bool) -> Iterable[str]:
        every, limit = len(rows), f"max_length = {self.limit.tokens:,} tokens"
        unscored = sum(not row.is_scored for row in rows)
        if unscored and not refused:  # the refusal says it of all rows
            yield f"Nothing is scored in {_of(unscored, every)}: left out of training. {self._way_out(rows)}"
        learned = [row for row in rows if row.is_scored]
        if endless := sum(not row.ends for row in learned):
            if endless == len(learned):
                yield "No row teaches the model to end its turn: the tuned model will never stop by itself."
            else:
                yield f"No end is learned in {_of(endless, every)}: {NO_END}."
        if marked:
            yield (
                f"Markers of a chat template stand inside the text of {_of(marked, examples)}: {TWICE}. "
                "The fix strip-control takes them out."
            )
        if cut := sum(row.is_cut for row in rows):
            longest = max(row.tokens for row in rows)
            yield f"{_of(cut, every)} cut at {limit}; the longest has {longest:,}. Raise max_length, or shorten them."

    def _text_warnings(self, documents: Sequence[_Judged], marked: int) -> Iterable[str]:
        if documents and not any(document.ends for document in documents):
            yield "No end of a document is learned: a model that learns from this text alone never stops."
        if marked:
            yield (
                f"Control tokens or markers of a chat template stand in the text of {_of(marked, len(documents))}: a "
                "space breaks those of this model, and it learns the pieces. The fix strip-control takes them out."
            )

    def _way_out(self, rows: Sequence[_Judged]) -> str:
        if any(row.is_cut for row in rows):
            return f"Raise max_length (now {self.limit.tokens:,} tokens), or shorten the rows."
        return "Give longer texts." if self.is_text else "Give the rows answers of the assistant."


@dataclass(frozen=True)
class _Judged:
    """What counts of an uncut row once it is cut."""

    tokens: int  # uncut
    is_scored: bool
    ends: bool
    is_cut: bool

    @classmethod
    def of(cls, whole: Encoded, limit: int, chat: ChatFormat) -> _Judged:
        ids, scored = whole.input_ids, whole.scored[:limit]
        ends = any(learned and token in chat.end_ids for token, learned in zip(ids, scored, strict=False))
        return cls(len(ids), any(scored[1:]), ends, len(ids) > limit)


def _row_warnings(row: _Judged, limit: int, spot: str | None) -> Iterable[str]:
    if not row.is_scored and row.is_cut:
        yield "Nothing is scored in this row: its prompt alone fills max_length. It is left out of training."
    elif not row.is_scored:
        yield "Nothing is scored in this row: it holds no answer that can be learned. It is left out of training."
    if row.is_cut:
        yield f"Cut at max_length = {limit:,} tokens: {row.tokens - limit:,} of its {row.tokens:,} are not seen."
    if row.is_scored and not row.ends:
        yield f"No end is learned here: {NO_END}."
    if spot:
        yield f"Markers of a chat template stand inside the text, so {TWICE}: {' '.join(spot.split())}"


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _of(count: int, every: int) -> str:
    return f"{count:,} of {_rows(every)}"
