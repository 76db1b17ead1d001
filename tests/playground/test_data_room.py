"""The Data room without a browser: what is found out about rows, which choice a trouble is about, and what is shown."""

from __future__ import annotations

import csv
import json
import threading
from collections import Counter
from copy import deepcopy
from pathlib import Path

import gradio as gr
import pytest
from pydantic import ValidationError

from playground import data_form, looking, views
from playground.chosen_rows import kept, pasted_file, stage_of
from playground.jobs import Jobs
from playground.looking import SHOWN, Sight, look, rows_from
from playground.parts.shared import Shared
from playground.rooms import data
from playground.troubles import Trouble, where_wrong
from playground.views.data import labels_chart
from tests.measure.test_pages import Read
from tunelab import DataSpec, ModelSpec, Stage, UserError, hand_over, read_data
from tunelab.errors import explain

EVIL = '<img src=x onerror=alert(1)> **b** $x$ <|im_end|> "q"'
SHAPES = sorted(
    p for p in (Path(__file__).parents[1] / "shapes").iterdir() if p.name not in ("README.md", "expected.json")
)
VALUES = {
    **{"kind": "builtin", "builtin": "python-docs", "file": None, "pasted": "", "hub": "", "subset": "", "split": ""},
    **{"handed": None, "learn": "instructions", "template": "", "system": "", "labels": "", "header": "auto"},
    **{"heldout": "auto", "amount": 0.1, "seed": 0, "heldout_file": None, "limit": None},
}


