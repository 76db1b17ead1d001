"""What of a solution a learner writes, and what stands in its place in the learner's copy.

    # BEGIN SOLUTION              these lines become `...`, as deep as the marker stands
    # BEGIN SOLUTION NO PROMPT    these lines go, and nothing takes their place
    # END SOLUTION

nbgrader and Otter Assign read the same lines. Each looks for them in its own way: nbgrader for `BEGIN SOLUTION`
anywhere in a line, Otter for a line that begins with `# BEGIN SOLUTION`. In Markdown, nbgrader's way holds:
`<!-- BEGIN SOLUTION -->`, which a reader does not see. What a learner is told stands as a comment before the marker.

Sources: nbgrader 0.9.6, `preprocessors/clearsolutions.py`; Otter 7.0.0, `assign/solutions.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

CODE = re.compile(r"^(?P<indent>\s*)# (?P<side>BEGIN|END) SOLUTION(?P<bare> NO PROMPT)?$")
MARKDOWN = re.compile(r"^(?P<indent>\s*)<!-- (?P<side>BEGIN|END) SOLUTION(?P<bare>) -->$")
PROMPT = "..."


class MarkerError(ValueError):
    """Markers that don't come in pairs, or are written so that a tool would not see them."""


def stripped(source: str, kind: str = "code") -> str:
    """The text of a cell without what a learner writes. `kind`: 'code' or 'markdown'.

    Raises:
        MarkerError: a marker without its other half, or one that is not written as a line of its own.
    """
    kept = []
    for line, found, inside in _read(source, kind):
        if found and found["side"] == "BEGIN":
            kept += [f"{found['indent']}{PROMPT}"] if kind == "code" and not found["bare"] else []
        elif not found and not inside:
            kept.append(line)
    text = "\n".join(kept)
    # an answer that is gone leaves the empty lines around it
    return text if kind == "code" else re.sub(r"\n{3,}", "\n\n", text).strip()


def marked_lines(source: str) -> set[int]:
    """The numbers, from 1, of the lines of code that a learner writes."""
    return {number for number, (_, found, inside) in enumerate(_read(source, "code"), 1) if inside and not found}


def is_marked(source: str) -> bool:
    """Whether a learner writes something of this cell."""
    return "BEGIN SOLUTION" in source


def is_exercise(source: str) -> bool:
    """Whether a learner writes code in the place of dots, which a check then looks at; a prediction is no such cell."""
    return any(found and found["side"] == "BEGIN" and not found["bare"] for _, found, _inside in _read(source, "code"))


def _read(source: str, kind: str) -> Iterator[tuple[str, re.Match[str] | None, bool]]:
    """Each line, what it is as a marker, and whether it lies between two."""
    form, inside = CODE if kind == "code" else MARKDOWN, False
    for line in source.split("\n"):
        found = form.match(line)
        if found is None and re.search(r"(BEGIN|END) SOLUTION|# SOLUTION", line):
            raise MarkerError(f"no marker that every tool reads: {line!r}")
        if found and (found["side"] == "BEGIN") == inside:
            raise MarkerError(f"this marker has no other half: {line!r}")
        inside = found["side"] == "BEGIN" if found else inside
        yield line, found, inside
    if inside:
        raise MarkerError(f"a solution has no end: {source[:80]!r}")
