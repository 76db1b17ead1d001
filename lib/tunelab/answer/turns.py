"""Answers of techniques that can't share a batch, and of sets of prompts: they take turns on the model, a token at each
step, so that others are answered between two steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunelab.answer.decoders import Resident, Result, Turn
from tunelab.answer.generation import Row, decode_rows
from tunelab.answer.talk import Talk


@dataclass(frozen=True)
class Part:
    """Some rows of a talk."""

    talk: Talk
    rows: Sequence[int]


def result_of(talk: Talk, row: int) -> Result | None:
    """What answers a row; None: the base, which a result at strength 0 is.

    Raises:
        UserError: it is not there any more.
    """
    column = talk.question.columns[talk.rows[row].column]
    run = column.opened_run
    if run is None or column.strength == 0:
        return None
    run.check_result()
    return Result.of(run, column.strength)


def in_turns(resident: Resident, parts: Sequence[Part]) -> Iterator[None]:
    """Tell every talk the tokens of its rows; it pauses after each. All are decoded alike."""
    every = [(part.talk, row) for part in parts for row in part.rows]
    prompts = [talk.rows[row].prompt for talk, row in every]
    turns = resident.turns([result_of(talk, row) for talk, row in every], prompts)
    # a turn changes what is attached to the model, which is not done for nobody
    while not all(part.talk.is_cancelled() for part in parts) and (turn := next(turns, None)):
        yield from _turn(turn, [every[place] for place in turn.rows])
    for part in parts:
        part.talk.end(part.rows)


def _turn(turn: Turn, lines: Sequence[tuple[Talk, int]]) -> Iterator[None]:
    for talk, row in lines:
        talk.begin([row])
    rows = [Row(talk.rows[row].prompt, talk.longest, talk.rows[row].seed, talk.is_cancelled) for talk, row in lines]
    first = lines[0][0]
    for step in decode_rows(turn.decoders, rows, end_ids=first.end_ids, temperature=first.question.temperature):
        _tell(lines, step)
        yield
    for talk, row in lines:
        if not talk.is_cancelled():
            talk.end([row])


def _tell(lines: Sequence[tuple[Talk, int]], step: Sequence[int | None]) -> None:
    heard: dict[Talk, list[tuple[int, int | None]]] = {}
    for (talk, row), token in zip(lines, step, strict=True):
        heard.setdefault(talk, []).append((row, token))
    for talk, said in heard.items():
        if not talk.is_over and any(token is not None for _row, token in said):
            try:
                talk.hear(*zip(*said, strict=True))
            except Exception as error:  # of this talk alone
                talk.fail(error)