def table(path, rows, names=("question", "answer")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return str(path)


def tickets(count=60):
    return [
        (f"Ticket {n}: {EVIL} {'word ' * (n % 7)}", ("billing", "shipping", "returns")[n % 3]) for n in range(count)
    ]


def seen(tiny, source, learn="instructions", **data):
    """The last that is known of rows."""
    stage = Stage(data=DataSpec(source=str(source), **data), learn=learn)
    return list(look(stage, ModelSpec(repo_id=tiny)))[-1]


# which choice a trouble is about


def test_columns_that_are_not_recognised_are_told_beside_the_first_role_with_some_that_would_do(tiny, tmp_path):
    sight = seen(tiny, table(tmp_path / "t.csv", tickets(), ("Nachricht", "Sorte")))
    assert sight.trouble.where == "prompt"
    assert sight.trouble.use == {"prompt": "Nachricht", "completion": "Sorte"}
    assert sight.columns == ("Nachricht", "Sorte")
    assert not sight.is_ready
    mended = seen(tiny, tmp_path / "t.csv", columns=sight.trouble.use)
    assert mended.trouble is None
    assert mended.is_ready


@pytest.mark.parametrize(
    ("role", "given", "nearest"), [("completion", "anwser", "answer"), ("prompt", "Queston", "question")]
)
def test_a_wrong_column_is_told_beside_its_role_with_the_nearest_one(tiny, tmp_path, role, given, nearest):
    trouble = seen(tiny, table(tmp_path / "t.csv", tickets()), columns={role: given}).trouble
    assert trouble.where == role
    assert trouble.use == {role: nearest}
    assert given in trouble.words
    assert "'question', 'answer'" in trouble.words


def test_before_columns_are_chosen_the_rows_stand_there_as_they_are(tiny, tmp_path):
    long = "x" * 400
    sight = seen(tiny, table(tmp_path / "t.csv", [(EVIL, long), *tickets(10)], ("Nachricht", "Sorte")))
    assert sight.raw[0] == {"Nachricht": EVIL, "Sorte": long}
    assert len(sight.raw) == SHOWN
    page = Read(str(views.rows_html(sight.rows, 0, sight)))
    assert EVIL in page.texts
    assert f"{'x' * 300} … and 100 more characters" in page.texts
    assert page.elements.count("th") == 2
    assert not {"img", "script"} & set(page.elements)
    wide = seen(tiny, table(tmp_path / "w.csv", [range(25)] * 3, [f"column{n}" for n in range(25)]))
    page = Read(str(views.rows_html(wide.rows, 0, wide)))
    assert page.elements.count("th") == 20
    assert "… and 5 more columns" in page.texts


@pytest.mark.parametrize(
    ("choices", "where"),
    [
        ({"heldout": 5000}, "heldout"),
        ({"labels": {"x": "y"}}, "labels"),
        ({"fixes": ("drop-leaked",)}, "fixes"),
        ({"template": "{quest}"}, "template"),
    ],
)
def test_a_trouble_stands_beside_the_choice_without_which_there_is_none(tiny, tmp_path, choices, where):
    assert seen(tiny, table(tmp_path / "t.csv", tickets()), **choices).trouble.where == where


def test_a_file_of_text_is_offered_to_be_read_as_text(tiny, tmp_path):
    (tmp_path / "t.txt").write_text("A line of text. " * 200)
    trouble = seen(tiny, tmp_path / "t.txt").trouble
    assert (trouble.where, trouble.use) == ("learn", {"learn": "text"})
    assert seen(tiny, tmp_path / "t.txt", learn="text").is_ready


def test_a_table_without_a_header_is_offered_to_be_read_without_one_and_its_columns_are_asked_for(tiny):
    source = Path(__file__).parents[1] / "shapes" / "no_header.csv"
    trouble = seen(tiny, source).trouble
    assert (trouble.where, trouble.use) == ("header", {"header": "none"})
    sight = seen(tiny, source, **trouble.use)
    assert sight.trouble.where == "prompt"
    assert sight.raw[0] == {"column1": "3", "column2": "Wall St. slips", "column3": "Shares fell"}


def test_a_source_that_cannot_be_read_is_told_beside_the_source(tiny, tmp_path):
    for content in ("", "prompt,completion\nx,\ny,\n"):
        (tmp_path / "t.csv").write_text(content)
        assert seen(tiny, tmp_path / "t.csv").trouble.where == "source"


# what is found out


def test_broken_rows_are_named_and_counted_and_the_others_are_trained_on(tiny, tmp_path):
    rows = [["too", "many", "cells"] if n in (16, 40) else row for n, row in enumerate(tickets())]
    sight = seen(tiny, table(tmp_path / "t.csv", rows))
    assert sight.is_ready
    assert sight.train + sight.heldout == 58
    assert [where for where, _reason in sight.account.bad] == ["line 18", "line 42"]
    for html in (views.summary_html(sight), views.division_html(sight)):
        assert "2 rows left out, as they can&#39;t be read: line 18, line 42" in str(html)


def test_a_fix_mends_what_was_found_and_undone_it_is_found_again(tiny, tmp_path):
    source = table(tmp_path / "t.csv", [*tickets(), *[("same", "billing")] * 5])
    kinds = [
        {f.kind for f in seen(tiny, source, fixes=fixes).examination.findings} for fixes in ((), ("drop-duplicates",))
    ]
    assert kinds[0] - kinds[1] == {"duplicates"}
    mended = seen(tiny, source, fixes=("drop-duplicates",))
    assert mended.train + mended.heldout == 61
    html = str(views.findings_html(mended))
    assert "4 rows dropped" in html
    assert 'data-value="drop-duplicates">Undo' in html


def test_labels_are_counted_on_both_sides(tiny, tmp_path):
    source = table(tmp_path / "t.csv", tickets())
    split = read_data(DataSpec(source=source))
    sides = [Counter(example.answer for example in side) for side in (split.train, split.heldout)]
    labels = seen(tiny, source).labels
    assert {one.label: (one.train, one.heldout) for one in labels} == {
        name: (sides[0][name], sides[1][name]) for name in sides[0]
    }
    chart = str(labels_chart(labels))
    assert chart.count("<rect") == 2 + 1 + 2 * len(labels)  # legend, pattern, two a label
    assert f"billing: {sides[0]['billing']} to train on, {sides[1]['billing']} held out" in chart


def test_what_is_made_of_the_rows_says_how_many_and_proposes_a_metric(tiny, tmp_path):
    material = views.material_of(seen(tiny, table(tmp_path / "t.csv", tickets()), heldout=10))
    assert material.summary == "50 rows to train on, 10 held out"
    assert material.metric == "accuracy"
    assert hash(material) == hash(views.material_of(seen(tiny, tmp_path / "t.csv", heldout=10)))


def test_one_row_can_be_looked_at_and_nothing_is_made_of_it(tiny, tmp_path):
    sight = seen(tiny, table(tmp_path / "t.csv", tickets(1)))
    assert len(sight.rows) == 1
    assert views.material_of(sight) is None
    assert "nothing can be held out" in str(views.summary_html(sight))


def test_where_nothing_is_scored_the_reason_is_told_and_nothing_is_made_of_the_rows(tiny, tmp_path):
    stage = Stage(data=DataSpec(source=table(tmp_path / "t.csv", tickets())))
    sight = list(look(stage, ModelSpec(repo_id=tiny, max_length=16)))[-1]
    assert views.material_of(sight) is None
    assert "Nothing is scored in any of 54 rows" in str(views.summary_html(sight))


def test_pages_show_every_row_once(tiny, tmp_path):
    stage = Stage(data=DataSpec(source=table(tmp_path / "t.csv", tickets(15))))
    texts, more, first = [], True, 0
    while more:
        rows, more = rows_from(stage, ModelSpec(repo_id=tiny), first)
        texts += ["".join(piece.text for piece in row.pieces) for row in rows]
        first += SHOWN
    train = read_data(stage.data).train
    assert len(texts) == len(train)
    assert all(example.messages[-1].content in text for example, text in zip(train, texts, strict=True))


def test_of_a_large_file_the_first_rows_are_shown_before_all_are_read(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "LARGE", 10)
    stage = Stage(data=DataSpec(source=table(tmp_path / "t.csv", tickets())))
    sights = list(look(stage, ModelSpec(repo_id=tiny)))
    part = next(sight for sight in sights if sight.rows)
    assert part.is_part
    assert views.material_of(part) is None
    assert not sights[-1].is_part
    assert sights[-1].is_ready


def test_a_look_that_is_over_shows_nothing_more_and_its_thread_ends(tiny, tmp_path):
    over = threading.Event()
    stage = Stage(data=DataSpec(source=table(tmp_path / "t.csv", tickets())))
    sights = look(stage, ModelSpec(repo_id=tiny), over.is_set)
    next(sights)
    over.set()
    assert list(sights) == []
    for thread in threading.enumerate():
        if thread.name == "look":
            thread.join(60)
            assert not thread.is_alive()


def test_a_model_that_cannot_be_had_leaves_everything_but_the_tokens(tmp_path):
    sight = seen(str(tmp_path / "no-model"), table(tmp_path / "t.csv", tickets()))
    assert sight.model_trouble
    assert sight.is_ready
    assert sight.raw[1]["answer"] == "shipping"
    assert sight.examination.findings


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.name)
def test_files_of_every_shape_are_shown_or_explained(tiny, path):
    sight = seen(tiny, path)
    assert sight.progress == ""
    assert bool(sight.rows) != bool(sight.trouble or sight.model_trouble)
    for make in (views.summary_html, views.mapping_html, views.findings_html, views.pictures_html, views.division_html):
        assert not {"img", "script"} & set(Read(str(make(sight))).elements)


