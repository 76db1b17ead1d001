"""Text that stands for a chat template's own: control tokens and the headings of prompts. A row that holds them is
written into a template again, and a model reads two beginnings or an end in the middle.

Without a tokenizer the markers of widespread templates are known; with one, its own control tokens as well.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tunelab.data.control import ControlTokens
from tunelab.data.doctor.finding import Finding, Tally, around
from tunelab.data.examples import Example, Message

# a control token in text: <|im_end|>, <｜User｜>, [/INST], <<SYS>>, <end_of_turn>
TOKEN = re.compile(
    r"<\|[A-Za-z][\w.-]{0,40}\|>|<｜[^｜<>\n]{1,40}｜>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_(?:turn|utterance)>"
)
# the role that stands behind one that opens a turn
HEADER = re.compile(
    r"(?:<\|im_start\|>|<start_of_turn>)(?:system|user|assistant|model|tool)[ \t]*\n?"
    r"|<\|start_header_id\|>\w{1,20}<\|end_header_id\|>\n{0,2}"
)
SENTENCE = re.compile(r"^\s*<s>|</s>\s*$")  # Llama's, at an end of a text; in its middle it is HTML
STRUCK = re.compile(r"<s>.*</s>", re.DOTALL)
PREAMBLE = re.compile(r"^Below is an instruction that describes a task\b[^\n]*\n*", re.MULTILINE)
HEADING = re.compile(
    r"^###? ?(?:Instruction|Input|Response|Human|User|Assistant|System):?[ \t]*(?:\n+|$)", re.MULTILINE
)
ASKS = re.compile(r"^###? ?(?:Instruction|Human|User):?[ \t]*$", re.MULTILINE)
ANSWERS = re.compile(r"^###? ?(?:Response|Assistant):?[ \t]*$", re.MULTILINE)
# at the end of what the user says, and at the beginning of an answer
CALL = re.compile(r"(?:^|\n)[ \t]*(?:###? ?(?:Response|Answer|Assistant)|ASSISTANT|Assistant) ?:\s*$")
REPLY = re.compile(r"^\s*(?:###? ?(?:Response|Answer|Assistant)|ASSISTANT|Assistant) ?:[ \t]*\n*")


class Markers:
    """Finds and strips markers; `control`: the control tokens of the tokenizer in use."""

    def __init__(self, control: ControlTokens | None = None) -> None:
        self.tokens, self.headings = Tally(), Tally()
        self._own = control
        self._own_pattern = re.compile("|".join(map(re.escape, control.tokens)) or "(?!)") if control else None

    def see(self, example: Example) -> None:
        if spot := self._first_token(example):
            self.tokens.add(example, spot)
        elif spot := _first_heading(example):
            self.headings.add(example, spot)

    def findings(self) -> list[Finding]:
        tokens = self.tokens.finding(
            "control-tokens",
            "{rows} with control tokens of a chat template",
            "In a prompt or an answer they end a turn or begin another. Training breaks them by a space, and the model "
            "learns the pieces; usually the data was written into a template once already.",
            "high",
            "strip-control",
        )
        headings = self.headings.finding(
            "template-markers",
            "{rows} with the headings of a prompt template",
            "The template of the model is written around these rows as well: the model learns two at once, and will "
            "say such headings.",
            "high",
            "strip-control",
        )
        return tokens + headings

    def spot(self, example: Example) -> str | None:
        """The first marker of a row with what stands around it; None where there is none."""
        return self._first_token(example) or _first_heading(example)

    def _first_token(self, example: Example) -> str | None:
        for text in example.texts:
            found = TOKEN.search(text) or (self._own_pattern and self._own_pattern.search(text)) or _sentence(text)
            if found:
                return around(text, found.start(), found.end())
        return None

    def stripped(self, example: Example) -> Example:
        """The row without markers, until none is found."""
        while self.spot(example):
            whole = _is_template(example)
            if example.text is not None:
                example = example.with_texts(self._without_tokens)
                continue
            messages = tuple(replace(m, content=self._without(m, whole)) for m in example.messages)
            example = replace(example, messages=messages)
        return example

    def _without(self, message: Message, whole: bool) -> str:
        text = self._without_tokens(message.content)
        if whole:
            text = HEADING.sub("", PREAMBLE.sub("", text)).strip()
        if message.role == "user":
            text = CALL.sub("", text)
        if message.role == "assistant":
            text = REPLY.sub("", text)
        return text

    def _without_tokens(self, text: str) -> str:
        before = text
        text = TOKEN.sub("", HEADER.sub("", text))
        if _sentence(text):
            text = SENTENCE.sub("", text)
        if self._own_pattern:
            text = self._own_pattern.sub("", text)
        return text if text == before else text.strip()


def _sentence(text: str) -> re.Match[str] | None:
    return None if STRUCK.search(text) else SENTENCE.search(text)


def _first_heading(example: Example) -> str | None:
    if example.text is not None:
        return None
    if _is_template(example):
        spots = ((m.content, HEADING.search(m.content)) for m in example.messages)
    else:
        patterns = {"user": CALL, "assistant": REPLY}
        spots = ((m.content, patterns[m.role].search(m.content)) for m in example.messages if m.role in patterns)
    return next((around(text, found.start(), found.end()) for text, found in spots if found), None)


def _is_template(example: Example) -> bool:
    """Whether a row is a template that was filled in: one heading alone is Markdown."""
    said = "\n".join(m.content for m in example.messages)
    return bool(ASKS.search(said) and ANSWERS.search(said))
