"""The difference of two texts, word by word, as pieces to show: same, added, removed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from tunelab.measure.changes.wording import WORD

# a word or a mark, or nothing (where a text begins with white space), and the white space after it
TOKEN = re.compile(rf"({WORD}|[^\w\s]|\S)(\s*)|(\s+)")
MOST_WORDS = 2000  # of the part that differs, on either side: more take too long to compare
LEAST_SAME = 0.2  # share of letters that two texts have to have in common for a difference to be marked
Kind = Literal["same", "added", "removed"]


class Piece(NamedTuple):
    kind: Kind
    text: str


@dataclass(frozen=True)
class Diff:
    """What stands in both texts, only in the one after, only in the one before; in reading order, what was removed
    before what was added. No piece is empty, and no two neighbours are of one kind."""

    pieces: tuple[Piece, ...]
    note: str | None = None  # where parts were not compared word by word

    @property
    def before(self) -> str:
        """The first text, to the letter."""
        return "".join(piece.text for piece in self.pieces if piece.kind != "added")

    @property
    def after(self) -> str:
        """The second text, to the letter."""
        return "".join(piece.text for piece in self.pieces if piece.kind != "removed")


def word_diff(before: str, after: str) -> Diff:
    """How to get from one text to the other in words; white space that alone changed is shown as changed. Parts of more
    than 2,000 words that differ are shown as removed and added whole, and the note says so."""
    old, new = _tokens(before), _tokens(after)
    note = None
    pieces: list[Piece] = []
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    middle_old, middle_new = old[head : len(old) - tail], new[head : len(new) - tail]
    pieces += _same(old[:head], new[:head])
    if max(len(middle_old), len(middle_new)) > MOST_WORDS and middle_old and middle_new:
        note = f"More than {MOST_WORDS:,} words differ: that part is shown whole, not compared word by word."
        pieces += _changed(middle_old, middle_new)
    else:
        matcher = SequenceMatcher(None, [w for w, _ in middle_old], [w for w, _ in middle_new], autojunk=False)
        for kind, start, end, new_start, new_end in matcher.get_opcodes():
            pieces += (_same if kind == "equal" else _changed)(middle_old[start:end], middle_new[new_start:new_end])
    pieces += _same(old[len(old) - tail :], new[len(new) - tail :])
    return Diff(tuple(_joined(pieces)), note)


def both_sides(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """The two texts in pieces, of which those that only one of them has are marked; none is marked where they have
    hardly anything in common."""
    pieces = word_diff(before, after).pieces
    same = sum(len(piece.text) for piece in pieces if piece.kind == "same")
    if same < LEAST_SAME * max(len(before), len(after)):
        return [Piece("same", before)], [Piece("same", after)]
    return [p for p in pieces if p.kind != "added"], [p for p in pieces if p.kind != "removed"]


def _tokens(text: str) -> list[tuple[str, str]]:
    """Words and marks, each with the white space after it; joined they are the text."""
    return [(found[1] or "", (found[2] or "") + (found[3] or "")) for found in TOKEN.finditer(text)]


def _common(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> int:
    count = 0
    for (one, _), (other, _) in zip(old, new, strict=False):
        if one != other:
            break
        count += 1
    return count


def _same(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> list[Piece]:
    """Pieces of equal words, whose white space may differ."""
    pieces = []
    for (word, space), (_word, other) in zip(old, new, strict=True):
        pieces.append(Piece("same", word))
        pieces += [Piece("same", space)] if space == other else [Piece("removed", space), Piece("added", other)]
    return pieces


def _changed(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> list[Piece]:
    return [Piece("removed", "".join(map("".join, old))), Piece("added", "".join(map("".join, new)))]


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The same pieces without empty ones, between two that are the same one that was removed and one that was added."""
    joined: list[Piece] = []
    held: dict[Kind, str] = {"removed": "", "added": ""}

    def release() -> None:
        for kind, text in held.items():
            if text:
                joined.append(Piece(kind, text))
            held[kind] = ""

    for piece in pieces:
        if not piece.text:
            continue
        if piece.kind != "same":
            held[piece.kind] += piece.text
            continue
        release()
        if joined and joined[-1].kind == "same":
            joined[-1] = Piece("same", joined[-1].text + piece.text)
        else:
            joined.append(piece)
    release()
    return joined
