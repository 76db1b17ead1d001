"""A chat template as a function from turns to text, and questions that probes answer: render, and look at the text.

Nothing is known of templates but what they write. A base model without one gets `PLAIN_TEMPLATE`.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tunelab.data.examples import Message

PLAIN_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + '\n\n' }}"
    "{% elif m['role'] == 'user' %}{{ '### Question:\n' + m['content'] + '\n\n' }}"
    "{% else %}{{ '### Answer:\n' + m['content'] + (eos_token or '') + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Answer:\n' }}{% endif %}"
)
SYSTEM, ASKED, ANSWERED, ASKED_AGAIN = (
    Message("system", "Qsystem"),
    Message("user", "Qasked"),
    Message("assistant", "Qanswered"),
    Message("user", "Qagain"),
)
CALLING = Message(
    "assistant",
    "",
    extra='{"tool_calls": [{"type": "function", "id": "Qcall0001", "function": {"name": "Qtool", "arguments": {}}}]}',
)
RESULT = Message("tool", "Qresult", extra='{"tool_call_id": "Qcall0001", "name": "Qtool"}')
THOUGHT_TAG = re.compile(r"[<\[]/?[^<>\[\]\s/]*(?:think|thought|reason)[^<>\[\]\s/]*[>\]]", re.IGNORECASE)
MARKER = re.compile(r"[<\[]/?[|｜]?[A-Za-z][^<>\[\]\n]{0,40}[|｜]?[>\]]")  # <|user|>, [/INST], <end_of_turn>
LONGEST_REASON = 120  # characters


def shared_start(one: str, other: str) -> str:
    """The beginning that two texts have in common."""
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


class CantRender(Exception):
    """The template does not write these turns; the message says why, in a clause."""

    def __init__(self, reason: str, *, hopeless: bool = False) -> None:
        super().__init__(reason)
        self.hopeless = hopeless  # it writes no turns at all


class Template:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = weakref.ref(tokenizer)
        self.is_plain = not tokenizer.chat_template

    @property
    def tokenizer(self) -> Any:
        tokenizer = self._tokenizer()
        assert tokenizer is not None, "the tokenizer is gone"
        return tokenizer

    def render(self, turns: Sequence[Message], generation_prompt: bool) -> str:
        """The turns as text, `generation_prompt` with what stands before an answer.

        Raises:
            CantRender: the template raises.
        """
        from jinja2.exceptions import TemplateError

        try:
            return self.tokenizer.apply_chat_template(
                [{"role": turn.role, "content": turn.content} | json.loads(turn.extra or "{}") for turn in turns],
                tokenize=False,
                add_generation_prompt=generation_prompt,
                chat_template=PLAIN_TEMPLATE if self.is_plain else None,
            )
        except (TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CantRender(f"the chat template says: {reason[:LONGEST_REASON]}") from None

    def around(self, turns: Sequence[Message], generation_prompt: bool) -> list[str]:
        """What the template writes before, between and after the contents of these turns.

        Raises:
            CantRender: it raises, or leaves one of them out.
        """
        rest, pieces = self.render(turns, generation_prompt), []
        for turn in turns:
            before, found, rest = rest.partition(turn.content)
            if not found:
                raise CantRender(f"the chat template leaves out the turn of the {turn.role}")
            pieces.append(before)
        return [*pieces, rest]

    @cached_property
    def opening(self) -> list[Message]:
        """What a conversation has to begin with, before the user's turn: nothing, or a system text."""
        return [] if self._writes(ASKED) or not self._writes(SYSTEM, ASKED) else [SYSTEM]

    @cached_property
    def failure(self) -> str | None:
        """Why a question and its answer are not written at all, e.g. where turns have to have another form than text;
        None where they are."""
        try:
            self.around([*self.opening, ASKED], generation_prompt=True)
            self.around([*self.opening, ASKED, ANSWERED], generation_prompt=False)
        except CantRender as error:
            return str(error)
        return None

    @cached_property
    def has_system_role(self) -> bool:
        return self._writes(SYSTEM, ASKED)

    @cached_property
    def takes_turns_of_one_role(self) -> bool:
        """Whether a user's turn may follow a user's turn."""
        return self._writes(*self.opening, ASKED, ASKED_AGAIN)

    @cached_property
    def takes_tools(self) -> bool:
        """Whether calls of tools and their results are written."""
        try:
            text = self.render([*self.opening, ASKED, CALLING, RESULT, ANSWERED], generation_prompt=False)
        except CantRender:
            return False
        return "Qtool" in text and "Qresult" in text

    @cached_property
    def after_answer(self) -> str:
        """What stands after the last answer of a conversation; nothing where an answer can't be rendered."""
        return self._piece([*self.opening, ASKED, ANSWERED], False, -1)

    @cached_property
    def after_earlier_answer(self) -> str:
        """What stands between an answer and the user's next words; nothing where that can't be rendered."""
        return self._piece([*self.opening, ASKED, ANSWERED, ASKED_AGAIN], False, -2)

    @cached_property
    def before_everything(self) -> str:
        """What stands before the first words of a conversation."""
        first = [SYSTEM, ASKED] if self.has_system_role else [ASKED]
        return self._piece(first, True, 0)

    @cached_property
    def before_answer(self) -> str:
        """What stands between the user's words and the answer, as an answer is asked for."""
        return self._piece([*self.opening, ASKED], True, -1)

    @cached_property
    def between_turns(self) -> str:
        """Everything that ends a turn or begins another, without what stands around thoughts."""
        system = self._piece([SYSTEM, ASKED], True, 1) if self.has_system_role else ""
        after = shared_start(self.after_answer, self.after_earlier_answer) or self.after_answer
        return "\n".join((self.before_answer, after, self.after_earlier_answer, system))

    def _writes(self, *turns: Message) -> bool:
        try:
            self.around(turns, generation_prompt=True)
        except CantRender:
            return False
        return True

    def _piece(self, turns: Sequence[Message], generation_prompt: bool, place: int) -> str:
        try:
            return self.around(turns, generation_prompt)[place]
        except CantRender:
            return ""
