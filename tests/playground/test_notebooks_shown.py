"""Notebooks as the app shows them: what each is about, everything of the project's own in it, nothing dangerous."""

from __future__ import annotations

import html
import json
import os
import re
from html.parser import HTMLParser

import pytest

from playground.views import notebooks
from playground.views.safe_html import safe
from tests.playground import hostile
from tunelab.errors import UserError

ADDRESSES = {"href", "src", "srcset", "action", "background", "data", "poster", "formaction", "ping", "xlink:href"}


class Seen(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(str(page))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return Seen(notebooks.page(hostile.write(tmp_path_factory.mktemp("hostile") / "hostile.ipynb")))


def test_a_hostile_notebook_shows_only_harmless_elements(shown):
    dangerous = "script style iframe object embed form input button video audio link meta base image use animate math "
    dangerous += "foreignobject template noscript xmp plaintext title textarea"
    assert shown.tags & set(dangerous.split()) == set()


def test_a_hostile_notebook_runs_and_fetches_nothing(shown):
    for tag, name, value in shown.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("id", "srcdoc", "name"), (tag, name)
        assert "url(" not in value.casefold()
        assert "position" not in value
        if name in ADDRESSES:
            assert (tag, value[:15]) in [
                ("a", "https://example"),
                ("img", "data:image/png;"),
                ("img", "data:image/svg+"),
            ]


def test_a_hostile_notebook_says_what_was_left_out(shown):
    for what in ("a script", "another page", "a form", "a recording", "a picture that lies elsewhere (remote)"):
        assert f"[left out here: {what}]" in shown.text


def test_what_is_harmless_in_a_hostile_notebook_stays(shown):
    assert {"svg", "rect", "table", "td", "img", "a"} <= shown.tags
    assert ("svg", "aria-label", "kept") in shown.attributes
    for words in ("drawn", "covers", "web", "other", "<img src=x onerror=alert(23)>", "<img src=x onerror=alert(24)>"):
        assert words in shown.text


def test_dollars_of_code_begin_no_formula(tmp_path):
    page = notebooks.page(hostile.write(tmp_path / "hostile.ipynb"))
    assert re.findall(r"\$([^$]*)\$", page)[-1] == "x_{&lt;t}"
    assert page.count("$") == 6
    for code in ("code $5", '"$1"', "cell $6"):
        assert code in html.unescape(re.sub("<[^>]*>", "", page))


def test_a_page_is_one_line_so_that_no_markdown_is_read_into_it(shown, tmp_path):
    assert "\n" not in notebooks.page(hostile.write(tmp_path / "hostile.ipynb"))


@pytest.mark.parametrize(
    "markup",
    [
        "<a href='&#106;avascript:alert(1)'>x</a>",
        "<a href='https:javascript:alert(1)'>x</a>",
        "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
        "<p class='sr-only fixed modal'>x</p>",
        "<img src='data:image/png;base64,x\" onerror=alert(1)'>",
        "<div style='background-image:url(//elsewhere.invalid)'>x</div>",
        "<svg><p><style><!--</style><img src=x onerror=alert(1)>--></style>",
        "<b" + "<b" * 500 + ">x",
    ],
)
def test_tricks_of_markup_leave_nothing_behind(markup):
    seen = Seen(safe(markup))
    assert "script" not in seen.tags
    assert {(name, value) for _tag, name, value in seen.attributes} <= {("class", "output_left_out")}
    assert safe(str(safe(markup))) == safe(markup)


@pytest.mark.parametrize("notebook", notebooks.every_notebook(), ids=lambda one: one.name)
def test_a_notebook_of_the_project_says_its_aim_and_its_measured_time(notebook):
    assert notebook.title != notebook.name
    assert notebook.aim
    assert notebook.needs
    assert 1 < notebook.seconds < 3600


# one with a live picture and a table of its own, one with formulas, one with a table of pandas and charts
@pytest.mark.parametrize("name", ["00_quickstart", "03_lora_from_scratch", "07_method_ladder"])
def test_nothing_of_a_notebook_of_the_project_is_left_out(name):
    path = notebooks.FOLDER / f"{name}.ipynb"
    seen, cells = Seen(notebooks.page(path)), json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [out for cell in cells for out in cell.get("outputs", [])]
    assert "left out here" not in seen.text
    for code in ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]:
        assert code.strip() in seen.text
    for printed in ["".join(out.get("text", "")) for out in outputs]:
        assert printed.strip() in seen.text
    drawn = "".join("".join(out.get("data", {}).get("text/html", "")) for out in outputs)
    assert sum((tag, name) == ("svg", "viewbox") for tag, name, _value in seen.attributes) == drawn.count("<svg")
    assert all(words in seen.text for words in re.findall(r"<td>([^<&]+)</td>", drawn))


def test_a_page_is_made_again_when_its_file_changes(tmp_path):
    path = hostile.write(tmp_path / "one.ipynb")
    first = notebooks.page(path)
    assert notebooks.page(path) is first
    path.write_text(path.read_text().replace("Hostile", "Changed"))
    os.utime(path, ns=(1, 1))
    assert "Changed" in notebooks.page(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cells": [{}]}', "no JSON", '{"cells": 3, "nbformat": 4}'])
def test_a_file_that_is_no_notebook_is_told_in_words(tmp_path, content):
    path = tmp_path / "broken.ipynb"
    path.write_text(content)
    (listed,) = notebooks.every_notebook(tmp_path)
    assert "broken.ipynb" in listed.aim
    with pytest.raises(UserError, match=r"broken\.ipynb"):
        notebooks.page(path)


def test_a_notebook_that_is_gone_or_too_large_is_told_in_words(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"gone\.ipynb can't be read"):
        notebooks.page(tmp_path / "gone.ipynb")
    monkeypatch.setattr(notebooks, "LARGEST", 100)
    with pytest.raises(UserError, match="JupyterLab"):
        notebooks.page(hostile.write(tmp_path / "large.ipynb"))


def test_the_command_names_the_notebook_from_the_projects_folder():
    (first, *_) = notebooks.every_notebook()
    assert notebooks.command(first.path).endswith("jupyter lab notebooks/00_quickstart.ipynb")
