"""The page's words stand in `playground/english`, so that they can be translated in one place."""

from __future__ import annotations

import re

import pytest

from tests.conftest import REPOSITORY

PLAYGROUND = REPOSITORY / "playground"
COMING = ("answer.html", "prompt_set.html", "token_changes.html")
TEMPLATES = sorted(path for path in (PLAYGROUND / "templates").iterdir() if path.name not in COMING)
WORD = re.compile(r"[A-Za-z]{2,}")
COMMENT = re.compile(r"{#.*?#}", re.DOTALL)
FILLED = re.compile(r"{[{%].*?[%}]}", re.DOTALL)
NAMED = re.compile(r"^([A-Z_]+(?:, [A-Z_]+)*)(?:: [^=]+)? = ", re.MULTILINE)
ATTRIBUTE = re.compile(r"\bdata-[a-z-]+=")  # of a macro that writes a part of a tag
SAID = re.compile(r"(?:aria-label|title|placeholder|alt)=\"([^\"]*)\"")


def words_in(template: str) -> list[str]:
    """Words for people that a template holds: outside of its tags, and in attributes that are read out."""
    bare = ATTRIBUTE.sub("", FILLED.sub("\x00", COMMENT.sub("", template)))
    texts = [*SAID.findall(bare), *re.split(r"<[^<>]*>", bare)]
    return [text.strip() for text in texts if WORD.search(text)]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_holds_words(path):
    assert not words_in(path.read_text(encoding="utf-8"))


def test_words_are_found_wherever_they_stand():
    held = '<p title="help">one {{ two }}</p>{# three #}<b aria-label="{{ say.FOUR }}">5</b>'
    assert words_in(held) == ["help", "one \x00"]


def test_every_text_is_used():
    texts = {
        path: path.read_text(encoding="utf-8") for path in PLAYGROUND.rglob("*") if path.suffix in (".py", ".html")
    }
    english = {path for path in texts if path.parent.name == "english"}
    held = {name for path in english for line in NAMED.findall(texts[path]) for name in re.split(r", ?", line)}
    used = {name for path in texts.keys() - english for name in re.findall(r"\b[A-Z_]{2,}\b", texts[path])}
    assert len(held) > 300
    assert not held - used
