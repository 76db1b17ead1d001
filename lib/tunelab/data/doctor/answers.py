"""Answers as such: none, very short ones among long ones, openings that most of them share, and those that are cut."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tunelab.data.doctor.finding import FIXES, MOST_SHOWN, Finding, Tally, counted, shown
from tunelab.data.encode import encode
from tunelab.data.examples import Example
from tunelab.errors import UserError

# words that stand where an answer is missing
PLACEHOLDERS = frozenset("n/a na nan none null nil todo tbd - -- . … ... ? #n/a undefined".split())
SHORT, LONG = 10, 80  # characters: an answer of at most SHORT is very short where half of the others have LONG
OPENING_SHARE, OPENING_ROWS = 0.3, 10  # of the answers that open alike
OPENING_WORDS = range(1, 9)
WHOLE_WORDS = 3  # that many words are an opening in any case, fewer where they end a clause: "Sure!", "Of course,"
PROSE = re.compile(r"[^\W\d_]+[’'’]?[^\W\d_]*[,.!:;?]?")  # a word of prose, no code and no data
MOST_ENCODED, ENOUGH_THAT_FIT = 2000, 200  # rows that are tokenised, from the longest down


def asks_or_answers_nothing(example: Example) -> bool:
    if example.text is not None:
        return not example.text.strip()
    return not example.answer.strip() or not any(m.content.strip() for m in example.asked)


def is_placeholder(example: Example) -> bool:
    return example.text is None and example.answer.strip().casefold() in PLACEHOLDERS


class Lengths:
    """How long the answers of all rows are; what is empty among them."""

    def __init__(self, count: int) -> None:
        import numpy

        self.characters = numpy.zeros(count, numpy.int32)  # of the answer, or of the text
        self.whole = numpy.zeros(count, numpy.int64)  # of all turns
        self.placeholder = numpy.zeros(count, bool)
        self.empty = Tally()

    def see(self, place: int, example: Example) -> None:
        answer = example.answer if example.text is None else example.text
        self.characters[place] = len(answer.strip())
        self.whole[place] = sum(len(m.content) for m in example.messages) or len(answer)
        self.placeholder[place] = is_placeholder(example)
        if asks_or_answers_nothing(example):
            self.empty.add(example)

    def short(self) -> Any:
        """Places of answers that are very short where the others are long."""
        import numpy

        written = self.characters[self.characters > 0]
        if not len(written) or numpy.median(written) < LONG:
            return numpy.empty(0, numpy.int64)
        return numpy.flatnonzero((self.characters > 0) & ((self.characters <= SHORT) | self.placeholder))

    def findings(self, rows: Sequence[Example]) -> list[Finding]:
        why = "There is nothing to learn from an empty answer, and an empty prompt teaches to answer unasked."
        found = self.empty.finding("empty", "{rows} without a prompt or without an answer", why, "high", "drop-empty")
        short = self.short()
        if len(short) and rows[0].text is None:
            found.append(
                Finding(
                    "short-answers",
                    f"{counted(len(short), 'answer has', 'answers have')} at most {SHORT} characters or stands for "
                    "none, where half of the others have more than 80",
                    len(short),
                    tuple(shown(rows[int(place)]) for place in short[:MOST_SHOWN]),
                    "They may be placeholders or unfinished. A model learns from them to answer with a word.",
                    "medium",
                    FIXES["drop-short"],
                )
            )
        return found


class Openings:
    """The words that answers begin with."""

    def __init__(self) -> None:
        self.total = 0
        self.counts: dict[int, Counter[tuple[str, ...]]] = {length: Counter() for length in OPENING_WORDS}

    def see(self, example: Example) -> None:
        if example.text is not None or not example.answer.strip():
            return
        self.total += 1
        words = example.answer[:200].split()
        for length in OPENING_WORDS:
            word = words[length - 1]
            if length >= len(words) or not PROSE.fullmatch(word) or (len(word) > 2 and word.isupper()):
                return
            if length >= WHOLE_WORDS or word[-1] in ("!:" if length == 1 else "!:,."):
                self.counts[length][tuple(words[:length])] += 1

    def shared(self) -> tuple[str, float] | None:
        """The longest words that most answers open with, and the share of the answers that do."""
        least = max(OPENING_ROWS, OPENING_SHARE * self.total)
        best = [(opening, count) for counts in self.counts.values() for opening, count in counts.most_common(1)]
        best = [(opening, count) for opening, count in best if count >= least]
        if not best:
            return None
        most = max(count for _opening, count in best)
        opening, count = max((one for one in best if one[1] >= 0.8 * most), key=lambda one: len(one[0]))
        return " ".join(opening), count / self.total


def opening_finding(openings: Openings, rows: Iterable[Example]) -> list[Finding]:
    if not (found := openings.shared()):
        return []
    opening, share = found
    tally = Tally()
    for example in rows:
        if opens_with(example, opening):
            tally.add(example, example.answer)
    fix = "strip-openings" if can_be_stripped(opening) else None
    return tally.finding(
        "openings",
        f"{share:.0%} of the answers open with ‘{opening}’",
        "The model learns these words first and says them everywhere. Leave them out, unless they are what you want.",
        "low",
        fix,
    )


def opens_with(example: Example, opening: str) -> bool:
    return " ".join(example.answer[:400].split()).startswith(f"{opening} ")


def can_be_stripped(opening: str) -> bool:
    """Whether an opening is a sentence of its own, so that what follows stands without it."""
    return opening.endswith((".", "!", ":"))


def without_opening(example: Example, opening: str) -> Example:
    """The row without the opening of its final answer."""
    if not opens_with(example, opening):
        return example
    pattern = r"\s+".join(map(re.escape, opening.split()))
    rest = re.sub(rf"\s*{pattern}\s+", "", example.answer, count=1)
    last = max(place for place, m in enumerate(example.messages) if m.role == "assistant")
    messages = list(example.messages)
    messages[last] = replace(messages[last], content=rest[:1].upper() + rest[1:])
    return replace(example, messages=tuple(messages))


def cut_finding(
    rows: Sequence[Example], lengths: Lengths, tokenizer: Any, max_length: int
) -> tuple[list[Finding], list[str]]:
    """Answers that `max_length` cuts, and notes. Rows are tokenised from the longest down until many in a row fit."""
    import numpy

    if not len(rows) or rows[0].text is not None:
        return [], []
    tally, most, fitting, tokenised = Tally(), 0, 0, 0
    try:
        for place in numpy.argsort(-lengths.whole, kind="stable").tolist():
            if fitting == ENOUGH_THAT_FIT or tokenised == MOST_ENCODED:
                break
            tokenised += 1
            whole = encode(_whole_characters(rows[place]), tokenizer, 1 << 30)
            tokens = len(whole.input_ids) if whole else 0
            most, fitting = max(most, tokens), 0 if tokens > max_length else fitting + 1
            if tokens > max_length:
                tally.add(rows[place])
    except UserError as error:
        return [], [f"Whether answers are cut was not checked: {error}"]
    notes = [f"Tokenised: the {tokenised:,} longest rows of {len(rows):,}."] if tokenised < len(rows) else []
    at_least = "at least " if tokenised == MOST_ENCODED < len(rows) else ""
    return tally.finding(
        "cut",
        f"{at_least}{{rows}} longer than max_length = {max_length} tokens (the longest has {most:,})",
        f"An answer that is cut does not teach where to stop. Give --max-length {-(-most // 64) * 64}, or shorten "
        "these rows.",
        "high" if tally.count > 0.05 * len(rows) else "medium",
    ), notes


def _whole_characters(example: Example) -> Example:
    """The row with � for each half of a character, which no tokenizer takes."""
    return example.with_texts(lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
