"""The tokens of a row with the text each one adds: what stands in a preview, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunelab.data.chat import ChatFormat
from tunelab.data.encode import Encoded

CUT_SHOWN = 200  # tokens beyond max_length that are shown
WINDOW = 16  # tokens that are decoded together with the next one
BROKEN = "\ufffd"  # how bytes are decoded that are no character yet
CHARACTER = 4  # tokens that a character may be spread over: one a byte


@dataclass(frozen=True)
class Piece:
    """One token. The texts of a row's pieces, joined, are what the tokenizer decodes."""

    text: str  # a character of several tokens stands with its last one, and the others have no text
    id: int
    scored: bool
    is_end: bool  # it ends a turn or a document
    cut: bool = False  # max_length cuts it away: the model does not see it


def pieces_of(whole: Encoded, limit: int, chat: ChatFormat) -> tuple[Piece, ...]:
    """Every token of an uncut row up to `limit`, and up to `CUT_SHOWN` of those behind it, marked as cut."""
    ids, stop = whole.input_ids, limit + CUT_SHOWN
    texts = token_texts(ids[: stop + CHARACTER], chat.tokenizer)
    beginning = chat.text_start if ids[: len(chat.text_start)] == chat.text_start else []
    return tuple(
        Piece(
            text=texts[place],
            id=ids[place],
            scored=whole.scored[place],
            # of a token that begins texts as well as ending them, the first one begins
            is_end=ids[place] in chat.end_ids and place >= len(beginning),
            cut=place >= limit,
        )
        for place in range(min(stop, len(ids)))
    )


def token_texts(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """The text that each token adds to those before it; what tokens add together stands with the last of them."""

    def decoded(first: int, stop: int) -> str:
        return str(tokenizer.decode(list(ids[first:stop]), clean_up_tokenization_spaces=False))

    texts: list[str] = []
    first = told = 0  # where the window begins, and where the tokens do whose text is not told yet
    before = ""  # the text of the window up to these
    for stop in range(1, len(ids) + 1):
        text = decoded(first, stop)
        if text.endswith(BROKEN) and stop < len(ids):
            texts.append("")
            continue
        texts.append(text[len(before) :])
        if stop - first < WINDOW:
            before = text
        else:  # the next window begins where a character does
            first, before = told, decoded(told, stop)
        told = stop
    return texts
