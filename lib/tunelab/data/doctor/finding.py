"""What the doctor says: findings, each with its fix where there is one, and the examination that lists them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tunelab.data.doctor.personal import masked
from tunelab.data.examples import Example

Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")
MOST_SHOWN = 5  # examples of a finding
LONGEST_SHOWN = 160  # characters of an example


@dataclass(frozen=True)
class Fix:
    """Something that mends the training rows: `apply` takes its name."""

    name: str
    does: str


# in the order in which they are applied. Leaks come first: held-out rows stay as they are, and a masked or mended copy
# would no longer equal its row
FIXES = {
    fix.name: fix
    for fix in (
        Fix("drop-leaked", "leaves out training rows that ask what held-out rows ask"),
        Fix("drop-near-leaked", "leaves out training rows that nearly ask what held-out rows ask"),
        Fix("repair-text", "turns wrongly decoded text back into what was written"),
        Fix("strip-control", "takes markers of chat templates and control tokens out of the text"),
        Fix("mask-personal-data", "writes [email], [phone], [card], [iban] or [key] in the place of personal data"),
        Fix("strip-openings", "takes the words that most answers open with off these answers"),
        Fix("merge-labels", "writes labels that differ in case, spaces and punctuation as the most frequent one"),
        Fix("drop-empty", "leaves out rows that ask or answer nothing"),
        Fix("drop-short", "leaves out rows whose answer is a word where others are long"),
        Fix("drop-injections", "leaves out rows that tell a model to disregard its instructions"),
        Fix("drop-duplicates", "keeps the first of equal rows"),
        Fix("drop-conflicts", "keeps, for each prompt, the rows with its most frequent answer"),
        Fix("drop-near-duplicates", "keeps the first of nearly equal rows"),
    )
}


@dataclass(frozen=True)
class Shown:
    """A row, or a part of it, as it stands in a report."""

    row: int  # in its source, counted from 1
    text: str
    heldout: bool = False


@dataclass(frozen=True)
class Finding:
    kind: str
    title: str  # what was found, with its count
    count: int  # rows
    examples: tuple[Shown, ...]
    why: str  # why it matters, and what to do
    severity: Severity
    fix: Fix | None = None


@dataclass(frozen=True)
class Examination:
    """What was found in `rows` training rows and `heldout_rows` held-out rows, the most important first."""

    findings: tuple[Finding, ...]
    rows: int
    heldout_rows: int
    sampled: int  # rows that were read word by word; all were compared with each other
    measures: dict[str, float]  # diversity and size, by name
    notes: tuple[str, ...] = ()  # what was sampled, capped or skipped

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON knows it."""
        return {
            "rows": self.rows,
            "heldout_rows": self.heldout_rows,
            "sampled": self.sampled,
            "findings": [asdict(finding) for finding in self.findings],
            "measures": self.measures,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """Plain lines for a terminal."""
        heldout = f", {self.heldout_rows:,} held out" if self.heldout_rows else ""
        lines = [f"{self.rows:,} rows{heldout}: {counted(len(self.findings), 'finding')}"]
        for finding in self.findings:
            lines += ["", f"[{finding.severity}] {finding.title}", f"  {finding.why}"]
            lines += [f"  {'held-out row' if e.heldout else 'row'} {e.row}: {e.text}" for e in finding.examples]
            if finding.fix:
                lines.append(f"  --fix {finding.fix.name}: {finding.fix.does}")
        lines += ["", *(f"{name}: {value:,.4g}" for name, value in self.measures.items()), *self.notes]
        return "\n".join(lines)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The most important first: by severity, then by rows, then by name."""
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), -f.count, f.kind)))


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number with its noun: '1 row', '2,000 rows'."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def shown(example: Example, text: str | None = None, heldout: bool = False) -> Shown:
    """A row as it stands in a report: the prompt and the answer, or `text`, on one short line; personal data is masked,
    so that a report is no second leak."""
    if text is None:
        text = f"{example.prompt} → {example.answer}" if example.text is None else example.text
    line = " ".join(masked(text[: 4 * LONGEST_SHOWN]).encode("utf-8", "replace").decode().split())
    line = "".join(c if c.isprintable() else "�" for c in line)
    return Shown(example.row, line if len(line) <= LONGEST_SHOWN else f"{line[: LONGEST_SHOWN - 1]}…", heldout)


class Tally:
    """Rows of one kind, counted, the first ones kept to be shown."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[Shown] = []

    def add(self, example: Example, text: str | None = None) -> None:
        self.count += 1
        if len(self.examples) < MOST_SHOWN:
            self.examples.append(shown(example, text))

    def finding(self, kind: str, title: str, why: str, severity: Severity, fix: str | None = None) -> list[Finding]:
        """As a finding, `{rows}` in its title replaced; none where there was no row."""
        if not self.count:
            return []
        named = title.format(rows=counted(self.count, "row"))
        return [Finding(kind, named, self.count, tuple(self.examples), why, severity, FIXES[fix] if fix else None)]


def around(text: str, start: int, end: int, margin: int = 50) -> str:
    """A part of a text with what stands around it."""
    before = "…" if start > margin else ""
    after = "…" if end + margin < len(text) else ""
    return f"{before}{text[max(0, start - margin) : min(end, start + LONGEST_SHOWN) + margin]}{after}"
