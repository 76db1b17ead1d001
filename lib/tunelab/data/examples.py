"""What a row becomes: a conversation, or plain text. Everything behind the readers works on these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True)
class Example:
    """One row to learn from: `messages` of a conversation, or the `text` of a plain-text stage."""

    messages: tuple[Message, ...] = ()
    text: str | None = None
    row: int = 0  # in its source, counted from 1
    whole: bool = True  # False: plain text that goes on elsewhere, so that nothing ends where it ends

    @property
    def prompt(self) -> str:
        """What the user says last before the final answer."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), self.text or "")

    @property
    def answer(self) -> str:
        """The final assistant turn: the reference a tuned model is measured against."""
        return next((m.content for m in reversed(self.messages) if m.role == "assistant"), "")

    @property
    def asked(self) -> tuple[Message, ...]:
        """The conversation up to the final answer."""
        last = max((i for i, m in enumerate(self.messages) if m.role == "assistant"), default=len(self.messages))
        return self.messages[:last]


@dataclass(frozen=True)
class DataSplit:
    """Rows to train on and rows to measure with, and what there is to know about them."""

    name: str
    train: list[Example]
    heldout: list[Example]
    sha256: str  # over every row used: a resumed run learns from the same data or not at all
    notes: tuple[str, ...] = ()
    unused: tuple[Example, ...] = ()  # training rows beyond `limit`
