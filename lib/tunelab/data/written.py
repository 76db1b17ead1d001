"""A conversation on its way to a chat template: what had to be done to it, and the notes that say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tunelab.data.examples import Message
from tunelab.data.template import CantRender

Piece = tuple[str, bool]  # text that is tokenised on its own, and whether it is learned

# {rows} reads "3 rows", "1 row" or "The prompt"
CHANGES = {
    "control": "{rows} held control tokens such as {token}; a space breaks them",
    "system": "{rows}: the system text stands in the user's first turn, because the chat template has no system role",
    "joined": "{rows}: turns of the user in a row are joined, because the chat template wants roles to alternate",
    "apart": "{rows}: each answer became a row of its own, behind the conversation as the chat template writes it then",
    "closed": "{rows}: the prompt opens thoughts, and answers that have none close them first",
    "left out": "{rows}: the chat template leaves out a turn or a part of one; the model does not read it",
    "changed": "{rows}: the chat template leaves out a part of an answer (its thoughts, for one); it is not learned",
    "empty": "{rows} hold an answer without a word: it is read, not learned",
    "calls": "{rows} hold calls of tools: they are read, not learned",
    "weightless": "{rows} hold an answer of weight 0: it is read, not learned",
    "unasked": "{rows} begin with an answer that nobody asked for: it is read, not learned",
}


@dataclass
class Written:
    """A conversation as rows of text, and what was done to it on the way (keys of `CHANGES`)."""

    rows: list[list[Piece]] = field(default_factory=list)
    changes: set[str] = field(default_factory=set)
    control_token: str | None = None  # the first one that was broken


def change_notes(written: Iterable[Written], only: str | None = None) -> list[str]:
    """Clauses that say what was done to how many rows; `only` names the one there is."""
    rows = list(written)
    counts = Counter(what for row in rows for what in row.changes)
    token = next((row.control_token for row in rows if row.control_token), None)
    return [
        clause.format(rows=only or ("1 row" if counts[what] == 1 else f"{counts[what]:,} rows"), token=token)
        for what, clause in CHANGES.items()
        if counts[what]
    ]


def system_in_user(turns: Sequence[Message]) -> list[Message]:
    """Each system text in a turn of the user: at the beginning of the next one, or, where an answer or nothing comes
    first, at the end of the one before.

    Raises:
        CantRender: there is neither.
    """
    arranged: list[Message] = []
    waiting: list[str] = []
    for turn in turns:
        if turn.role == "system":
            waiting.append(turn.content)
            continue
        if turn.role == "user":
            turn, waiting = _joined(*waiting, turn.content), []
        elif arranged and arranged[-1].role == "user":
            arranged[-1], waiting = _joined(arranged[-1].content, *waiting), []
        arranged.append(turn)
    if waiting and arranged and arranged[-1].role == "user":
        arranged[-1], waiting = _joined(arranged[-1].content, *waiting), []
    if waiting:
        raise CantRender("the chat template has no system role, and no turn of the user is there to hold the text")
    return arranged


def users_joined(turns: Sequence[Message]) -> list[Message]:
    """The user's turns that follow each other as one. (An assistant's are not joined: they are two answers.)"""
    joined: list[Message] = []
    for turn in turns:
        if joined and turn.role == joined[-1].role == "user":
            joined[-1] = _joined(joined[-1].content, turn.content)
        else:
            joined.append(turn)
    return joined


def _joined(*texts: str) -> Message:
    return Message("user", "\n\n".join(texts))
