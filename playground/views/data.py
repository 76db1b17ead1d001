"""What the Data room shows: how rows are read, what is wrong with them, how they are divided, pictures of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from playground.english import data as say
from playground.looking import LabelRows, Sight
from playground.material import Material
from playground.troubles import Trouble
from playground.views.preview import lengths_chart, runs
from playground.views.texts import counted, moment_of
from tunelab.data.builtin import BUILTIN, card
from tunelab.data.doctor import FIXES
from tunelab.data.previews import PreviewRow
from tunelab.errors import listed
from tunelab.measure.markup import render
from tunelab.measure.metrics import NAMED

if TYPE_CHECKING:
    from markupsafe import Markup

    from tunelab import Handed

WIDTH, LINE, NAMES, COUNTS, TOP = 720, 22, 210, 90, 34  # of the drawing of labels
MOST_LABELS, LONGEST_LABEL = 14, 30
LONGEST_CELL, RAW_COLUMNS = 300, 20  # characters and columns of rows as they stand in their source
NAMED_BAD = 5  # rows that can't be read, named at once


def builtin_html(chosen: str) -> Markup:
    """The built-in sets as cards that can be pressed."""
    return render("playground", "builtin_sets.html", cards=[card(name) for name in BUILTIN], chosen=chosen, say=say)


def handed_choices(handed: Sequence[Handed]) -> list[tuple[str, str]]:
    """What was handed over from notebooks, to choose from, and where it lies."""
    return [
        (f"{one.name} · {counted(one.rows, say.ROW_COUNTED)} · {moment_of(one.seconds)}", str(one.path))
        for one in handed
    ]


def handed_help_html() -> Markup:
    """How rows are handed over."""
    return render("playground", "handed_help.html", say=say)


def mapping_html(sight: Sight) -> Markup:
    """Which column plays which role, and why."""
    unused = listed(sight.account.unused, 8)
    return render("playground", "mapping.html", roles=sight.roles, reason=sight.account.reason, unused=unused, say=say)


def trouble_html(trouble: Trouble | None) -> Markup:
    """What is wrong with a choice, with what would do as a button."""
    use = trouble.use if trouble else {}
    pairs = [
        say.USE_PAIR.format(column=column, role=say.ROLES[role][0].lower() if role in say.ROLES else role)
        for role, column in use.items()
    ]
    words = {"learn": say.USE_TEXT, "header": say.USE_NO_HEADER}
    offer = next((words[name] for name in use if name in words), say.USE.format(pairs=", ".join(pairs)))
    return render("playground", "trouble.html", trouble=trouble, offer=offer, value=json.dumps(use))


def summary_html(sight: Sight) -> Markup:
    """How many rows there are and what stands in the way of training on them, in a few lines."""
    metric = NAMED[sight.metric].title if sight.metric else ""
    account = sight.account
    told = [note.removeprefix("warning: ") for note in account.reading if note.startswith("warning: ")]
    values = {
        "metric": metric,
        "blocked": say.BLOCKED if sight.trouble else sight.refusal,
        "warnings": [*told, *([sight.model_trouble] if sight.model_trouble else [])],
        "broken": _broken(sight),
    }
    return render("playground", "data_summary.html", sight=sight, say=say, **values)


def _broken(sight: Sight) -> str:
    """How many rows can't be read, and where the first ones stand; empty where all can be."""
    account = sight.account
    named = ", ".join(where for where, _reason in account.bad[:NAMED_BAD])
    places = named + (", …" if account.bad_rows > NAMED_BAD else "")
    return say.BROKEN.format(rows=counted(account.bad_rows, say.ROW_COUNTED), places=places) if account.bad else ""


def rows_html(rows: Sequence[PreviewRow], first: int, sight: Sight | None = None) -> Markup:
    """Rows token by token, with a legend; above them what is said of all of them."""
    shown = [
        {
            "heading": say.ROW_HEADING.format(
                number=number, tokens=f"{row.tokens:,}", learned=f"{row.scored_tokens:,}"
            ),
            "warnings": row.warnings,
            "runs": runs(row),
            "more": row.cut_tokens - sum(piece.cut for piece in row.pieces),
        }
        for number, row in enumerate(rows, first + 1)
    ]
    warnings = sight.overview.warnings if sight and sight.overview else ()
    is_part = bool(sight and sight.is_part)
    raw = _raw_table(sight.raw) if sight and not shown else None
    return render("playground", "data_rows.html", rows=shown, warnings=warnings, is_part=is_part, raw=raw, say=say)


