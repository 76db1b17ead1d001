"""Which columns hold turns of conversations, and which one ends them."""

from __future__ import annotations

from tunelab.data.columns import Column
from tunelab.data.names import ANSWERS, ANSWERS_LAST, ASKED, ASKED_BY_TEXT, LABELS, TEXTS_IN_TURN, TURNS, first
from tunelab.data.pairing import whether_wanted
from tunelab.data.transcripts import begins_like_one, conversation_turns, preface_of
from tunelab.data.turns import SPEAKER_KEYS, SPEAKERS, WORD_KEYS
from tunelab.errors import UserError, shortened

Columns = dict[str, Column]
Found = tuple[dict[str, str], str]
SHARED = 40  # characters of a system text: Alpaca's two go on in different words
ALWAYS_TURNS = TURNS[:3]  # names under which nothing but turns stands


def turns_of_columns(named: dict[str, str], filled: dict[str, str], found: Columns) -> Found | None:
    """Turns, and what ends them where the last answer stands in a column of its own."""
    for role in ("messages", "conversations"):
        if role in named:
            return _conversation(role, named[role], named, filled, found), "as named"
    if named.keys() & {"prompt", "completion", "instruction", "output", "input"}:
        return None
    with_turns = [column.name for column in found.values() if "turns" in column.kinds]
    known = [filled[key] for key in TURNS if key in filled]
    column = next((name for name in known if name in with_turns or _must_be_turns(found[name], filled)), None)
    if column is None and not any(key in filled for key in (*ANSWERS, *ANSWERS_LAST, *LABELS)):
        known = [filled[key] for key in (*TURNS, "text") if key in filled]
        column = next((name for name in known if _are_transcripts(found[name])), None)
    if column is None and (chosen := _whole_chosen(filled, found)):
        return {"messages": chosen}, "whole conversations with the answer that was chosen"
    if column is None:
        column = next((filled[key] for key in ("prompt", "input") if filled.get(key) in with_turns), None)
    if column is None:
        rest = [name for name in with_turns if found[name].key not in ("chosen", "rejected", "history", "completion")]
        column = rest[0] if len(rest) == 1 else None
    if column is not None:
        return _conversation("messages", column, named, filled, found), "a list of turns"
    if (column := _texts_in_turn(filled, found)) is not None:
        return {"messages": column}, "texts in turn, of which the user says the first"
    return None


def refuse_rows_of_turns(filled: dict[str, str], found: Columns, name: str) -> None:
    """
    Raises:
        UserError: each row is a single turn.
    """
    who = next((found[filled[key]] for key in SPEAKER_KEYS if key in filled), None)
    says = next((filled[key] for key in WORD_KEYS if key in filled), None)
    if who is None or says is None or not who.values or first((*ASKED, *ANSWERS), filled):
        return
    if len(who.values) > 1 and all(value.strip().lower() in SPEAKERS for value in who.values):
        raise UserError(
            f"{name}: each row is one turn ({shortened(who.name, 40)} says it, {shortened(says, 40)} is what is said). "
            'Put the turns of a conversation into one row: {"messages": [{"role": "user", "content": "…"}, '
            '{"role": "assistant", "content": "…"}]}.'
        )


def _must_be_turns(column: Column, filled: dict[str, str]) -> bool:
    """Whether a column is turns by its name, though they are written as text, or as pairs."""
    if column.kinds != {"text"}:
        return column.key in ALWAYS_TURNS and not (column.kinds == {"list"} and column.items == {"text"})
    answered = first((*ANSWERS, *ANSWERS_LAST), filled)
    return column.key in ALWAYS_TURNS and (not answered or column.lists_as_text > 0 or _is_transcript(column))


def _whole_chosen(filled: dict[str, str], found: Columns) -> str | None:
    """The column of what was chosen, where it holds what was asked, too."""
    chosen = filled.get("chosen")
    if chosen is None or found[chosen].key != "chosen":
        return None
    asked = any(key in filled for key in ASKED)
    whole = found[chosen].whole * 2 > found[chosen].filled
    return (
        chosen if whole or (not asked and ("turns" in found[chosen].kinds or _is_transcript(found[chosen]))) else None
    )


def _texts_in_turn(filled: dict[str, str], found: Columns) -> str | None:
    """A column with lists of texts that stands for conversations by its name, and beside which nobody asks."""
    if first(ASKED, filled) or first((*ANSWERS, *ANSWERS_LAST), filled):
        return None
    if "question_id" in filled:  # MT-Bench and its kin: questions in turn, and nobody answers
        return None
    able = {
        key: name
        for key, name in filled.items()
        if found[name].kinds == {"list"} and found[name].items == {"text"} and found[name].longest > 1
    }
    return first(TEXTS_IN_TURN, able)


def _conversation(
    role: str, column: str, named: dict[str, str], filled: dict[str, str], found: Columns
) -> dict[str, str]:
    ending = _ending(named, filled, column)
    wanted = whether_wanted(named, filled, found, {column, *ending.values()}) if ending or "label" in named else {}
    return {role: column} | ending | wanted


def _ending(named: dict[str, str], filled: dict[str, str], turns: str) -> dict[str, str]:
    """The column with the last answer, for turns that end with a question."""
    column = named.get("completion") or named.get("chosen")
    if column is None:
        asked = any(filled.get(key) == turns for key in ("context", *ASKED, *ASKED_BY_TEXT))
        free = {key: name for key, name in filled.items() if name != turns}
        column = first(("completion", "chosen", *(("response", "answer", "output") if asked else ())), free)
    return {"completion": column} if column and column != turns else {}


def _are_transcripts(column: Column) -> bool:
    """Whether texts are conversations: each begins with a label, or as the system text of the first one does."""
    if not column.values or not column.opening:
        return False
    if not (before := preface_of(column.opening)):
        answered = any(turn["role"] == "assistant" for turn in conversation_turns(column.opening) or ())
        return answered and all(map(_begins, column.values))
    return all(value.strip().startswith(before[:SHARED]) for value in column.values)


def _begins(text: str) -> bool:
    return begins_like_one(text) or text.lstrip().startswith("### Instruction:")


def _is_transcript(column: Column) -> bool:
    return any(map(begins_like_one, column.values))
