"""What people ask of the thread that owns the models, and what it tells them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tunelab.answer.question import Comparison, Question
from tunelab.errors import UserError, explain

if TYPE_CHECKING:
    from tunelab.answer.talk import Talk

UNREAD = 256  # updates that wait to be read; of a reader who is further behind, the oldest are forgotten


class Request:
    """Questions that came at once: one whose answers are told as they grow, or several of a set of prompts, of which
    each is told when it is done."""

    def __init__(self, questions: Sequence[Question], *, growing: bool) -> None:
        assert questions
        self.questions, self.growing = tuple(questions), growing
        self.number = 0  # in the order they came
        self._open = set(range(len(questions)))
        self._told: deque[tuple[int, Comparison]] = deque(maxlen=UNREAD if growing else None)
        self._error: BaseException | None = None
        self._news = threading.Condition()
        self._said: str | None = None
        self.prepared: Talk | None = None  # made before there was room for it

    @property
    def is_cancelled(self) -> bool:
        return all(question.cancel.is_set() for question in self.questions)

    @property
    def is_over(self) -> bool:
        return not self._open or self._error is not None

    def tell(self, place: int, comparison: Comparison) -> None:
        """What there is to say of a question now; the one that is `done` is the last."""
        with self._news:
            if place not in self._open:
                return
            if self.growing or comparison.done:
                self._told.append((place, comparison))
            if comparison.done:
                self._open.discard(place)
            self._news.notify_all()

    def say(self, note: str | None) -> None:
        """Why nothing is answered yet; said once."""
        if note != self._said and note and self.growing:
            self.tell(0, self.questions[0].untold(note))
        self._said = note

    def fail(self, place: int, error: BaseException) -> None:
        """A question can't be answered. One of several is told so; the rest goes on."""
        known = explain(error) if isinstance(error, Exception) else None
        if known is None or self.growing:
            with self._news:
                self._error = self._error or for_answers(error)
                self._news.notify_all()
        else:
            self.tell(place, self.questions[place].untold(done=True, error=str(for_answers(error))))

    def fail_all(self, error: BaseException) -> None:
        for place in sorted(self._open):
            self.fail(place, error)

    def cancel_all(self) -> None:
        """Nothing more is answered, because nobody wants to know."""
        for place in sorted(self._open):
            self.tell(place, self.questions[place].untold("Cancelled before there was an answer.", done=True))

    def updates(self) -> Iterator[tuple[int, Comparison]]:
        """What is told, with the question's place, until everything is done.

        Raises:
            UserError: it can't be answered.
        """
        while True:
            with self._news:
                self._news.wait_for(lambda: self._told or self.is_over)
                if not self._told:
                    break
                update = self._told.popleft()
            yield update
        if self._error is not None:
            raise self._error


def for_answers(error: BaseException) -> BaseException:
    """The error in words for who asks; want of memory is no matter of training settings here."""
    known = explain(error) if isinstance(error, Exception) else None
    if known is None or not known.startswith("Not enough memory"):
        return error
    return UserError(
        "Not enough memory for these answers. Ask fewer columns or seeds at once, shorten the prompt or "
        "max_new_tokens, or wait until others are answered."
    )
