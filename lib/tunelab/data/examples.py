"""What a row becomes: a conversation, or plain text. Everything behind the readers works on these."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from tunelab.errors import UserError

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    role: Role
    content: str
    learned: bool = True  # False: an assistant's turn that is read only (OpenAI's weight 0)
    extra: str = ""  # what a chat template with tools reads beside the content, as a JSON object

    @property
    def is_answer(self) -> bool:
        """Whether it can be learned: words of the assistant that nobody has excluded."""
        return self.role == "assistant" and self.learned and bool(self.content.strip())

    @property
    def as_json(self) -> list[object]:
        """Everything that it is, for hashing and for files."""
        return [self.role, self.content, *([self.learned, self.extra] if self.extra or not self.learned else [])]

    @property
    def as_row(self) -> dict[str, Any]:
        """As it stands in a file: read again, it is this message."""
        more = json.loads(self.extra) if self.extra else {}
        weight = {"weight": 0} if self.role == "assistant" and not self.learned else {}
        return {"role": self.role, "content": self.content, **more, **weight}


@dataclass(frozen=True)
class Example:
    """One row to learn from: `messages` of a conversation, or the `text` of a plain-text stage."""

    messages: tuple[Message, ...] = ()
    text: str | None = None
    row: int = 0  # in its source, counted from 1
    whole: bool = True  # False: plain text that goes on elsewhere, so that nothing ends where it ends
    group: str = ""  # whom or what it is of, e.g. a customer: rows of one group stay on one side; "": of nobody

    @property
    def as_row(self) -> dict[str, Any]:
        """As it stands in a file: `messages` or `text`, and `group` where it has one."""
        group = {"group": self.group} if self.group else {}
        if self.text is not None:
            return {"text": self.text, **group}
        return {"messages": [message.as_row for message in self.messages], **group}

    @property
    def texts(self) -> list[str]:
        """The words of all its turns, or its plain text."""
        return [m.content for m in self.messages] if self.text is None else [self.text]

    def with_texts(self, change: Callable[[str], str]) -> Example:
        """The row with each of its texts as `change` makes it; itself where nothing changes."""
        before = self.texts
        after = [change(text) for text in before]
        if after == before:
            return self
        if self.text is not None:
            return replace(self, text=after[0])
        return replace(self, messages=tuple(map(_saying, self.messages, after)))

    @property
    def prompt(self) -> str:
        """What the user says last before the final answer."""
        return next((m.content for m in reversed(self.asked) if m.role == "user"), self.text or "")

    @property
    def answer(self) -> str:
        """The final answer: the reference a tuned model is measured against."""
        return self.messages[self._last].content if self._last < len(self.messages) else ""

    @property
    def asked(self) -> tuple[Message, ...]:
        """The conversation up to the final answer."""
        return self.messages[: self._last]

    @cached_property
    def _last(self) -> int:
        for place in range(len(self.messages) - 1, -1, -1):
            if self.messages[place].is_answer:
                return place
        return len(self.messages)


def _saying(message: Message, content: str) -> Message:
    return replace(message, content=content)


@dataclass(frozen=True)
class Account:
    """How rows were read, mended and divided, each for itself: together they are what `DataSplit.notes` lists."""

    reason: str = ""  # why these columns
    found: tuple[str, ...] = ()  # every column that holds something
    unused: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()  # the first rows that can't be read: where, and why
    bad_rows: int = 0  # all of them
    reading: tuple[
        str, ...
    ] = ()  # what else is said of the file and its columns: what is left out, cut, read otherwise
    mended: tuple[str, ...] = ()  # what each fix did
    dividing: tuple[str, ...] = ()  # what is said of the division
    drawn: bool = True  # held-out rows are drawn from the others; False: they are a part or a file of their own


@dataclass(frozen=True)
class DataSplit:
    """Rows to train on and rows to measure with, and what there is to know about them."""

    name: str
    train: Sequence[Example]
    heldout: Sequence[Example]
    sha256: str  # over every row used: a resumed run learns from the same data or not at all
    notes: tuple[str, ...] = ()
    unused: Sequence[Example] = ()  # training rows beyond `limit`
    columns: dict[str, str] = field(default_factory=dict)  # the column of each role, as `DataSpec.columns` takes it
    account: Account = field(default_factory=Account)
    problem: str | None = None  # why nothing can be trained on these rows, which can be looked at

    def check(self) -> None:
        """
        Raises:
            UserError: nothing can be trained on these rows.
        """
        if self.problem:
            raise UserError(self.problem)
