"""What a notebook shows: answers side by side, results, the loss mask; the same without its styles, and no markup of
somebody's text."""

from __future__ import annotations

import pytest
from bs4 import BeautifulSoup

from playground.views.safe_html import safe
from tests.measure.card import made
from tests.measure.changes.made import scored
from tunelab import DataSpec, ModelSpec, Stage, preview, show
from tunelab.answer.question import Answer, Comparison, Provenance
from tunelab.measure.charts import line_chart

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def answered(prompt, *texts, ends="end of turn"):
    origin = Provenance("tiny", "b" * 64, None, "float32", "chatml", "greedy")
    labels = ("base", "tuned", "other")
    answers = [Answer(labels[n], text, 5, ends, 0.1, origin, column=n) for n, text in enumerate(texts)]
    return Comparison(prompt, None, tuple(answers), done=True)


def read(shown):
    return BeautifulSoup(shown._repr_html_(), "html.parser")


def rows_of(page):
    return [row.find_all("td") for row in page.select("tbody tr")]


def test_answers_stand_side_by_side_under_who_gave_them():
    page = read(show([answered("2 + 2?", "It is five.", "4"), answered("3 + 3?", "seven", "6")]))
    assert [head.text for head in page.select("th")] == ["asked", "base", "tuned"]
    assert [[cell.text for cell in row] for row in rows_of(page)] == [
        ["2 + 2?", "It is five.", "4"],
        ["3 + 3?", "seven", "6"],
    ]
    assert "base: tiny" in page.text


def test_an_answer_as_wanted_has_a_tick_and_another_one_its_wrong_words_struck_out():
    page = read(show(answered("which?", "a red lamp", "a blue lamp"), wanted="a blue lamp"))
    ((_prompt, base, tuned, wanted),) = rows_of(page)
    assert [part.text.strip() for part in base.select("del")] == ["red"]
    assert not base.select("b")
    assert tuned.find("b").text == "✓"
    assert not tuned.select("del, ins")
    assert wanted.text == "a blue lamp"


def test_without_what_was_wanted_answers_are_compared_with_each_other():
    ((_prompt, base, tuned),) = rows_of(read(show(answered("which?", "a red lamp", "a blue lamp"))))
    assert [part.text.strip() for part in base.select("del")] == ["red"]
    assert [part.text.strip() for part in tuned.select("ins")] == ["blue"]
    assert not base.select("b") + tuned.select("b")


def test_of_three_columns_the_first_is_shown_as_it_is():
    ((_prompt, *sides),) = rows_of(read(show(answered("which?", "a red lamp", "a blue lamp", "a red lamp"))))
    assert [len(side.select("del, ins")) for side in sides] == [0, 1, 0]


def test_an_answer_that_was_cut_says_so():
    page = read(show(answered("which?", "a red", "a blue", ends="length")))
    assert page.text.count("cut at 5 tokens") == 2


def test_nobodys_text_is_markup():
    shown = show(answered(HOSTILE, HOSTILE, HOSTILE + "!"), wanted=HOSTILE)
    assert not read(shown).select("script, img")
    assert HOSTILE in read(shown).text


def test_every_prompt_needs_its_wanted_answer():
    with pytest.raises(ValueError, match="1 wanted answers for 2 prompts"):
        show([answered("a", "b"), answered("c", "d")], wanted=["b"])


def test_something_else_is_refused_by_its_kind():
    with pytest.raises(TypeError, match="not dict"):
        show({})
    with pytest.raises(TypeError, match="not list"):
        show([])


def test_a_run_shows_where_it_stands_and_its_curves(tmp_path):
    run = made.finished(made.made_run(tmp_path))
    page = read(show(run))
    assert page.find("b").text == "Not measured yet"
    assert "Loss per scored token (nats)" in page.find("svg")["aria-label"]
    assert not read(show(made.made_run(tmp_path, name="new"))).select("svg")


def test_a_report_shows_its_verdict_and_every_figure(tmp_path):
    run = made.finished(made.made_run(tmp_path))
    report = made.measured(run, scored([(0, 31)] * 30))
    for page in (read(show(report)), read(show(run))):
        assert page.find("b").text == "Better"
        assert "+31 points won, 95 % interval 25 to 37" in page.text
        cells = [cell.text for cell in page.find("th", string="points won (the task's metric)").parent.select("td")]
        assert cells[:3] == ["0.0", "31.0", "+31.0"]
    assert "Verdict on 30 held-out rows" in repr(show(report))


def test_the_mask_marks_what_is_learned_and_nothing_else(tiny):
    data = DataSpec(rows=[{"prompt": f"Which colour has {n}?", "completion": "red"} for n in range(4)], heldout=1)
    (row, *_), _notes = preview(Stage(data=data), ModelSpec(repo_id=tiny), rows=1)
    page = read(show([row]))
    marked = "".join(mark.text for mark in page.select("mark"))
    assert marked == "".join(text for text, learned in row.segments if learned)
    assert marked.startswith("red")
    assert f"{row.scored_tokens} of them learned" in page.text


def test_a_chart_is_shown_as_it_is():
    chart = line_chart({"loss": [(0, 1), (1, 2)]}, title="Loss")
    assert show(chart)._repr_html_() == str(chart)


def test_a_terminal_gets_words():
    assert repr(show(answered("2 + 2?", "five", "4"), wanted="4")) == "asked: 2 + 2?\nbase: five\ntuned: 4\nwanted: 4"


def test_where_styles_are_taken_away_ticks_and_marks_are_left():
    html = show(answered("which?", "a red lamp", "a blue lamp"), wanted="a blue lamp")._repr_html_()
    page = BeautifulSoup(str(safe(html)), "html.parser")
    assert "✓" in page.text
    assert [part.text.strip() for part in page.select("del")] == ["red"]