@dataclass(frozen=True)
class _RawTable:
    columns: list[str]
    rows: list[list[str]]
    more: str  # columns that are not shown


def _raw_table(rows: Sequence[dict[str, Any]]) -> _RawTable | None:
    """Rows as they stand in their source."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    shown, left = columns[:RAW_COLUMNS], len(columns) - RAW_COLUMNS
    cells = [[_cell(row.get(name)) for name in shown] for row in rows]
    return _RawTable(shown, cells, say.RAW_MORE.format(count=left) if left > 0 else "") if rows else None


def _cell(value: Any) -> str:
    """A value as text; of a long one the beginning."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if len(text) <= LONGEST_CELL:
        return text
    return say.RAW_CUT.format(text=text[:LONGEST_CELL], count=f"{len(text) - LONGEST_CELL:,}")


def findings_html(sight: Sight) -> Markup:
    """What the data doctor found, a card each, with its fix; and the fixes that were applied."""
    fixes = sight.stage.data.fixes if sight.stage else ()
    did = dict(sentence.split(": ", 1) for sentence in sight.account.mended)
    mended = [(FIXES[name], did.get(name, "")) for name in fixes if name in FIXES]
    return render(
        "playground", "findings.html", examination=sight.examination, mended=mended, progress=sight.progress, say=say
    )


def findings_title(sight: Sight) -> str:
    """The name of the findings' tab, with how many there are."""
    found = sight.examination
    return say.FINDINGS_COUNTED.format(count=len(found.findings)) if found else say.FINDINGS


def pictures_html(sight: Sight) -> Markup:
    """How long rows are, and how many each label has."""
    lengths = lengths_chart(sight.overview.lengths) if sight.overview else None
    labels = labels_chart(sight.labels) if sight.labels else None
    return render("playground", "data_pictures.html", lengths=lengths, labels=labels, say=say)


@dataclass(frozen=True)
class _Bar:
    label: str
    y: int
    train: float  # widths
    heldout: float
    count: str
    words: str


def labels_chart(labels: Sequence[LabelRows]) -> Markup:
    """An `<svg>` with a bar per label, the most frequent first: rows to train on filled, held-out rows hatched."""
    shown = labels[:MOST_LABELS]
    most = max(one.train + one.heldout for one in shown)
    scale = (WIDTH - NAMES - COUNTS) / most
    bars = [
        _Bar(
            label=_short(one.label),
            y=TOP + LINE * place,
            train=scale * one.train,
            heldout=scale * one.heldout,
            count=f"{one.train:,} + {one.heldout:,}",
            words=say.LABELS_BAR.format(label=one.label, train=f"{one.train:,}", heldout=f"{one.heldout:,}"),
        )
        for place, one in enumerate(shown)
    ]
    left = len(labels) - len(shown)
    return render(
        "playground",
        "labels.svg",
        width=WIDTH,
        height=TOP + LINE * len(bars) + (LINE if left else 4),
        names=NAMES,
        bars=bars,
        bar_height=LINE - 6,
        title=say.LABELS_TITLE,
        more=say.LABELS_MORE.format(count=f"{left:,}") if left else "",
        label=f"{say.LABELS_TITLE}: {'; '.join(bar.words for bar in bars)}",
        say=say,
    )


def _short(label: str) -> str:
    line = " ".join(label.split())
    return line if len(line) <= LONGEST_LABEL else f"{line[: LONGEST_LABEL - 1]}…"


def division_html(sight: Sight) -> Markup:
    """How rows are divided and why, and what was left out, cut or read otherwise."""
    how = ""
    if sight.train and not sight.is_part and sight.stage:
        drawn = say.DRAWN_LABELS if sight.labels else say.DRAWN
        how = drawn.format(seed=sight.stage.data.seed) if sight.account.drawn else say.OWN_PART
    cut = sight.overview.warnings if sight.overview else ()
    unused = say.UNUSED_ROWS.format(count=f"{sight.unused:,}") if sight.unused else ""
    values = {"how": how, "cut": cut, "unused": unused, "broken": _broken(sight)}
    return render("playground", "division.html", sight=sight, say=say, **values)


def material_of(sight: Sight) -> Material | None:
    """The data in hand that these rows make; nothing where nothing can be trained on them."""
    if not sight.is_ready or sight.stage is None:
        return None
    summary = say.SUMMARY.format(train=counted(sight.train, say.ROW_COUNTED), heldout=f"{sight.heldout:,}")
    return Material(sight.stage.data, sight.stage.learn, summary, sight.metric)
