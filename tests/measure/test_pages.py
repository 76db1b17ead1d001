"""Pages and charts: what people and files are called stands in them as text, escaped exactly once."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from tests.helpers import ROWS
from tests.measure.test_ladder import config
from tunelab import DataSpec, Ladder, LoRA, ModelSpec, Progress, RunConfig, Stage
from tunelab.measure.charts import STYLES, interval_chart, line_chart, loss_chart, paired_chart
from tunelab.measure.pages import ladder_page

NAME = '<script>alert(1)</script>&"'
FILE = '<img src=x onerror=alert(1)>&".csv'


class Read(HTMLParser):
    """A page as a browser reads it: its elements, their attributes, the texts between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attributes

    def handle_data(self, text: str) -> None:
        if text.strip():
            self.texts.append(text.strip())

    def every(self, attribute: str) -> list[str | None]:
        return [value for name, value in self.attributes if name == attribute]


def test_names_in_the_ladders_page_are_text():
    asked = config("starter", "ia3").model_copy(
        update={"data": DataSpec(source=FILE), "model": ModelSpec(repo_id=NAME)}
    )
    page = Read(ladder_page(Ladder.create(asked)))
    assert not {"script", "img"} & set(page.elements)
    assert f"Method ladder: {FILE}" in page.texts
    (words,) = [text for text in page.texts if text.startswith("Every technique on the same rows")]
    assert FILE in words
    assert words.endswith(f"Base: {NAME}.")


def test_names_in_charts_are_text_for_the_eye_and_for_a_screen_reader():
    lines = Read(line_chart({NAME: [(0, 1.0), (1, 2.0)]}, title=NAME, x_title=NAME, marks=[(0, NAME)]))
    intervals = Read(interval_chart([(NAME, 1.0, 0.5, 1.5)], title=NAME, reference=0.0, reference_name=NAME))
    pairs = Read(paired_chart([(2.0, 1.0)], title=NAME, names=(NAME, NAME), x_title=NAME))
    for chart, words in (
        (lines, f"{NAME}: {NAME} from 1 to 2"),
        (intervals, f"{NAME}: {NAME} 0; {NAME} 1 (0.5 to 1.5)"),
        (pairs, f"{NAME}: 1 rows; {NAME} lower in 1, higher in 0"),
    ):
        assert chart.every("aria-label") == [words]
        assert "script" not in chart.elements
    assert lines.texts.count(NAME) == 4  # title, axis, mark, name of the line
    assert intervals.texts.count(NAME) == 3


def test_a_stages_name_is_text_in_the_chart_of_its_run():
    stages = tuple(Stage(data=DataSpec(rows=ROWS), name=name) for name in (NAME, "after it"))
    asked = RunConfig(model=ModelSpec(repo_id="starter"), technique=LoRA(), stages=stages)
    chart = Read(loss_chart(Progress("running", ""), asked))
    assert NAME in chart.texts


def test_a_chart_draws_every_line_it_is_given():
    names = [f"line {number}" for number in range(len(STYLES) + 3)]
    chart = Read(line_chart({name: [(0, 1.0), (1, number)] for number, name in enumerate(names)}, title="t"))
    assert chart.elements.count("polyline") == len(names)
    assert set(names) <= set(chart.texts)


def test_a_paired_chart_has_every_row_in_the_order_of_what_it_was_before():
    chart = Read(paired_chart([(5.0, 1.0), (1.0, 2.0), (3.0, 3.0), (2.0, float("nan"))], title="t"))
    before = [element for element in _circles(chart) if element["fill"] == "none"][:-1]  # the last one explains them
    after = [element for element in _circles(chart) if element["fill"] != "none"][:-1]
    assert [float(one["cx"]) for one in before] == sorted(float(one["cx"]) for one in before)
    assert [one["cx"] for one in before] == [one["cx"] for one in after]
    heights = [float(one["cy"]) for one in before]
    assert heights == sorted(heights, reverse=True)  # what is more stands higher
    up, level, down = (float(b["cy"]) - float(a["cy"]) for a, b in zip(after, before, strict=True))
    assert level == 0 < up
    assert down == pytest.approx(-4 * up, abs=0.5)
    assert chart.every("aria-label") == ["t: 3 rows; tuned lower in 1, higher in 1"]
    assert {"base", "tuned"} <= set(chart.texts)


def test_a_paired_chart_of_nothing_is_empty():
    assert Read(paired_chart([], title="t")).every("aria-label") == ["t: 0 rows; tuned lower in 0, higher in 0"]


def _circles(chart: Read) -> list[dict[str, str | None]]:
    places = [index for index, (name, _value) in enumerate(chart.attributes) if name == "cx"]
    return [dict(chart.attributes[place : place + 4]) for place in places]
