"""Texts of rows as a card shows them."""

from __future__ import annotations

from tunelab.data.doctor.personal import masked

LONGEST = 700  # characters of a prompt or an answer


def shown_text(text: str, most: int = LONGEST) -> str:
    """A row's text, personal data masked, letters that are not seen replaced; of a long one the beginning."""
    start = masked(text[: 2 * most])
    cut = len(text) > 2 * most or len(start) > most
    seen = "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in start[:most])
    return f"{seen} … ({len(text):,} characters in all)" if cut else seen


def one_line(text: str) -> str:
    """A name or a note of anybody's, on one line, without letters that are not seen."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split()))


def sentence(text: str) -> str:
    """With a capital and a full stop; "" where there is nothing."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""
