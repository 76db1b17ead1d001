"""The words of the field, each explained in a sentence: what app and notebooks show on a term that a beginner meets.

The words stand in `glossary.toml`. `linked` finds them in a text; who shows the text decides what a found term looks
like, and escapes it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

# what may stand beside a term: 'step' is none of 'footstep', 'step-by-step', 'step_size', 'step.py' or '/step'
BEFORE, AFTER = r"(?<![\w\-/.@#])", r"(?![\w\-/@]|\.\w)"


@dataclass(frozen=True)
class Entry:
    """A term and what it means."""

    term: str
    theme: str  # the heading it stands under
    short: str  # one or two plain sentences, at most 220 characters
    more: str  # further sentences: the formula, what to watch for, the paper it is from
    spellings: tuple[str, ...] = ()  # other ways to write it
    marked: bool = True  # False: an everyday word, which `linked` leaves alone

    def __str__(self) -> str:
        return f"{self.term}: {self.short} {self.more}"

    @property
    def anchor(self) -> str:
        """The term as a part of an address: 'held-out-row'."""
        return re.sub(r"\W+", "-", self.term.casefold().replace("³", "3")).strip("-")


@dataclass(frozen=True)
class Segment:
    """A piece of a text; where it is a term, with its entry."""

    text: str
    entry: Entry | None = None


@cache
def glossary() -> dict[str, Entry]:
    """Every entry by its term, theme by theme. Not to be changed: all who ask are given the same."""
    themes = tomllib.loads((files("tunelab") / "glossary.toml").read_text(encoding="utf-8"))
    return {
        term: Entry(term, theme, **{**fields, "spellings": tuple(fields.get("spellings", ()))})
        for theme, terms in themes.items()
        for term, fields in terms.items()
    }


def entry(term: str) -> Entry:
    """The entry of a term, however it is written: 'nats', 'Nat', 'LoRA rank'.

    Raises:
        KeyError: there is none.
    """
    found = _known().get(term) or _known().get(term.casefold())
    if found is None:
        raise KeyError(f"the glossary has no '{term}'")
    return found


def linked(text: str, seen: set[str] | None = None) -> list[Segment]:
    """The text in pieces, the first occurrence of each term with its entry; joined, they are the text again.

    The longest term wins ('learning rate schedule', not 'learning rate'). seen: terms that were marked before and are
    left alone; those found here are added.
    """
    seen = set() if seen is None else seen
    segments, done = [], 0
    for match in _pattern().finditer(text):
        found = _written(match[0])
        if found is None or found.term in seen:
            continue
        seen.add(found.term)
        segments += [Segment(text[done : match.start()]), Segment(match[0], found)]
        done = match.end()
    return [segment for segment in [*segments, Segment(text[done:])] if segment.text]


@cache
def _known() -> dict[str, Entry]:
    """Entries by every spelling, as it stands and in small letters."""
    known: dict[str, Entry] = {}
    for one in glossary().values():
        for spelling in (one.term, *one.spellings):
            known.setdefault(spelling, one)
            known.setdefault(spelling.casefold(), one)
    return known


def _written(word: str) -> Entry | None:
    """The entry of a word as it stands in a text: with its plural's ending or without, capitals where they belong."""
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        for spelling in (form, form.casefold()):
            if spelling in _marked():
                return _marked()[spelling]
    return None


@cache
def _marked() -> dict[str, Entry]:
    """Entries by the spellings that texts are searched for."""
    return {spelling: one for one in glossary().values() if one.marked for spelling in (one.term, *one.spellings)}


@cache
def _pattern() -> re.Pattern[str]:
    """Every spelling as a whole word, the longest first."""
    each = [
        re.escape(spelling) if spelling != spelling.casefold() else f"(?i:{re.escape(spelling)})"
        for spelling in sorted(_marked(), key=len, reverse=True)
    ]
    return re.compile(f"{BEFORE}(?:{'|'.join(each)})(?:es|s)?{AFTER}")
