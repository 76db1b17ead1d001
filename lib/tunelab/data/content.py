"""What rows teach, as digests: by them rows that belong together are found before training, and rows that were trained
on are recognised after it.

Texts that differ in case and white space alone count as one.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tunelab.data.examples import Example

if TYPE_CHECKING:
    import numpy

DIGEST_BYTES = 8
WINDOW, ONE_IN = 48, 16  # bytes of text that make a mark, and how many windows there are for each that is kept
MARKED_AT_ONCE = 1 << 22  # bytes of text: eight times as many are needed to hash its windows


class Lesson(NamedTuple):
    """One row. Plain text asks itself, and answers nothing."""

    asked: bytes  # everything before the final answer
    prompts: tuple[bytes, ...]  # everything before each assistant's turn that answers somebody
    pairs: tuple[bytes, ...]  # the same with the answer


def lesson(example: Example) -> Lesson:
    """What a row asks and answers. An assistant's opening, before anybody has asked, and an answer without a word are
    part of what follows only."""
    if example.text is not None:
        whole = digest(folded(example.text))
        return Lesson(whole, (whole,), ())
    so_far = hashlib.blake2b(digest_size=DIGEST_BYTES)
    prompts, pairs = [], []
    asked = False
    for message in example.messages:
        answers = message.is_answer and asked
        if answers:
            prompts.append(so_far.digest())
        said = f"{message.role}\0{folded(message.content)}{message.extra}\0"
        so_far.update(said.encode("utf-8", "surrogatepass"))
        if answers:
            pairs.append(so_far.digest())
        asked = asked or message.role == "user"
    return Lesson(prompts[-1] if prompts else so_far.digest(), tuple(prompts), tuple(pairs))


def row_digest(example: Example) -> bytes:
    """Of the row to the letter: another one is another row."""
    return digest(json.dumps(as_json(example)))


def as_json(example: Example) -> Any:
    """Everything that a row is, for hashing."""
    return [m.as_json for m in example.messages] or example.text


def marks(text: str) -> numpy.ndarray:
    """Digests (uint64, sorted) of some of a text's windows: which ones follows from their content alone, so two texts
    that share a passage share its marks, wherever it stands.

    Source: Manber 1994, "Finding Similar Files in a Large File System", USENIX Winter: fingerprints that are 0 modulo
    a number are kept.
    """
    import numpy

    data = numpy.frombuffer(folded(text).encode("utf-8", "surrogatepass"), numpy.uint8)
    step = MARKED_AT_ONCE
    parts = [_marks(data[start : start + step + WINDOW - 1]) for start in range(0, max(1, len(data)), step)]
    return numpy.unique(numpy.concatenate(parts))


def _marks(data: numpy.ndarray) -> numpy.ndarray:
    """The marks of bytes (n,), from the hashes of their n - WINDOW + 1 windows."""
    import numpy

    windows = hashed_windows(data, WINDOW)
    return windows[windows >> numpy.uint64(40) < (1 << 24) // ONE_IN]


def hashed_windows(data: numpy.ndarray, length: int) -> numpy.ndarray:
    """Hashes (n - length + 1,) of every window of numbers (n,), uint64; their upper bits depend on every number."""
    import numpy

    count = max(0, len(data) - length + 1)
    windows = numpy.zeros(count, numpy.uint64)
    for place in range(length):  # a polynomial in an odd number, modulo 2^64
        windows *= numpy.uint64(0x100000001B3)
        windows += data[place : place + count]
    windows *= numpy.uint64(0x9E3779B97F4A7C15)
    return windows


def folded(text: str) -> str:
    """The text as it counts: case and white space are no difference."""
    return " ".join(text.split()).casefold()


def digest(text: str) -> bytes:
    """Of a text to the letter."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
