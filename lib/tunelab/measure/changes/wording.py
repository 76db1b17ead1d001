"""Texts as words; of scripts that write no spaces between words (Chinese, Japanese, Thai) each letter is one."""

from __future__ import annotations

import re

# ideographs, kana, Thai, Lao, Burmese, Khmer
ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
WORD = rf"[{ALONE}]|[^\W{ALONE}]+(?:['’][^\W{ALONE}]+)*"
_WORDS = re.compile(WORD)


def words(text: str) -> list[str]:
    """The words of a text in their order, without case; punctuation is none."""
    return [word.replace("’", "'") for word in _WORDS.findall(text.casefold())]


def runs(said: list[str], length: int) -> set[tuple[str, ...]]:
    """Every run of `length` words that follow each other."""
    return {tuple(said[start : start + length]) for start in range(len(said) - length + 1)}
