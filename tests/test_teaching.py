"""The teacher's guide tells the truth: its minutes are the notebooks' own, its plans fit into a day, what it quotes is
said by the project."""

from __future__ import annotations

import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from notebooks import timetable
from notebooks.generate import text_of
from notebooks.timetable import FULL_DAY, GUIDE, HALF_DAY, Lesson, lesson, lessons, overview, plan, with_tables
from tests.conftest import REPOSITORY
from tunelab.teach import EMPTY, NO_GUESS

TEXT = GUIDE.read_text(encoding="utf-8")


def made(number="00", computing="5 minutes", words=0, lines=0, guesses=0, exercises=0, questions=0):
    return Lesson(f"{number}_made", "Made", computing, words, lines, guesses, exercises, questions)


def test_its_tables_are_read_from_the_notebooks():
    assert with_tables(TEXT, lessons()) == TEXT, "make them anew: python -m notebooks.timetable"


def test_it_has_every_notebook_of_the_tutorial():
    names = [path.stem for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))]
    assert [one.name for one in lessons()] == names
    assert re.findall(r"^\| \[(\w+)\]", TEXT, re.M) == names


@pytest.mark.parametrize(("day", "most"), [(HALF_DAY, 4.5 * 60), (FULL_DAY, 8 * 60)])
def test_a_plan_fits_into_its_day(day, most):
    every = {one.name[:2]: one.minutes for one in lessons()}
    assert sum(every.get(part) or timetable.BETWEEN[part][0] for part in day) <= most


def test_a_notebook_is_planned_by_what_a_learner_finds_in_it(tmp_path):
    path = tmp_path / "03_made.ipynb"
    first = new_markdown_cell("# Title\n\n**Time.** 3 minutes of computing on two cores without a GPU; and so on.")
    check = new_code_cell("assert True, 'why'", metadata={"tags": ["check"]})
    cells = [first, new_code_cell("my_guess = ...  # of 5\n\nx = 1"), check, new_markdown_cell("one two three")]
    cells.append(new_markdown_cell("## Questions\n1. Why?\n\n2. Where?"))
    path.write_text(text_of(new_notebook(cells=cells)), encoding="utf-8")
    found = lesson(path)
    assert (found.name, found.title, found.computing) == ("03_made", "Title", "3 minutes")
    assert (found.guesses, found.exercises, found.questions, found.lines) == (1, 1, 2, 3)
    assert found.words == sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")


def test_what_nobody_has_measured_is_no_number(tmp_path):
    path = tmp_path / "03_made.ipynb"
    for words in ("**Time.** It has not been measured yet.", "**Time.** About 8 minutes of computing on two cores."):
        path.write_text(text_of(new_notebook(cells=[new_markdown_cell(f"# Title\n\n{words}")])), encoding="utf-8")
        assert lesson(path).computing == ""
    table = overview([made(), made("01", computing="")])
    assert "| not measured |" in table
    assert "| all | 5 minutes, as far as measured |" in table


def test_minutes_of_computing_and_of_people_are_added_and_rounded_up():
    assert made(computing="5 minutes").minutes == 5
    assert made(computing="100 seconds").minutes == 5
    assert made(computing="5 minutes", guesses=1).minutes == 10
    assert (
        made(computing="", words=150, lines=15, guesses=1, exercises=1, questions=1).minutes == 15
    )  # 1 + 1 + 1 + 6 + 2


def test_a_plan_goes_on_when_what_stood_before_is_over():
    text = plan([made("00", guesses=5), made("01")], ("welcome", "00", "break", "01"))
    assert re.findall(r"^\| (\d\d:\d\d)", text, re.M) == ["09:00", "09:10", "09:20", "09:35", "09:40"]
    assert "0 h 40 min after the beginning" in text


def test_a_guide_without_a_place_for_a_table_is_refused():
    with pytest.raises(ValueError, match="half day"):
        with_tables(TEXT.replace("<!-- end of half day -->", ""), lessons())


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)]+)\)", TEXT))))
def test_links_lead_somewhere(target):
    assert (REPOSITORY / target).exists()


def test_the_commands_it_names_are_there():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXT, re.M))
    assert {"lab", "offline-pack", "notebooks", "playground"} <= named <= targets


def test_what_it_quotes_is_said():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    turn = (REPOSITORY / "lib/tunelab/run/turn.py").read_text(encoding="utf-8")
    for words, place in (
        ("Python 3.11 or newer is needed", makefile),
        ("Nothing written yet", EMPTY),
        ("No guess yet", NO_GUESS),
        ("has finished", turn),
    ):
        assert words in TEXT
        assert words in place
