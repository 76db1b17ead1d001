"""Text and time for people."""

from __future__ import annotations

import html
import time

from playground.english import measure as say


def duration(seconds: float) -> str:
    """Time for people: '40 s', '3 min 20 s'."""
    whole = round(seconds)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60:02d} s"


def moment(identity: str) -> str:
    """When something was made, from its id: '11-24 10:15'."""
    if not identity[:8].isdigit():
        return identity
    return f"{identity[4:6]}-{identity[6:8]} {identity[9:11]}:{identity[11:13]}"


def moment_of(seconds: float) -> str:
    """A time since the epoch as `moment` writes it."""
    return time.strftime("%m-%d %H:%M", time.localtime(seconds))


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return html.escape("".join(f"\\{c}" if c in r"\`*_{}[]()#+!|~<>" else c for c in text), quote=False)


def without_flags(sentence: str) -> str:
    """What the library says with flags of its command line, for those who have a form."""
    for flag, words in say.FLAGS.items():
        sentence = sentence.replace(flag, words)
    return sentence


def counted(number: int, what: str) -> str:
    """'1 run', '230 runs'."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
