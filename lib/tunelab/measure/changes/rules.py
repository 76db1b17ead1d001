"""What is wrong with answers, as far as rules can tell: a label, how often each side has it, and where.

Each rule looks at one answer beside its row. Where it can't judge (no reference, a text too short to tell its
language), it says so instead of passing the answer: `judged` counts the rows it could look at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tunelab.data.doctor.words import language_of
from tunelab.errors import UserError
from tunelab.measure.changes.refusals import LANGUAGES, is_refusal
from tunelab.measure.changes.repeating import repeats_itself
from tunelab.measure.changes.rows import AnsweredRow
from tunelab.measure.changes.wording import runs, words

FACTOR = 2.0
LEAST_LONGER = 20  # characters: a label with a full stop is not "longer"
COPIED_WORDS = 12  # that follow each other: fewer are said by chance
WHOLE_WORDS = 5  # of an answer that is a copy from beginning to end
MOST_EXAMPLES = 5
LIST_LINE = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)


class Answered(NamedTuple):
    """One side's answer to a row."""

    row: AnsweredRow
    text: str
    ended: bool | None


Judge = Callable[[Answered], bool | None]  # None: it can't be judged


@dataclass(frozen=True)
class Rule:
    """One label: what it is called, what it means, and the function that gives it."""

    name: str
    title: str
    judge: Judge


@dataclass(frozen=True)
class Labelled:
    """How many answers of each side have a label, of how many rows, and the first rows that have it."""

    name: str
    title: str
    base: int
    tuned: int
    judged: int  # rows of which both answers could be judged; the counts are of these
    base_rows: tuple[AnsweredRow, ...]
    tuned_rows: tuple[AnsweredRow, ...]
    appeared: int  # rows whose tuned answer has the label and whose base answer has not
    disappeared: int


@dataclass(frozen=True)
class Labels:
    """Every rule's counts on the same rows."""

    rows: int
    labels: tuple[Labelled, ...]
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Labelled:
        return next(label for label in self.labels if label.name == name)


def rules(*, factor: float = FACTOR, training_answers: Iterable[str] | None = None) -> list[Rule]:
    """Every rule. `training_answers`: those of the rows that were trained on; None: nobody looks for copies of them.

    Raises:
        UserError: `factor` is not above 1.
    """
    if not factor > 1:
        raise UserError(f"factor = {factor:g}: it has to be above 1. 2 means twice as long, or half.")
    seen = None if training_answers is None else Copies(training_answers)
    return [
        Rule("empty", "no answer", lambda a: not a.text.strip()),
        Rule("refusal", "declines where the reference does not", _refuses),
        Rule("language", "another language than the reference", _other_language),
        Rule("never-stopped", "did not end by itself", lambda a: None if a.ended is None else not a.ended),
        Rule("longer", f"more than {factor:g} times as long as the reference", lambda a: _longer(a, factor)),
        Rule("shorter", f"less than 1/{factor:g} of the reference's length", lambda a: _shorter(a, factor)),
        Rule("format", "not JSON, a list or a code block, where the reference is", _broken_format),
        Rule("repeats", "goes round in circles", _repeats),
        Rule("copied-training", "copied from a training row", lambda a: None if seen is None else seen.copied(a)),
        Rule("copied-prompt", "copied from the prompt", _copies_prompt),
    ]


def label_answers(
    rows: Sequence[AnsweredRow],
    *,
    factor: float = FACTOR,
    training_answers: Iterable[str] | None = None,
    most_examples: int = MOST_EXAMPLES,
) -> Labels:
    """How often each rule's label appears before and after, counted over the rows whose two answers it can judge.

    Raises:
        UserError: there are no rows, or `factor` is out of its range.
    """
    if not rows:
        raise UserError("There are no answered rows to look at. Evaluate the run on held-out rows first.")
    labels = [_labelled(rule, rows, most_examples) for rule in rules(factor=factor, training_answers=training_answers)]
    notes = [_judged_note(label, len(rows)) for label in labels if label.judged < len(rows)]
    notes.append(f"Refusals are told by phrases of these languages: {', '.join(LANGUAGES)}.")
    return Labels(len(rows), tuple(labels), tuple(notes))


def labels_of(answer: Answered, judges: Sequence[Rule]) -> list[str]:
    """The names of the rules that an answer breaks."""
    return [rule.name for rule in judges if rule.judge(answer)]


