"""What the cells of a tutorial answer a learner with: whether something has been written, and how good a guess was.

    filled(value, hint)                   the value; while the learner's cell is empty, an error that is the hint
    scored(my_guess, measured, unit)      the guess beside what was measured, in a sentence
    words("loss", "nats")                 what these words mean, as the app's glossary has it

A cell that a learner has not written yet holds `...`, so that its names are `...` and its functions return None.
"""

from __future__ import annotations

from typing import Any, TypeVar

from tunelab.glossary import entry
from tunelab.measure.markup import render
from tunelab.measure.shown import Shown

T = TypeVar("T")

EMPTY = "Nothing written yet. "
NO_GUESS = (
    "No guess yet. Write yours in the place of the dots of `my_guess = ...`, run that cell, then this one: a wrong "
    "guess teaches as much as a right one."
)
NEAR, FAR = 1.1, 2.0  # factors: up to here a guess is right, and from there on it is far off


class NotYet(AssertionError):
    """A cell that a learner has still to write. Shown by its words alone: the calls behind it are not theirs."""

    def _render_traceback_(self) -> list[str]:  # asked for by IPython in the place of a traceback
        return [str(self)]


def filled(value: T | None, hint: str) -> T:
    """`value`, made by what a learner wrote.

    Raises:
        NotYet: it is `...` or None, as an empty cell leaves it; the words are the hint.
    """
    if value is None or value is ...:
        raise NotYet(f"{EMPTY}{hint}")
    return value


def scored(my_guess: Any, measured: Any, unit: str = "") -> None:
    """Print a guess beside what was measured, and how far it was off: a number by its factor, a word or a truth value
    by whether it is the same, an order by how many of it are in their place.

    Raises:
        NotYet: nothing was guessed.
        TypeError: a number or an order was measured and something else guessed.
    """
    if my_guess is ...:
        raise NotYet(NO_GUESS)
    print(f"guessed {_shown(my_guess, unit)}, measured {_shown(measured, unit)}: {_judged(my_guess, measured)}")


def words(*terms: str) -> Shown:
    """What each term means, one below the other.

    Raises:
        KeyError: the glossary does not have one.
    """
    entries = [entry(term) for term in terms]
    html = render("tunelab.measure", "shown_words.html", entries=entries)
    return Shown(html, "\n".join(f"{one.term}: {one.short}" for one in entries))


def _judged(guess: Any, measured: Any) -> str:
    if isinstance(measured, bool | str):
        return "right" if _same(guess, measured) else "not so"
    if isinstance(measured, list | tuple):
        if not isinstance(guess, list | tuple):
            raise TypeError(f"my_guess = {guess!r}: an order was measured, so write a list.")
        return f"{sum(map(_same, guess, measured))} of {len(measured)} in their place"
    if isinstance(guess, bool) or not isinstance(guess, int | float):
        raise TypeError(f"my_guess = {guess!r}: a number was measured, so write a number.")
    small, large = sorted((float(guess), float(measured)))
    if small == large:
        return "right"
    if small <= 0:  # no factor leads from one to the other
        return f"off by {_number(large - small)}"
    factor = large / small
    if factor < NEAR:
        return "right"
    return f"{_number(factor)} times too {'high' if guess > measured else 'low'}{', not far' if factor < FAR else ''}"


def _same(guess: Any, measured: Any) -> bool:
    return str(guess).strip().casefold() == str(measured).strip().casefold()


def _shown(value: Any, unit: str) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{_number(value)} {unit}".strip() if number else str(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
