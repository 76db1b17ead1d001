"""One text, token by token: how probable base and tuned model find each, which shows where a tuning took hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunelab.data import Example, Message, chat_format, encode_all, pack
from tunelab.errors import UserError
from tunelab.run.run import Run

if TYPE_CHECKING:
    from tunelab.data import Encoded
    from tunelab.losses import Loss
    from tunelab.model.load import Base


@dataclass(frozen=True)
class TokenChange:
    """A token as it is read, or several that are one character together, and log p of base and tuned model in nats;
    None of a token with nothing before it."""

    text: str
    tokens: int
    base: float | None
    tuned: float | None

    @property
    def change(self) -> float | None:
        """tuned - base, nats: positive where the tuned model expected it more."""
        return None if self.base is None or self.tuned is None else self.tuned - self.base


@dataclass(frozen=True)
class TokenChanges:
    """A text's tokens in their order, and log p of all of them, in nats."""

    tokens: tuple[TokenChange, ...]
    scored: int  # tokens that have a probability
    notes: tuple[str, ...]

    @property
    def base(self) -> float:
        return sum(token.base or 0.0 for token in self.tokens)

    @property
    def tuned(self) -> float:
        return sum(token.tuned or 0.0 for token in self.tokens)


def token_changes(run: Run, text: str, *, prompt: str | None = None, system: str | None = None) -> TokenChanges:
    """log p of each token of a text under a run's base and under its result. With a `prompt` the text is the answer to
    it, its end of turn included (`system` None: the run's own; "": none); without one it is plain text. Plain text
    longer than the run's rows is read in blocks, an answer is cut there; the notes say so.

    Raises:
        UserError: the text has nothing to score, or the run has no adapter.
    """
    from tunelab.fast import choose_loss
    from tunelab.measure.sides import loaded

    if not text.strip():
        raise UserError("text is empty: give one whose tokens can be scored.")
    run.check_result()
    base, model = loaded(run)
    technique = run.config.technique
    rows, notes = _rows(run, base, text, prompt, system)
    loss = choose_loss(model, technique)
    tuned = [_log_p(loss, row, base) for row in rows]
    with technique.off(model):
        before = [_log_p(loss, row, base) for row in rows]
    skipped = len(chat_format(base.tokenizer).text_start) if prompt is None else 0
    found: list[TokenChange] = []
    for number, (row, base_log_p, tuned_log_p) in enumerate(zip(rows, before, tuned, strict=True)):
        start = (skipped if number == 0 else 0) if prompt is None else row.scored.index(True)
        found += _changes(base.tokenizer, row, start, base_log_p, tuned_log_p)
    return TokenChanges(tuple(found), sum(sum(row.scored[1:]) for row in rows), tuple(notes))


def _rows(run: Run, base: Base, text: str, prompt: str | None, system: str | None) -> tuple[list[Encoded], list[str]]:
    """The rows to score, and notes.

    Raises:
        UserError: none has anything to score.
    """
    longest = _longest_row(run)
    if prompt is None:
        (whole, *_), notes = encode_all([Example(text=text, whole=False)], base.tokenizer, longest)
        rows = pack([whole], longest)
        if len(rows) > 1:
            notes.append(
                f"The text has {len(whole.input_ids):,} tokens and is read in {len(rows)} blocks of {longest}: each "
                "begins anew, and its first token has no probability."
            )
    else:
        system = run.config.stages[run.stage].data.system if system is None else system
        opening = [Message("system", system)] if system and system.strip() else []
        turns = [*opening, Message("user", prompt), Message("assistant", text)]
        rows, notes = encode_all([Example(messages=tuple(turns))], base.tokenizer, longest)
    if not rows:
        raise UserError(
            f"There is nothing to score: the text is a single token, or the prompt alone fills the {longest} tokens of "
            "a row. Give a longer text, or a shorter prompt."
        )
    return rows[-1:] if prompt is not None else rows, notes


def _longest_row(run: Run) -> int:
    from tunelab.model.load import find
    from tunelab.model.positions import row_limit

    model = run.base_spec
    return row_limit(find(model), model, run.config.technique.positions_taken).tokens


def _log_p(loss: Loss, row: Encoded, base: Base) -> list[float | None]:
    """log p of each token of a row; None of those that are not scored."""
    from tunelab.data.batches import collate
    from tunelab.losses import token_losses

    losses = iter(token_losses(loss, collate([row], base.pad_id).to(base.device)).tolist())
    return [-next(losses) if scored and place else None for place, scored in enumerate(row.scored)]


def _changes(
    tokenizer: Any, row: Encoded, start: int, base: list[float | None], tuned: list[float | None]
) -> list[TokenChange]:
    """The tokens of a row from `start` on; of those that are one character together, the log p of all."""
    return [
        TokenChange(text, end - first, _sum(base[first:end]), _sum(tuned[first:end]))
        for first, end, text in pieces(tokenizer, row.input_ids)
        if first >= start
    ]


def _sum(log_p: list[float | None]) -> float | None:
    known = [one for one in log_p if one is not None]
    return sum(known) if known else None


def pieces(tokenizer: Any, ids: list[int]) -> list[tuple[int, int, str]]:
    """Where each piece of text begins and ends in `ids`, and how it reads after the one before it: a token, or as many
    as it takes to complete a character. Joined, the pieces are the text."""

    def read(first: int, end: int) -> str:
        return str(tokenizer.decode(ids[first:end], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    found: list[tuple[int, int, str]] = []
    before = start = 0  # a tokenizer may leave out the space at the beginning of a text: one piece stands before
    for end in range(1, len(ids) + 1):
        text = read(before, end)
        if text.endswith("\ufffd") and end < len(ids):
            continue
        found.append((start, end, text[len(read(before, start)) :]))
        before, start = start, end
    return found
