"""How far a measurement is, as its messages say it: `Part` begins a part, `Count` says how many of its rows are done.

plan (every part of a run) ──> Part, Count, Count, …, Part, … ──> Course.hear ──> how many rows, how much time is left
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

SAID_EVERY = 3.0  # seconds between two messages about the same thing
# how long a row takes beside others, until it has been measured: of each kind of part
WEIGHTS = {"losses": 1.0, "questions": 4.0, "answers": 8.0}


class Planned(NamedTuple):
    """A part: what is made of its rows ('losses', 'questions', 'answers'), and how many there are."""

    kind: str
    rows: int


class Part(str):
    """A message that begins a part; `after` is what its run has left then."""

    planned: Planned
    after: tuple[Planned, ...]

    @classmethod
    def made(cls, message: str, planned: Planned, after: Sequence[Planned]) -> Part:
        made = cls(message)
        made.planned, made.after = planned, tuple(after)
        return made


class Count(str):
    """A message that says how many of a part's rows are done; as numbers `done` and `of`. `known` of them were read
    from disk, which takes no time."""

    done: int
    of: int
    known: int

    @classmethod
    def made(cls, message: str, done: int, of: int, known: int = 0) -> Count:
        made = cls(message)
        made.done, made.of, made.known = done, of, known
        return made


class Counting:
    """Says every few seconds how many of something are done, and how long the others will take; `known` of them are
    there already."""

    def __init__(self, what: str, count: int, say: Callable[[str], None], known: int = 0) -> None:
        self.what, self.count, self.say, self.known = what, count, say, known
        self.done, self.began = known, time.monotonic()
        self.said = self.began

    def add(self, more: int) -> None:
        self.done += more
        now = time.monotonic()
        if now - self.said >= SAID_EVERY and self.known < self.done < self.count:
            self.said = now
            left = (now - self.began) / (self.done - self.known) * (self.count - self.done)
            words = f"{self.what}: {self.done:,} of {self.count:,}, about {duration(left)} left"
            self.say(Count.made(words, self.done, self.count, self.known))


class Course:
    """A measurement of so many runs, as its messages tell it."""

    def __init__(self, runs: int) -> None:
        self.runs_left = runs  # behind the one that is measured
        self.message, self.part = "", 0
        self._before: list[Planned] = []
        self._now = Planned("losses", 0)
        self._after: tuple[Planned, ...] = ()
        self._of_a_run: tuple[Planned, ...] = ()
        self._done, self._share, self._began = 0, 0.0, time.monotonic()
        self._paces: dict[str, tuple[float, int]] = {}  # seconds and rows that were measured, by kind
        self._in_part: tuple[float, int] = (0.0, 0)

    def hear(self, message: str) -> None:
        """Take a message in; one that is neither a part nor a count changes the words alone."""
        self.message = message
        if isinstance(message, Part):
            self._begin(message)
        elif isinstance(message, Count):
            self._done = min(message.done, self._now.rows)
            self._in_part = (time.monotonic() - self._began, message.done - message.known)

    def _begin(self, part: Part) -> None:
        if self.part:
            self._before.append(self._now)
        if not self._after:  # the first part of a run
            self.runs_left -= 1
            self._of_a_run = (part.planned, *part.after)
        self._paces[self._now.kind] = self._pace(self._now.kind)
        self._in_part = (0.0, 0)
        self.part += 1
        self._now, self._after, self._done, self._began = part.planned, part.after, 0, time.monotonic()

    @property
    def parts(self) -> int:
        return max(self.part, self.part + len(self._after) + self.runs_left * len(self._of_a_run))

    @property
    def rows_done(self) -> int:
        return sum(one.rows for one in self._before) + self._done

    @property
    def rows(self) -> int:
        return sum(one.rows for one in (*self._before, self._now, *self._left))

    @property
    def share(self) -> float:
        """How much of the work is done, 0 to 1; it never falls, also where a part has more rows than was planned."""
        done = sum(map(_work, self._before)) + self._done * WEIGHTS[self._now.kind]
        work = sum(map(_work, (*self._before, self._now, *self._left)))
        self._share = max(self._share, min(1.0, done / work if work else 0.0))
        return self._share

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take, as rows of its kinds took until now; None: nothing was measured yet."""
        paces = {kind: self._pace(kind) for kind in WEIGHTS}
        measured = {kind: seconds / rows for kind, (seconds, rows) in paces.items() if rows}
        if not measured:
            return None
        # a kind that was not measured yet takes as long beside the others as its weight says
        of_a_weight = sum(pace / WEIGHTS[kind] for kind, pace in measured.items()) / len(measured)
        rest = (Planned(self._now.kind, self._now.rows - self._done), *self._left)
        return sum(one.rows * measured.get(one.kind, of_a_weight * WEIGHTS[one.kind]) for one in rest)

    @property
    def _left(self) -> tuple[Planned, ...]:
        return (*self._after, *self._of_a_run * max(0, self.runs_left))

    def _pace(self, kind: str) -> tuple[float, int]:
        seconds, rows = self._paces.get(kind, (0.0, 0))
        if kind == self._now.kind:
            seconds, rows = seconds + self._in_part[0], rows + self._in_part[1]
        return seconds, rows


def _work(part: Planned) -> float:
    return part.rows * WEIGHTS[part.kind]


def duration(seconds: float) -> str:
    """About how long, for people: '40 s', '3 min'."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
