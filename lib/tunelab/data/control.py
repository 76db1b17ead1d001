"""Control tokens: those with a meaning to the model or its chat template. In people's text they are broken by a space.

Not every added token is one: tokenizers also add words of a domain, runs of spaces, `<think>`. Text may hold those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tunelab.data.template import MARKER, THOUGHT_TAG, Template


class ControlTokens:
    """The control tokens of a tokenizer and its chat template, by length, the longest first."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = tuple(sorted(set(tokens), key=lambda token: (-len(token), token)))
        self._pattern = re.compile("|".join(map(re.escape, self.tokens)) or "(?!)")

    def first_in(self, text: str) -> str | None:
        """The first control token that the text holds."""
        found = self._pattern.search(text)
        return found[0] if found else None

    def broken(self, text: str) -> str:
        """The text without control tokens: a space stands in each, behind its first character that is none."""
        while self._pattern.search(text):
            text = self._pattern.sub(lambda found: re.sub(r"(\s*\S)", r"\1 ", found[0], count=1), text)
        return text


def control_tokens(tokenizer: Any, template: Template) -> ControlTokens:
    """The special tokens, and what the template writes around turns, be it a token or not."""
    added = tokenizer.added_tokens_decoder.values()
    special = {*map(str, tokenizer.all_special_tokens), *(str(token) for token in added if token.special)}
    written: set[str] = set()
    if not template.is_plain:
        written = {str(token) for token in added if str(token) in template.between_turns and not is_word(str(token))}
        written |= set(MARKER.findall(template.between_turns))
    return ControlTokens(token for token in special | written if is_control(token))


def is_word(token: str) -> bool:
    """Whether an added token is a word, which a template may hold without meaning the token: `user`."""
    return re.fullmatch(r"[\w\s▁]+", token) is not None


def is_control(token: str) -> bool:
    """Whether a token that is special, or stands between turns, can control: no white space, no tag of thoughts."""
    return len(token.strip()) > 1 and not THOUGHT_TAG.fullmatch(token)
