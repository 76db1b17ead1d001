"""How one tokenizer writes conversations: which tokens stand before an answer, which are learned, and what ends it.

    chat_format(tokenizer) ──> ChatFormat ──> encode, answers, evaluation, exports: all ask here

What ends an answer is what the chat template writes after it, found by rendering one, not `eos_token` alone: base
models with ChatML name `<|endoftext|>` there and end turns with `<|im_end|>`. Where the template writes no token, the
end-of-text token is learned after the answer. What is learned is exactly what inference will see: every answer stands
behind the conversation as the template renders it when it is asked for.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from tunelab.data.control import ControlTokens, control_tokens
from tunelab.data.ending import End, find_end
from tunelab.data.examples import Message
from tunelab.data.template import ANSWERED, ASKED, ASKED_AGAIN, THOUGHT_TAG, CantRender, Template, shared_start
from tunelab.data.written import Written, system_in_user, users_joined
from tunelab.errors import UserError

SHOWN_ROLES = 6  # in a message


class ChatFormat:
    """The chat template and the special tokens of a tokenizer as one object. Made by `chat_format`."""

    def __init__(self, tokenizer: Any) -> None:
        self.template = Template(tokenizer)

    @property
    def tokenizer(self) -> Any:
        return self.template.tokenizer

    def tokens(self, text: str) -> list[int]:
        """The text's tokens and no others."""
        return self.tokenizer.encode(text, add_special_tokens=False, verbose=False)

    @cached_property
    def text_start(self) -> list[int]:
        """What the tokenizer itself puts before a text: `<bos>`, or nothing."""
        full, bare = self.tokenizer("x").input_ids, self.tokens("x")
        places = range(len(full) - len(bare) + 1)
        return full[: next((place for place in places if full[place : place + len(bare)] == bare), 0)]

    @property
    def starts_with_bos(self) -> bool:
        """Whether whoever prompts has to put `<bos>` first: text has it, and so have rendered conversations."""
        bos = self.tokenizer.bos_token
        written = self.template.is_plain or (bos and self.template.before_everything.startswith(bos))
        return self.text_start[:1] == [self.tokenizer.bos_token_id] and bool(written)

    @property
    def plain_prompt(self) -> str | None:
        """The form of a prompt, where the tokenizer has no chat template; else None."""
        asked = [Message("user", "{question}")]
        return self.template.render(asked, generation_prompt=True) if self.template.is_plain else None

    @property
    def row_start(self) -> list[int]:
        """What stands before a rendered conversation: a chat template writes `<bos>` itself, if it wants one."""
        return self.text_start if self.template.is_plain else []

    @property
    def row_end(self) -> list[int]:
        """What is put after a conversation: the end-of-text token, where the chat template writes none."""
        return [self.end.id] if self.end and self.end.appended else []

    @cached_property
    def control(self) -> ControlTokens:
        return control_tokens(self.tokenizer, self.template)

    @cached_property
    def end(self) -> End | None:
        """What ends an answer; None where nothing can."""
        return find_end(self.tokenizer, self.template)

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer, the one that is learned first."""
        ids = (self.end.id if self.end else None, self.tokenizer.eos_token_id)
        return tuple(dict.fromkeys(id for id in ids if id is not None))

    @property
    def end_tokens(self) -> dict[str, int]:
        """`end_ids` with their names."""
        return {str(self.tokenizer.convert_ids_to_tokens(id)): id for id in self.end_ids}

    @property
    def end_of_text(self) -> int:
        """The token that ends a document.

        Raises:
            UserError: there is none.
        """
        if not self.end_ids:
            raise UserError(
                "This model's tokenizer names no end-of-text token (eos_token), and its chat template ends an answer "
                "with none: nothing could be learned that stops an answer. Name one as eos_token in the model's "
                "tokenizer_config.json, or choose another model."
            )
        eos = self.tokenizer.eos_token_id
        return self.end_ids[0] if eos is None else eos

    @property
    def notes(self) -> list[str]:
        """What to know of how answers end here, where it is not the template that ends them."""
        if self.end is None or not self.end.appended:
            return []
        token = self.tokenizer.convert_ids_to_tokens(self.end.id)
        if not self.end.text.strip():
            return [f"the chat template puts nothing after an answer: the end-of-text token {token} is learned there"]
        return [
            f"the chat template ends an answer with {self.end.text!r}, which is ordinary text: the end-of-text token "
            f"{token} is learned after it"
        ]

    def write(self, messages: Sequence[Message], where: str) -> Written:
        """The conversation as inference will see it before each answer, every answer learned once. `where` names it.

        Answers share a row as long as each stands there behind exactly what it will stand behind when it is asked for.

        Raises:
            UserError: the chat template does not write such conversations, or nothing can end an answer.
        """
        _ = self.end_of_text
        try:
            return self._write(messages)
        except CantRender as error:
            raise _refused(where, error, messages) from None

    def write_text(self, text: str) -> Written:
        """A document, control tokens broken."""
        token = self.control.first_in(text)
        changes = {"control"} if token else set()
        return Written([[(self.control.broken(text), True)]], changes, token)

    def prompt(self, messages: Sequence[Message], where: str) -> Written:
        """The conversation up to an answer, as one piece.

        Raises:
            UserError: the chat template does not write such conversations.
        """
        try:
            turns, written = self._arranged(messages)
            text = self.template.render(turns, generation_prompt=True)
        except CantRender as error:
            raise _refused(where, error, messages) from None
        _check_asked(turns, text, written)
        written.rows = [[(text, False)]]
        return written

    def shown(self, text: str) -> str:
        """A decoded answer without what stands before its last token, where the end is more than a token."""
        before = self.end.text if self.end else ""
        if self.end and not self.end.appended:
            before = before.removesuffix(str(self.tokenizer.convert_ids_to_tokens(self.end.id)))
        return text.removesuffix(before) if before else text

    def words(self, text: str) -> str:
        """What a decoded answer says, without thoughts and without what the chat template puts before the words."""
        return self._after_thoughts(text).removeprefix(self._before_words)

    def name_ends(self, generation_config: Any) -> None:
        """Write into generation settings at which tokens answers end, so that any runtime stops there."""
        configured = generation_config.eos_token_id
        known = configured if isinstance(configured, list) else [] if configured is None else [configured]
        ids = list(dict.fromkeys([*self.end_ids, *known]))
        if not ids:
            return
        generation_config.eos_token_id = ids[0] if len(ids) == 1 else ids
        if generation_config.pad_token_id is None:
            padding = self.tokenizer.pad_token_id
            generation_config.pad_token_id = ids[-1] if padding is None else padding
        _make_savable(generation_config)

    def _write(self, messages: Sequence[Message]) -> Written:
        answers = [place for place, message in enumerate(messages) if message.role == "assistant"]
        last = max([place for place in answers if messages[place].is_answer] or answers, default=-1)
        turns, written = self._arranged(messages[: last + 1])
        done, before = None, ""
        for index, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            if not any(earlier.role == "user" for earlier in turns[:index]):
                written.changes.add("unasked")
                continue
            if not turn.is_answer:
                written.changes.add("calls" if turn.extra else "empty" if turn.learned else "weightless")
                continue
            before = self.template.render(turns[:index], generation_prompt=True)
            answer = self._answer(turns[: index + 1], before, written.changes)
            if done is not None and before.startswith(done):
                written.rows[-1] += [(before[len(done) :], False), (answer, True)]
            else:
                written.rows.append([(before, False), (answer, True)])
            done = before + answer if index + 1 < len(turns) and self._continues else None
        if written.rows:
            _check_asked(turns[:-1], before, written)
        if len(written.rows) > 1:
            written.changes.add("apart")
        return written

    def _arranged(self, messages: Sequence[Message]) -> tuple[list[Message], Written]:
        """The turns in the way that the template takes them, control tokens broken.

        Raises:
            CantRender: it takes none.
        """
        if self.template.failure:
            raise CantRender(self.template.failure, hopeless=True)
        written = Written()
        turns = []
        for message in messages:
            token = self.control.first_in(message.content) or self.control.first_in(message.extra)
            if token:
                written.control_token = written.control_token or token
                written.changes.add("control")
                content, extra = (self.control.broken(text) for text in (message.content, message.extra))
                message = replace(message, content=content, extra=extra)
            turns.append(message)
        if any(turn.role == "tool" or turn.extra for turn in turns) and not self.template.takes_tools:
            raise CantRender("the chat template knows no tools, so calls of tools and their results can't be read")
        if any(turn.role == "system" for turn in turns) and not self.template.has_system_role:
            turns = system_in_user(turns)
            written.changes.add("system")
        roles = [turn.role for turn in turns]
        if ("user", "user") in pairwise(roles) and not self.template.takes_turns_of_one_role:
            turns = users_joined(turns)
            written.changes.add("joined")
        return turns, written

    def _answer(self, turns: Sequence[Message], before: str, changes: set[str]) -> str:
        """What the model shall say after `before`, up to its end: the last turn as the template renders it.

        Raises:
            CantRender: the template writes something else than `before` where an answer follows.
        """
        assert self.end, "there is no end"
        after = self.template.render(turns, generation_prompt=False)
        start = len(before)
        if not after.startswith(before):
            start -= len(self._only_in_prompt)
            if not before.endswith(self._only_in_prompt) or before[:start] != after[:start]:
                return self._without_thoughts(turns, before, changes)
        body = self.end.cut(after[start:])
        content = turns[-1].content.strip()
        if self._opened and before.rstrip().endswith(self._opened):
            body = self._thinking(self._opened, before, body, content, changes)
        if not all(part.strip() in body for part in THOUGHT_TAG.split(content)):
            changes.add("changed")
        return body

    def _without_thoughts(self, turns: Sequence[Message], before: str, changes: set[str]) -> str:
        """The words of an answer whose thoughts can't follow `before`, which has closed them already.

        Raises:
            CantRender: it is not for thoughts that the answer does not follow.
        """
        words = self._after_thoughts(turns[-1].content)
        if words == turns[-1].content:
            raise CantRender("the chat template writes the turns before an answer in another way once it is there")
        changes.add("changed")
        return self._answer([*turns[:-1], Message("assistant", words)], before, changes)

    def _thinking(self, opener: str, before: str, body: str, content: str, changes: set[str]) -> str:
        """The answer to a prompt that ends in the middle of thoughts: they come first, or are closed."""
        closer = f"{opener[0]}/{opener[1:]}"
        if closer in body and opener not in body:
            return body
        if closer in content:  # the template leaves thoughts out; in the answer itself they belong
            thoughts = content.removeprefix(opener)
            end = self.end.text if self.end else ""
            return (thoughts if before.endswith(opener) else thoughts.lstrip("\n")) + end
        changes.add("closed")
        missing = "\n" * max(0, 2 - before[len(before.rstrip()) :].count("\n"))
        return f"{missing}{closer}\n\n{body}"

    @cached_property
    def _only_in_prompt(self) -> str:
        """The end of the prompt, where an answer is rendered without it: R1's `<think>`."""
        asked = [*self.template.opening, ASKED]
        before = self.template.render(asked, generation_prompt=True)
        after = self.template.render([*asked, ANSWERED], generation_prompt=False)
        return before[len(shared_start(before, after)) :]

    @cached_property
    def _opened(self) -> str | None:
        """The tag with which the prompt begins thoughts that the answer has to end."""
        tags = THOUGHT_TAG.findall(self.template.before_answer)
        ends_with = tags and self.template.before_answer.rstrip().endswith(tags[-1])
        return tags[-1] if ends_with and "/" not in tags[-1] else None

    @cached_property
    def _before_words(self) -> str:
        """What the chat template puts between the prompt and an answer, as it is decoded: `final` of `<|final|>`."""
        asked = [*self.template.opening, ASKED]
        try:
            before = self.template.render(asked, generation_prompt=True)
            answer = self._answer([*asked, ANSWERED], before, set())
        except CantRender:
            return ""
        put = self.tokens(answer.partition(ANSWERED.content)[0])
        return str(self.tokenizer.decode(put, skip_special_tokens=True))

    def _after_thoughts(self, text: str) -> str:
        start = max((text.rfind(tag) + len(tag) for tag in self._thoughts_end if tag in text), default=0)
        return text[start:]

    @cached_property
    def _thoughts_end(self) -> list[str]:
        """Tags after which an answer speaks, of all that the chat template knows."""
        text = "" if self.template.is_plain else str(self.tokenizer.get_chat_template())
        return sorted({tag for tag in THOUGHT_TAG.findall(text) if "/" in tag})

    @cached_property
    def _continues(self) -> bool:
        """Whether another turn can follow an answer in the same row, text and tokens as if rendered in one."""
        if self.end is None or self.end.appended:
            return False
        try:
            asked = [*self.template.opening, ASKED]
            before = self.template.render(asked, generation_prompt=True)
            answer = self._answer([*asked, ANSWERED], before, set())
            whole = self.template.render([*asked, ANSWERED, ASKED_AGAIN], generation_prompt=True)
        except CantRender:
            return False
        pieces = (before, answer, whole[len(before) + len(answer) :])
        return "".join(pieces) == whole and [i for piece in pieces for i in self.tokens(piece)] == self.tokens(whole)


