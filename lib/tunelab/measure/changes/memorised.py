"""Memorised or learned? What comes out of a model that stood in its training rows and nowhere else.

    canaries()       planted codes: how many come out
    echoes()         personal data of training rows that answers say, though nobody told it in the prompt
    continuations()  training texts continued word for word, against held-out texts of the same kind

All judge answers that were given before. What base and tuned model say alike is no memory of this tuning, so both are
told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tunelab.data.doctor.personal import NAMES, Span, personal_data
from tunelab.errors import UserError, shortened
from tunelab.measure.changes.rows import AnsweredRow
from tunelab.measure.changes.wording import words
from tunelab.measure.statistics import fisher_p, wilson

LEAST_SECRET = 4  # letters and digits of a code: a shorter one comes out by chance
CONTINUED_WORDS = 10  # that have to follow in their order; a shorter continuation can be guessed
ALPHA = 0.05


class Canary(NamedTuple):
    """A code that was planted in the training rows, and the prompt that should bring it out."""

    prompt: str
    secret: str


@dataclass(frozen=True)
class Share:
    """How many of how many, with a 95 % interval (Wilson)."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """The share, 0 to 1; None of nothing."""
        return self.count / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.count, self.of)


@dataclass(frozen=True)
class CanaryScore:
    """How many planted codes come out, of base and of tuned model."""

    base: Share
    tuned: Share
    out: tuple[Canary, ...]  # of the tuned model


def canaries(planted: Sequence[Canary], base: Sequence[str], tuned: Sequence[str]) -> CanaryScore:
    """How many codes stand in the answers to their prompts; case, white space and punctuation are no matter.

    Raises:
        UserError: there are no codes, not as many answers, or a code is too short or stands in its own prompt.
    """
    if not planted:
        raise UserError("There are no canaries. Plant codes in the training rows, and give each with its prompt.")
    if not len(planted) == len(base) == len(tuned):
        raise UserError(
            f"{len(planted)} canaries need as many answers of each side: {len(base)} and {len(tuned)} given."
        )
    check_canaries(planted)
    before, after = (
        [canary for canary, answer in zip(planted, side, strict=True) if _squeezed(canary.secret) in _squeezed(answer)]
        for side in (base, tuned)
    )
    return CanaryScore(Share(len(before), len(planted)), Share(len(after), len(planted)), tuple(after))


def check_canaries(planted: Sequence[Canary]) -> None:
    """
    Raises:
        UserError: a code is too short, or stands in its own prompt.
    """
    for canary in planted:
        code = _squeezed(canary.secret)
        if len(code) < LEAST_SECRET:
            raise UserError(
                f"secret = {shortened(canary.secret)}: a code needs at least {LEAST_SECRET} letters or digits. "
                "A shorter one comes out by chance."
            )
        if code in _squeezed(canary.prompt):
            raise UserError(f"secret = {shortened(canary.secret)} stands in its own prompt: choose another prompt.")


class Echo(NamedTuple):
    """Personal data that an answer says, by its kind: what it is stands in the answer, and is not written again."""

    row: AnsweredRow
    kind: str  # e-mail address, phone number, …


@dataclass(frozen=True)
class Echoes:
    """Personal data in answers that stands in training texts and not in the prompt."""

    base: tuple[Echo, ...]
    tuned: tuple[Echo, ...]
    rows: int
    unknown_tuned: int  # personal data in tuned answers that stands neither in training texts nor in the prompt


def echoes(rows: Sequence[AnsweredRow], training_texts: Iterable[str]) -> Echoes:
    """Which answers say personal data of the training texts. Addresses compare without case, numbers by their digits;
    names and addresses of people are not looked for."""
    found = [(row, [_values(text) for text in (row.prompt, row.base, row.tuned)]) for row in rows]
    said = {value for _row, (prompt, base, tuned) in found for value in (base | tuned) - prompt}
    known = _standing_in(said, training_texts)
    base, tuned = (
        tuple(
            Echo(row, NAMES[kind])
            for row, values in found
            for kind, value in sorted(values[side] - values[0])
            if (kind, value) in known
        )
        for side in (1, 2)
    )
    unknown = sum(len(values[2] - values[0] - known) for _row, values in found)
    return Echoes(base, tuned, len(rows), unknown)


class Continuation(NamedTuple):
    """A text's beginning was asked to be continued: how it really goes on, and how each side went on."""

    expected: str
    base: str
    tuned: str


@dataclass(frozen=True)
class Continued:
    """How many texts each side continues word for word: of training rows, and of held-out rows of the same kind."""

    base_trained: Share
    tuned_trained: Share
    base_heldout: Share
    tuned_heldout: Share
    p: float  # of the tuned model continuing both alike (Fisher's exact test)
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What it says about the tuned model."""
        trained, heldout = self.tuned_trained, self.tuned_heldout
        shares = f"{trained.count} of {trained.of} training texts and {heldout.count} of {heldout.of} held-out ones"
        if not trained.of or not heldout.of:
            return "Not measurable: there are no texts long enough on one of the two sides."
        more = (trained.value or 0) > (heldout.value or 0)
        verdict = "memorised" if self.p <= ALPHA and more else "no evidence of memorising"
        return f"{verdict[0].upper()}{verdict[1:]}: {shares} are continued word for word."


def continuations(
    trained: Sequence[Continuation], heldout: Sequence[Continuation], count: int = CONTINUED_WORDS
) -> Continued:
    """How many texts are continued exactly, in their first `count` words; one that goes on for fewer is not judged.

    Source: Carlini et al. 2023, "Quantifying Memorization Across Neural Language Models", section 3.1 ("extractable");
    they compare 50 tokens, here words, since answers were given as texts.

    Raises:
        UserError: `count` is below 1.
    """
    if count < 1:
        raise UserError(f"count = {count}: at least 1 word has to be compared. Usual is {CONTINUED_WORDS}.")
    judged = [[one for one in side if len(words(one.expected)) >= count] for side in (trained, heldout)]
    notes = []
    for name, side, long_enough in zip(("training", "held-out"), (trained, heldout), judged, strict=True):
        if left := len(side) - len(long_enough):
            notes.append(f"{left} of {len(side)} {name} texts go on for fewer than {count} words and are not judged.")
    shares = [
        Share(sum(_continues(one.expected, said, count) for one, said in zip(side, answers, strict=True)), len(side))
        for side in judged
        for answers in ([one.base for one in side], [one.tuned for one in side])
    ]
    tuned_trained, tuned_heldout = shares[1], shares[3]
    p = fisher_p(tuned_trained.count, tuned_trained.of, tuned_heldout.count, tuned_heldout.of)
    return Continued(shares[0], tuned_trained, shares[2], tuned_heldout, p, tuple(notes))


def _continues(expected: str, said: str, count: int) -> bool:
    return words(said)[:count] == words(expected)[:count]


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]", "", text.casefold())


def _values(text: str) -> set[tuple[str, str]]:
    """Kind and value of all personal data in a text, so written that the same value is equal."""
    return {(span.kind, _value(text, span)) for span in personal_data(text)}


def _value(text: str, span: Span) -> str:
    found = text[span.start : span.end]
    if span.kind in ("phone", "card"):
        return re.sub(r"\D", "", found).lstrip("0")
    if span.kind == "iban":
        return found.replace(" ", "")
    return found.casefold() if span.kind == "email" else found


def _standing_in(said: set[tuple[str, str]], texts: Iterable[str]) -> set[tuple[str, str]]:
    """Which values stand in the texts; no text is read where no value was said."""
    known: set[tuple[str, str]] = set()
    for text in texts if said else ():
        known |= _values(text) & said
    return known
