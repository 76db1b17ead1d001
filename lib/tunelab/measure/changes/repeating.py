"""Whether a text goes round in circles, as models do that never stop."""

from __future__ import annotations

from tunelab.measure.changes.wording import runs, words

LEAST_WORDS, RUN, MOST_REPEATED = 20, 4, 0.5  # of four words that follow each other, half are there already
TAIL, LEAST_TAIL, TIMES = 2000, 24, 4  # characters of the end that are looked at


def repeats_itself(text: str) -> bool:
    """Whether more than half of all runs of four words are there already, or the text ends in something that it says at
    least four times without a break."""
    said = words(text)
    all_runs = len(said) - RUN + 1
    if len(said) >= LEAST_WORDS and len(runs(said, RUN)) < (1 - MOST_REPEATED) * all_runs:
        return True
    return _loops_at_the_end(text.rstrip()[-TAIL:])


def _loops_at_the_end(text: str) -> bool:
    """A text ends in so many copies of `period` characters as its reverse agrees with itself, moved by `period`."""
    backwards = text[::-1]
    for period, agreeing in enumerate(agreement(backwards)):
        if period and period + agreeing >= max(LEAST_TAIL, TIMES * period) and backwards[:period].strip(" \n-=_.*#|:"):
            return True
    return False


def agreement(text: str) -> list[int]:
    """Of each place, how many letters from there on are those the text begins with (the Z function, in linear time)."""
    agreeing = [0] * len(text)
    left = right = 0
    for place in range(1, len(text)):
        if place < right:
            agreeing[place] = min(right - place, agreeing[place - left])
        while place + agreeing[place] < len(text) and text[agreeing[place]] == text[place + agreeing[place]]:
            agreeing[place] += 1
        if place + agreeing[place] > right:
            left, right = place, place + agreeing[place]
    return agreeing
