"""`examine_rows`: every row is compared with all others by digests and signatures, a sample is read word by word."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tunelab.data.control import control_tokens
from tunelab.data.doctor import near
from tunelab.data.doctor.amount import Diversity, amount_finding
from tunelab.data.doctor.answers import Lengths, Openings, cut_finding, opening_finding
from tunelab.data.doctor.digests import Digests, digests, repeated
from tunelab.data.doctor.finding import Examination, Finding, in_order
from tunelab.data.doctor.injections import Injections
from tunelab.data.doctor.labels import Labels
from tunelab.data.doctor.markers import Markers
from tunelab.data.doctor.repeats import leak_findings, repeat_findings
from tunelab.data.doctor.words import LanguageMix, Mojibake, PersonalData
from tunelab.data.examples import Example
from tunelab.data.template import Template
from tunelab.errors import UserError

if TYPE_CHECKING:
    import numpy

Rows = Sequence[Example]
Say = Callable[[str], None]
EVERY = 100_000  # rows between two messages
MOST_READ = 20_000_000  # characters that are read word by word


def examine_rows(
    train: Rows,
    heldout: Rows = (),
    *,
    tokenizer: Any = None,
    max_length: int = 512,
    seed: int = 0,
    sample: int = 20_000,
    on_progress: Say = lambda message: None,
) -> Examination:
    """What there is to know about training rows before a minute is spent on them, and whether they give held-out rows
    away. The rows are gone through twice, in their order, and never kept.

    tokenizer: of the model to train; without one it is not checked which answers `max_length` tokens cut.
    sample: rows that are read word by word, chosen by `seed`: language, mojibake, personal data, markers, injections.

    Raises:
        UserError: there are no rows.
    """
    import numpy

    if not len(train):
        raise UserError("There are no rows to examine. Give a file with at least one row.")
    made, reader = _read(train, tokenizer, seed, sample, on_progress)
    equal = repeated(made.whole)
    first, leaks = _compared(train, heldout, made, equal, seed, on_progress)
    cut, notes = reader.cut(train, tokenizer, max_length)
    unlike = len(numpy.unique(first[~equal]))
    groups = reader.labels.groups()
    sizes = {name: sum(reader.labels.counts[way] for way in ways) for name, ways in groups.items()}
    findings = [
        *reader.findings(train),
        *repeat_findings(train, made, first),
        *leaks,
        *cut,
        *amount_finding(unlike, sizes),
    ]
    return Examination(
        in_order(findings),
        len(train),
        len(heldout),
        reader.read,
        _measures(reader, first, unlike),
        (*reader.notes(), *notes),
    )


class _Reader:
    """Sees every row, and reads those of the sample."""

    def __init__(self, rows: Rows, tokenizer: Any, seed: int, sample: int) -> None:
        import numpy

        self.lengths, self.labels = Lengths(len(rows)), Labels()
        control = control_tokens(tokenizer, Template(tokenizer)) if tokenizer is not None else None
        self.markers, self.injections, self.personal = Markers(control), Injections(), PersonalData()
        self.mojibake, self.languages, self.diversity, self.openings = (
            Mojibake(),
            LanguageMix(),
            Diversity(),
            Openings(),
        )
        self.chosen = numpy.zeros(len(rows), bool)
        self.chosen[random.Random(seed).sample(range(len(rows)), min(sample, len(rows)))] = True
        self.read = self.characters = 0

    def see(self, place: int, example: Example) -> None:
        self.lengths.see(place, example)
        self.labels.see(example)
        if not self.chosen[place] or self.characters > MOST_READ:
            self.chosen[place] = False
            return
        self.read += 1
        self.characters += len(near.said(example))
        for one in (self.markers, self.injections, self.personal, self.mojibake, self.languages, self.diversity):
            one.see(example)
        self.openings.see(example)

    def findings(self, rows: Rows) -> Iterator[Finding]:
        labels = self.labels.findings()
        yield from self.lengths.findings(rows)
        yield from labels
        for one in (self.markers, self.injections, self.personal, self.mojibake, self.languages):
            yield from one.findings()
        if not self.labels.groups():
            yield from self.diversity.findings()
            places = self.chosen.nonzero()[0].tolist()
            yield from opening_finding(self.openings, (rows[place] for place in places))

    def cut(self, rows: Rows, tokenizer: Any, max_length: int) -> tuple[list[Finding], list[str]]:
        if tokenizer is None:
            return [], ["Whether max_length cuts answers was not checked: name the model (--model)."]
        return cut_finding(rows, self.lengths, tokenizer, max_length)

    def notes(self) -> list[str]:
        if self.read == len(self.chosen):
            return []
        return [
            f"Read word by word: a sample of {self.read:,} rows of {len(self.chosen):,} (languages, mojibake, personal "
            "data, markers, injections, openings: counts are of the sample). Repeats, labels and lengths: of all rows."
        ]


def _read(train: Rows, tokenizer: Any, seed: int, sample: int, say: Say) -> tuple[Digests, _Reader]:
    reader = _Reader(train, tokenizer, seed, sample)

    def see(place: int, example: Example) -> None:
        if place and place % EVERY == 0:
            say(f"read {place:,} rows of {len(train):,}")
        reader.see(place, example)

    return digests(train, see), reader


def _compared(
    train: Rows, heldout: Rows, made: Digests, equal: numpy.ndarray, seed: int, say: Say
) -> tuple[numpy.ndarray, list[Finding]]:
    """For each training row the first one that it nearly repeats, and what is said about leaked rows."""
    asked = near.Signer(len(train), near.frame_of(train, near.asked_row, seed)) if len(heldout) else None
    whole = near.Signer(len(train), near.frame_of(train, near.whole_row, seed))
    for place, example in enumerate(train):
        if place and place % EVERY == 0:
            say(f"compared {place:,} rows of {len(train):,}")
        whole.add(near.whole_row(example))
        if asked:
            asked.add(near.asked_row(example))
    first = near.first_of_each(whole.signatures(), left_out=equal)
    if asked is None:
        return first, []
    signed = near.signatures(map(near.asked_row, heldout), len(heldout), asked.frame)
    return first, leak_findings(heldout, made, digests(heldout), near.nearest(signed, asked.signatures()))


def _measures(reader: _Reader, first: numpy.ndarray, unlike: int) -> dict[str, float]:
    import numpy

    return {
        "different rows": unlike,
        "rows of the largest group of near duplicates": int(numpy.bincount(first).max()),
        "distinct pairs of words": round(reader.diversity.distinct, 3),
        "labels": len(reader.labels.groups()),
        "characters of an answer, median": float(numpy.median(reader.lengths.characters)),
    }