# looks that are asked for one after the other, and begun or ended in another order


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Asks for a look at a built-in set at a time of the page's clock; its updates, as Gradio takes them."""
    with gr.Blocks() as page, gr.Tab("Data") as tab:
        given = gr.Tabs(), gr.State(None), gr.State(None), gr.Button()
        data.build(Shared(page, Jobs(tmp_path), None, *given), tab)
    look = next(one for one in page.fns.values() if one.name == "handler" and one.js == data.CLOCK)
    monkeypatch.setattr(data, "look", lambda stage, model, is_over: (Sight(stage, words) for words in ("reads", "")))

    def asked(turns, clock, source):
        values = [source if one.elem_id == "data-builtin" else one.value for one in look.inputs[4:]]
        return look.fn(str(clock), turns, ModelSpec(repo_id="starter"), (), *values)

    return asked


def rows_shown(update):
    """Of which rows an update is; nothing of one that changes nothing."""
    return next((value.data.source for value in update.values() if isinstance(value, Stage)), None)


def test_a_look_that_begins_after_a_newer_one_shows_nothing(ask):
    turns = data.Turns()
    newer = ask(turns, 2.0, "text-to-sql")
    assert rows_shown(next(newer)) == "text-to-sql"
    assert [rows_shown(update) for update in ask(turns, 1.0, "python-docs")] == [None]
    assert [rows_shown(update) for update in newer] == ["text-to-sql"]