def sides(row: AnsweredRow) -> tuple[Answered, Answered]:
    """The answers of base and tuned model to a row."""
    return Answered(row, row.base, row.base_ended), Answered(row, row.tuned, row.tuned_ended)


def _judged_note(label: Labelled, rows: int) -> str:
    many = f"only {label.judged:,} of {rows:,} rows" if label.judged else f"none of {rows:,} rows"
    return f"{label.title[0].upper()}{label.title[1:]}: {many} could be judged."


def _labelled(rule: Rule, rows: Sequence[AnsweredRow], most: int) -> Labelled:
    judged = []
    for row in rows:
        before, after = map(rule.judge, sides(row))
        if before is not None and after is not None:
            judged.append((row, before, after))
    base_rows = [row for row, before, _after in judged if before]
    tuned_rows = [row for row, _before, after in judged if after]
    return Labelled(
        name=rule.name,
        title=rule.title,
        base=len(base_rows),
        tuned=len(tuned_rows),
        judged=len(judged),
        base_rows=tuple(base_rows[:most]),
        tuned_rows=tuple(tuned_rows[:most]),
        appeared=sum(after and not before for _row, before, after in judged),
        disappeared=sum(before and not after for _row, before, after in judged),
    )


def _refuses(answer: Answered) -> bool:
    return is_refusal(answer.text) and not is_refusal(answer.row.reference)


def _repeats(answer: Answered) -> bool:
    return repeats_itself(answer.text) and not repeats_itself(answer.row.reference)


def _other_language(answer: Answered) -> bool | None:
    given, wanted = language_of(answer.text), language_of(answer.row.reference)
    return None if given is None or wanted is None else given != wanted


def _longer(answer: Answered, factor: float) -> bool | None:
    wanted, given = len(answer.row.reference.strip()), len(answer.text.strip())
    return None if not wanted else given > factor * wanted and given - wanted >= LEAST_LONGER


def _shorter(answer: Answered, factor: float) -> bool | None:
    """One without a word is empty, not short."""
    wanted, given = len(answer.row.reference.strip()), len(answer.text.strip())
    return None if not wanted else 0 < given < wanted / factor and wanted - given >= LEAST_LONGER


def _broken_format(answer: Answered) -> bool | None:
    wanted = format_of(answer.row.reference)
    return None if wanted is None else format_of(answer.text) != wanted


def format_of(text: str) -> str | None:
    """'JSON' for an object or a list from beginning to end, 'code' where code fences are opened and closed, 'list'
    where two lines or more begin as items do; else None."""
    if text.strip()[:1] in ("{", "["):
        try:
            json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            pass
        else:
            return "JSON"
    fences = text.count("```")
    if fences and fences % 2 == 0:
        return "code"
    return "list" if len(LIST_LINE.findall(text)) >= 2 else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class Copies:
    """Texts to find copies of: whole ones, and runs of words in them. Digests of them are kept, of many texts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.whole: set[int] = set()
        self.runs: set[int] = set()
        for text in texts:
            said = words(text)
            self.whole.add(hash(tuple(said)))
            self.runs.update(map(hash, runs(said, COPIED_WORDS)))

    def copied(self, answer: Answered) -> bool:
        """Whether an answer is taken from these texts, and not because its reference or its prompt says the same."""
        said, reference, prompt = (words(text) for text in (answer.text, answer.row.reference, answer.row.prompt))
        if len(said) < WHOLE_WORDS or said == reference:
            return False
        if hash(tuple(said)) in self.whole and not _holds(prompt, said):
            return True
        expected = runs(reference, COPIED_WORDS) | runs(prompt, COPIED_WORDS)
        return not self.runs.isdisjoint(map(hash, runs(said, COPIED_WORDS) - expected))


def _copies_prompt(answer: Answered) -> bool | None:
    """Whether an answer is taken from the prompt: a long run of words, or all of it. Where the reference is as well,
    that is the task, and not judged."""
    prompt, said = words(answer.row.prompt), words(answer.text)
    if not prompt or _taken(words(answer.row.reference), prompt):
        return None
    return _taken(said, prompt)


def _taken(said: list[str], source: list[str]) -> bool:
    if len(said) < WHOLE_WORDS:
        return False
    if len(said) < COPIED_WORDS:
        return _holds(source, said)
    return not runs(said, COPIED_WORDS).isdisjoint(runs(source, COPIED_WORDS))


def _holds(source: list[str], said: list[str]) -> bool:
    """Whether words stand in others, one after the other."""
    return tuple(said) in runs(source, len(said))
