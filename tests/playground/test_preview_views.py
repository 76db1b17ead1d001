"""The preview as HTML: every token once, told apart without colour, nothing of it taken for markup."""

from __future__ import annotations

import re
from html import unescape

import pytest

from playground import views
from playground.looking import Sight
from playground.views import preview as preview_views
from tests.measure.test_pages import Read
from tests.train.test_loop import config
from tunelab import DataSpec, ModelSpec, Stage, overview
from tunelab.data.lengths import lengths_of

EVIL = "<script>alert(1)</script> & \"quotes\" 'too' <b>bold</b> ✓"


def seen_of(tiny, *answers, length=1000, rows=5):
    made = [{"prompt": EVIL, "completion": answer} for answer in answers]
    return overview(
        Stage(data=DataSpec(rows=made, heldout_rows=made)), ModelSpec(repo_id=tiny, max_length=length), rows
    )


def rows_html(seen):
    return views.rows_html(seen.rows, 0, Sight(overview=seen))


def inside(html, tag):
    """The text inside each element of that name."""
    parts = re.findall(f"<{tag}>(.*?)</{tag.split()[0]}>", str(html), re.DOTALL)
    return [unescape(re.sub("<[^>]*>", "", part)) for part in parts]


def test_text_of_rows_is_shown_and_never_markup(tiny):
    html = rows_html(seen_of(tiny, EVIL, "no"))
    assert not {"script", "b"} & set(Read(html).elements)
    assert EVIL in inside(html, 'p class="row" dir="auto"')[0]
    assert inside(html, "mark")[1] == f"{EVIL}<|im_end|>◼"


def test_learned_runs_and_ends_are_marked_by_elements_of_their_own(tiny):
    seen = overview(config(tiny).stages[0], ModelSpec(repo_id=tiny))
    html = rows_html(seen)
    learned = [text for row in seen.rows for text, scored in row.segments if scored]
    assert inside(html, "mark")[1:] == [f"{text}◼" for text in learned]  # the first stands in the legend
    # one more stands in the legend
    assert Read(html).elements.count("abbr") - 1 == sum(piece.is_end for row in seen.rows for piece in row.pieces)
    assert str(html).count('class="token') == sum(len(row.pieces) for row in seen.rows)


def test_what_is_cut_is_struck_through_and_counted(tiny):
    seen = seen_of(tiny, "y" * 700, "yes", length=160)
    html = rows_html(seen)
    assert inside(html, "del")[1] == "y" * 200
    assert f"and {seen.rows[0].cut_tokens - 200:,} more tokens" in html
    assert "⚠ Cut at max_length = 160 tokens" in html
    assert "⚠ 1 of 2 rows cut at max_length = 160 tokens" in html


def test_of_a_very_long_row_the_middle_is_left_out_and_counted(tiny, monkeypatch):
    monkeypatch.setattr(preview_views, "FIRST_SHOWN", 100)
    monkeypatch.setattr(preview_views, "LAST_SHOWN", 20)
    (row, *_) = seen_of(tiny, "y" * 700, "yes").rows
    runs = preview_views.runs(row)
    assert [kind for kind, _pieces in runs] == ["read", "left out", "learned"]
    assert len(runs[0][1]) == 100
    assert [piece for _kind, pieces in runs for piece in pieces] == list(row.pieces)
    assert f"{row.tokens - 120:,} tokens are not shown" in rows_html(seen_of(tiny, "y" * 700, "yes"))


@pytest.mark.parametrize(("tokens", "line"), [([10, 20, 300], True), ([10, 20], False)])
def test_the_chart_says_in_words_what_it_draws(tokens, line):
    lengths = lengths_of(tokens, 100)
    chart = str(preview_views.lengths_chart(lengths))
    assert 'role="img"' in chart
    assert ("1 row longer" if line else "no row is longer") in chart
    assert ("stroke-dasharray" in chart) == line
    assert chart.count("<rect x=") == len(lengths.counts)
    assert ("url(#cut-away)" in chart) == line