def test_a_look_is_over_when_a_newer_one_is_asked_for(ask):
    turns = data.Turns()
    older = ask(turns, 1.0, "python-docs")
    assert rows_shown(next(older)) == "python-docs"
    newer = ask(turns, 2.0, "text-to-sql")
    threading.Timer(0.1, lambda: list(older)).start()
    assert [rows_shown(update) for update in newer] == ["text-to-sql"] * 2


def test_a_newer_look_says_nothing_until_what_an_older_one_said_has_reached_the_page(ask, monkeypatch):
    turns, reached = data.Turns(), []
    older, newer = ask(turns, 1.0, "python-docs"), ask(turns, 2.0, "text-to-sql")
    next(older)  # Gradio has it and has not sent it yet
    thread = threading.Thread(target=lambda: reached.extend(map(rows_shown, newer)))
    thread.start()
    thread.join(0.3)
    assert reached == []
    assert [rows_shown(update) for update in older] == [None]  # sent; Gradio came back
    thread.join(30)
    assert reached == ["text-to-sql"] * 2
    monkeypatch.setattr(data, "LONGEST_WAIT", 0.1)
    left = ask(turns, 3.0, "python-docs")
    next(left)  # the page has left, and nobody comes back
    assert [rows_shown(update) for update in ask(turns, 4.0, "text-to-sql")] == ["text-to-sql"] * 2


def test_every_page_has_turns_of_its_own():
    turns = data.Turns()
    turns.take(3.0)
    assert not deepcopy(turns).is_over(1.0)


# what is shown of hostile text


def test_cells_columns_and_names_are_shown_as_text(tiny, tmp_path):
    rows = [(f"{EVIL} {n}", EVIL if n % 2 else "plain") for n in range(40)] + [[EVIL] * 5]
    sight = seen(
        tiny,
        table(tmp_path / "t.csv", rows, (EVIL, f"{EVIL}2")),
        header="first row",
        columns={"prompt": EVIL, "completion": f"{EVIL}2"},
    )
    assert sight.is_ready
    wrong = Trouble("source", EVIL, {"prompt": EVIL})
    made = [views.rows_html(sight.rows, 0, sight), views.trouble_html(wrong), views.builtin_html(EVIL)]
    makers = (views.summary_html, views.mapping_html, views.findings_html, views.pictures_html, views.division_html)
    made += [make(sight) for make in makers]
    assert sum("onerror" in str(html) for html in made) >= 5
    for html in made:
        assert not {"img", "script"} & set(Read(str(html)).elements)
    (value,) = Read(str(views.trouble_html(wrong))).every("data-value")
    assert json.loads(value) == {"prompt": EVIL}


# the form


def test_the_form_describes_what_was_chosen(tmp_path):
    jobs = Jobs(tmp_path / "runs")
    file = table(tmp_path / "t.csv", tickets())
    values = VALUES | {
        "kind": "file",
        "file": file,
        "role.prompt": "question",
        "role.completion": "",
        "template": "Q: {question}",
    }
    values |= {
        "labels": "billing = money\n\nshipping=parcels",
        "heldout": "amount",
        "amount": 7,
        "limit": 20,
        "seed": 3,
    }
    data = stage_of(values, ("drop-duplicates",), jobs).data
    assert Path(data.source).read_text() == Path(file).read_text()
    assert jobs.root in Path(data.source).parents
    assert data.columns == {"prompt": "question"}
    assert data.labels == {"billing": "money", "shipping": "parcels"}
    assert (data.heldout, data.limit, data.seed, data.fixes) == (7, 20, 3, ("drop-duplicates",))
    assert data.template == "Q: {question}"