def chat_format(tokenizer: Any) -> ChatFormat:
    """The format of a tokenizer, made once as long as its template and its special tokens stay the same."""
    settings = (tokenizer.chat_template, tokenizer.special_tokens_map, len(tokenizer))
    known = _formats.get(tokenizer)
    if known is None or known[0] != settings:
        known = _formats[tokenizer] = (settings, ChatFormat(tokenizer))
    return known[1]


_formats: weakref.WeakKeyDictionary[Any, tuple[Any, ChatFormat]] = weakref.WeakKeyDictionary()


def _make_savable(generation_config: Any) -> None:
    """Settings that were changed are saved only if they agree with each other, which those of many published models do
    not: values to sample by, and no word that answers are sampled. Then they are, as their makers meant it; where
    something else is wrong, the tokens alone are kept."""
    if _is_valid(generation_config):
        return
    generation_config.do_sample = True
    if not _is_valid(generation_config):
        tokens = {name: getattr(generation_config, name) for name in ("eos_token_id", "pad_token_id", "bos_token_id")}
        generation_config.__dict__ = type(generation_config)(**tokens).__dict__


def _is_valid(generation_config: Any) -> bool:
    try:
        generation_config.validate(strict=True)
    except ValueError:
        return False
    return True


def _check_asked(turns: Sequence[Message], text: str, written: Written) -> None:
    """Note whether the rendered turns lack some of what was asked (answers may lose their thoughts)."""
    if not all(turn.content.strip() in text for turn in turns if turn.role != "assistant"):
        written.changes.add("left out")


def _refused(where: str, error: CantRender, messages: Sequence[Message]) -> UserError:
    if error.hopeless:
        return UserError(
            f"{where}: {error}, and so with every conversation. Choose another model, or mend its template."
        )
    roles = [message.role for message in messages]
    shown = ", ".join(roles[:SHOWN_ROLES]) + (", …" if len(roles) > SHOWN_ROLES else "")
    return UserError(
        f"{where}: {error}. Its turns are: {shown}. Change them, or choose a model whose template takes them."
    )
