"""The page of a card: it stands alone, what people wrote is text in it, and it can be read without seeing it."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from tests.measure.card.made import Read, begun, finished, made_run, measured
from tests.measure.changes.made import answered, scored
from tunelab import DataSpec, Stage, TrainConfig, report
from tunelab.measure.card.facts import ShownRow
from tunelab.measure.card.page import _date, page_of
from tunelab.measure.changes.diff import both_sides
from tunelab.run.events import Failed, Noticed

SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(2)>'
CLOSING = "</style></pre></svg><!--"
ROWS = [{"prompt": f"{SCRIPT} number {n}", IMAGE: f"{CLOSING} answer {n} {SCRIPT}"} for n in range(8)]


def hostile(root):
    """A run in which everything that people name is an attack."""
    data = DataSpec(rows=ROWS, heldout=2, columns={"prompt": "prompt", "completion": IMAGE})
    stages = tuple(Stage(name=name, data=data, training=TrainConfig(steps=4)) for name in (SCRIPT, CLOSING))
    run = finished(made_run(root, name=f"{IMAGE}{SCRIPT}", stages=stages), notes=(f"not used: {IMAGE}", CLOSING))
    ending = run.progress().ending
    run.append(Noticed(step=4, message=SCRIPT))
    run.append(ending)
    rows = [
        answered(
            n, f"{IMAGE} a word and another word", f"{IMAGE} a word and a third word {SCRIPT}", reference=CLOSING,
            scores=(0, n - 4), others={SCRIPT: IMAGE}, other_scores={SCRIPT: {"points": 0.5}}, label=IMAGE,
        )
        for n in range(1, 9)
    ]  # fmt: skip
    rows = [row.model_copy(update={"prompt": f"{SCRIPT}{row.row}"}) for row in rows]
    measured(run, rows, notes=(SCRIPT,), sentence=f"better: {IMAGE}", data=None)
    return run


@pytest.fixture
def page(tmp_path):
    run = finished(made_run(tmp_path))
    pairs = [(10 * (n % 3), 10 + n) for n in range(60)]
    guess = {"others": {"nearest": "a b"}, "other_scores": {"nearest": {"points": 5.0}}}
    measured(run, scored(pairs, base="a b c", tuned="a b d", label="x", **guess))
    return Read(page_of(report(run)))


def test_what_people_wrote_is_text(tmp_path):
    page = Read(page_of(report(hostile(tmp_path))))
    assert not {"script", "img", "iframe", "object", "link", "base", "form"} & set(page.names)
    assert page.names.count("style") == 1 + page.names.count("svg")
    assert not [name for _tag, attributes in page.elements for name in attributes if name.startswith("on")]
    for words in (f"{IMAGE}{SCRIPT}", CLOSING, f"{SCRIPT}5", f"Stage 1: {SCRIPT}", f"Not used: {IMAGE}."):
        assert words in page.texts
    assert page.texts.count(SCRIPT) >= 4  # notes, a baseline, the name of a stage, a limit


def test_it_needs_nothing_from_elsewhere(page):
    assert not page.every("src")
    assert all(str(link).startswith("#") for link in page.every("href"))
    assert {str(link)[1:] for link in page.every("href")} <= set(page.every("id"))
    assert not re.search(r"url\(|@import|@font-face", page.styles)
    policy = page.every("content")[page.every("http-equiv").index("Content-Security-Policy") + 1]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_it_can_be_read_without_seeing_it(page):
    levels = [int(name[1]) for name in page.names if re.fullmatch(r"h[1-6]", name)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    tables = page.names.count("table")
    assert tables >= 4
    assert page.names.count("caption") == page.names.count("thead") == tables
    assert all(attributes.get("scope") in ("col", "row") for name, attributes in page.elements if name == "th")
    charts = [attributes for name, attributes in page.elements if name == "svg"]
    assert len(charts) == 5  # metrics, others, losses, loss curve, learning rate
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in charts)
    assert page.names.count("figcaption") == len(charts)
    assert dict(page.elements[0][1]) == {"lang": "en"}


def test_it_has_a_form_for_the_dark_and_one_for_paper(page):
    assert "@media screen and (prefers-color-scheme: dark)" in page.styles
    assert "@media print" in page.styles
    assert "size: A4" in page.styles


@pytest.mark.parametrize(
    ("base", "tuned", "marked"),
    [
        ("the card was declined", "the card was accepted", True),
        ("the card was declined", "nothing of it", False),
        ("the same words", "the same words", False),
        ("", "something", False),
    ],
)
def test_answers_stay_to_the_letter_and_differences_are_marked(base, tuned, marked):
    row = ShownRow(row=1, prompt="", reference="", base=base, tuned=tuned, base_score=0, tuned_score=1, gain=1)
    sides = both_sides(row.base, row.tuned)
    assert ["".join(piece.text for piece in side) for side in sides] == [base, tuned]
    assert any(piece.kind != "same" for side in sides for piece in side) == marked


def test_no_line_contradicts_a_verdict_that_was_corrected(tmp_path):
    run = finished(made_run(tmp_path))
    kept = measured(run, scored([(0, 10)] * 30), decision="not enough evidence", sentence="not enough evidence: +10")
    assert kept.main.verdict == "better"
    texts = Read(page_of(report(run))).texts
    line = texts[texts.index("points won (the task's metric)") :][:6]
    assert line[-1] == "not enough evidence"


@pytest.mark.parametrize("rows", [0, 2])
def test_it_says_whether_it_shows_rows_of_the_data(tmp_path, rows):
    run = finished(made_run(tmp_path))
    measured(run, scored([(0, 10)] * 30))
    assert ("look before you pass it on" in Read(page_of(report(run, rows=rows))).text) == bool(rows)


def test_a_run_without_anything_has_every_part_and_says_what_to_run(tmp_path):
    whole = Read(page_of(report(finished(made_run(tmp_path)))))
    empty = Read(page_of(report(made_run(tmp_path))))
    broken = begun(made_run(tmp_path), steps=1)
    broken.append(Failed(message=f"No memory in {tmp_path}/somewhere {SCRIPT}"))
    failed = Read(page_of(report(broken)))
    for page in (whole, empty, failed):
        assert [id for id in page.every("id") if id] == whole.every("id")
        assert page.names.count("section") == 10
    assert "Not trained yet" in empty.texts
    assert "Failed" in failed.texts
    assert "Not measured yet" in whole.texts
    assert whole.texts.count(f"tunelab evaluate {run_of(whole)}") == 4


def run_of(page: Read) -> str:
    """The id of the run a page is about."""
    return re.search(r"Run (\S+)\. Written by", page.text)[1]


def test_its_date_is_written_where_a_day_has_no_format_of_its_own(monkeypatch):
    """As on Windows."""
    import time

    written = time.strftime
    monkeypatch.setattr(time, "strftime", lambda form, *at: written(form, *at) if "%-" not in form else 1 / 0)
    assert _date(86400 * 3) == "4 January 1970"
    assert _date(0) == ""