@pytest.mark.parametrize("kind", ["file", "paste", "hub", "handed"])
def test_nothing_is_read_before_rows_are_chosen(tmp_path, kind):
    assert stage_of(VALUES | {"kind": kind}, (), Jobs(tmp_path)) is None


@pytest.mark.parametrize("name", ["/etc/passwd", "uploads/x.csv", "../runs", "lib/tunelab", "~/x.csv", "a/b/c"])
def test_the_hub_field_reads_no_file_of_the_machine(tmp_path, name):
    with pytest.raises(UserError, match="is no id of a data set"):
        stage_of(VALUES | {"kind": "hub", "hub": name}, (), Jobs(tmp_path))


def test_a_line_of_labels_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match="Line 2 of the words for labels, 'ham'"):
        stage_of(VALUES | {"labels": "0 = spam\nham"}, (), Jobs(tmp_path))


@pytest.mark.parametrize(
    ("choices", "where", "words"),
    [
        ({"heldout": "file"}, "heldout", "No file of held-out rows is given"),
        ({"heldout": "amount", "amount": None}, "heldout", "How many rows are held out is empty"),
        ({"heldout": "amount", "amount": 0}, "heldout", "a share between 0 and 1"),
        ({"heldout": "amount", "amount": 2.6}, "heldout", "a whole number of rows"),
        ({"seed": -1}, "heldout", "seed = -1"),
        ({"limit": 0}, "limit", "limit = 0"),
        ({"limit": 2.6}, "limit", "limit = 2.6"),
        ({"labels": "ham"}, "labels", "Line 1"),
        ({"kind": "hub", "hub": "my heldout"}, "source", "is no id"),
    ],
)
def test_a_choice_that_cannot_be_is_told_beside_it_and_no_other_is_taken_for_it(tmp_path, choices, where, words):
    with pytest.raises((UserError, ValidationError)) as wrong:
        stage_of(VALUES | choices, (), Jobs(tmp_path))
    assert where_wrong(wrong.value) == where
    assert words in explain(wrong.value)


def test_what_was_chosen_for_other_rows_is_forgotten_with_them():
    sources = {"kind", "file", "pasted", "hub", "subset", "split", "handed", "builtin"}
    assert {**VALUES, **data_form.UNCHOSEN} == VALUES
    assert data_form.UNCHOSEN.keys() == VALUES.keys() - sources - {
        "amount",
        "seed",
    }  # these two say nothing by themselves


def test_only_what_was_handed_over_can_be_chosen_as_handed_over(tmp_path):
    jobs = Jobs(tmp_path / "runs")
    handed = hand_over([{"prompt": "a", "completion": "b"}] * 2, "mine", jobs.root)
    assert stage_of(VALUES | {"kind": "handed", "handed": str(handed.path)}, (), jobs).data.source == str(handed.path)
    with pytest.raises(UserError, match="not there any more"):
        stage_of(VALUES | {"kind": "handed", "handed": table(tmp_path / "t.csv", tickets())}, (), jobs)


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("question,answer\na,b\nc,d\n", ".csv"),
        ("question\tanswer\na\tb\nc\td\n", ".csv"),
        ('[{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]', ".json"),
        ('{"question": "a", "answer": "b"}\n{"question": "c", "answer": "d"}\n', ".json"),
    ],
)
def test_what_is_pasted_is_read_as_what_it_is_and_kept_when_it_is_trained_on(tmp_path, monkeypatch, text, suffix):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    path = pasted_file(text)
    assert path.suffix == suffix
    split = read_data(DataSpec(source=str(path)))
    assert {(e.prompt, e.answer) for e in (*split.train, *split.heldout)} == {("a", "b"), ("c", "d")}
    jobs = Jobs(tmp_path / "runs")
    stage = kept(Stage(data=DataSpec(source=str(path))), jobs)
    assert jobs.root in Path(stage.data.source).parents
    assert Path(stage.data.source).read_text() == text


def test_every_role_of_the_form_is_one_that_rows_can_have():
    roles = (*data_form.MAIN, *data_form.TEXT, *data_form.OTHERS)
    assert DataSpec(source="general", columns=dict.fromkeys(roles, "x")).columns
