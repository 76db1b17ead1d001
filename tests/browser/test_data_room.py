"""From a file of one's own to data that is trained on, in a real browser: reading nothing but the page."""

from __future__ import annotations

import csv
import json
from contextlib import suppress

import pytest
from playwright.sync_api import TimeoutError, expect

from tests.browser.conftest import PATIENCE, shot, text, wait_for_text, wait_for_words
from tests.conftest import REPOSITORY
from tests.helpers import ROWS

EVIL = "<img src=x onerror=alert(1)> **bold** $x^2$ <|im_end|>"


@pytest.fixture
def room(page):
    """The page with its Data room open."""
    page.get_by_role("tab", name="Data", exact=True).click()
    page.locator("#data-kind").wait_for()
    return page


def choose(page, kind):
    page.locator("#data-kind").get_by_role("radio", name=kind, exact=True).check()
    page.locator(f"#data-panel-{kind.lower()}").wait_for()


def give(page, path):
    """Upload a file in the Data room."""
    choose(page, "File")
    page.locator("#data-file input[type=file]").set_input_files(path)
    page.locator("#data-file").get_by_text(path.stem).first.wait_for()


def wait_until_ready(page, wanted):
    """Until so many rows can be trained on, and all is known of them."""
    wait_for_text(page, "data-summary", wanted)
    page.wait_for_function(
        "!document.querySelector('#data-summary .working') && !document.querySelector('#train-on-this').disabled",
        timeout=120_000 * PATIENCE,
    )


def tickets(path, names=("Nachricht", "Sorte")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = [[f"Ticket {n}: {EVIL}", ("billing", "shipping")[n % 2]] for n in range(60)]
        rows[16] = rows[40] = ["one", "cell", "too", "many"]
        csv.writer(file).writerows([names, *rows, *[["The same again.", "billing"]] * 4])
    return path


def test_a_file_with_unknown_columns_is_mended_by_a_press_and_stands_in_train(room, app, tmp_path, starter):
    dialogs = []
    room.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    give(room, tickets(tmp_path / "tickets.csv"))
    wait_for_text(room, "data-trouble-prompt", "no columns to learn from were recognised.*'Nachricht', 'Sorte'")
    expect(room.locator("#train-on-this")).to_be_disabled()
    wait_for_words(room, "data-summary", "What is wrong stands on the left")
    shot(room, "data-trouble")
    room.locator("#data-trouble-prompt button").click()
    wait_until_ready(room, "56\\s*to train on · 6\\s*held out · measured by accuracy")
    wait_for_words(room, "data-summary", "2 rows left out, as they can't be read: line 18, line 42")
    expect(room.locator("#data-trouble-prompt .trouble")).to_have_count(0)
    wait_for_words(room, "data-rows", EVIL)
    expect(room.locator("#data-rows img")).to_have_count(0)
    shot(room, "data-rows")
    room.locator("#train-on-this").click()
    wait_for_text(room, "material", "tickets.csv · 56 rows to train on, 6 held out")
    assert not dialogs


def test_a_wrong_column_is_told_beside_its_drop_down_with_the_nearest(room, app, tmp_path, starter):
    give(room, tickets(tmp_path / "named.csv", ("question", "answer")))
    wait_until_ready(room, "to train on")
    field = room.locator("#data-role-completion input")
    for patience in (10, 20, 60 * PATIENCE):  # the page may draw the button anew just below the press
        field.fill("anwser")
        field.press("Enter")
        expect(field).to_have_value("anwser")
        wait_for_text(
            room, "data-trouble-completion", "there is no column 'anwser'.*'question', 'answer'.*Use “answer”"
        )
        with suppress(TimeoutError):
            room.locator("#data-trouble-completion button").click(timeout=patience * 1000)
            break
    wait_until_ready(room, "to train on")
    expect(field).to_have_value("answer")


def test_a_card_mends_what_was_found_and_its_fix_can_be_undone(room, app, tmp_path, starter):
    give(room, tickets(tmp_path / "twice.csv", ("question", "answer")))
    wait_until_ready(room, "to train on")
    room.locator("#data-views").get_by_role("tab", name="Findings").click()
    room.get_by_role("button", name="Mend: keeps the first of equal rows").click()
    wait_for_text(room, "data-findings", "Mended: keeps the first of equal rows.*3 rows dropped")
    wait_until_ready(room, "53\\s*to train on")
    shot(room, "data-mended")
    room.get_by_role("button", name="Undo").click()
    wait_until_ready(room, "56\\s*to train on")
    assert "Mended" not in text(room, "data-findings")


def test_what_is_pasted_is_read_when_the_writing_pauses_and_is_kept_when_it_is_trained_on(room, app, starter):
    choose(room, "Paste")
    room.locator("#data-pasted textarea").fill("\n".join(json.dumps(row) for row in ROWS))
    wait_until_ready(room, "to train on")
    assert not list(app.root.glob("uploads/*/pasted*"))
    room.locator("#train-on-this").click()
    wait_for_text(room, "material", "pasted.json")
    assert len(list(app.root.glob("uploads/*/pasted.json"))) == 1


def test_a_choice_that_cannot_be_is_told_beside_it_where_it_can_be_seen(room, app, tmp_path, starter):
    give(room, REPOSITORY / "tests" / "shapes" / "no_header.csv")
    room.locator("#data-trouble-header button").click()  # in a drawer that was closed
    wait_for_text(room, "data-rows", "column2.*Wall St. slips")
    room.locator("#data-file").get_by_label("Clear").click()
    room.locator("#data-file input[type=file]").wait_for(state="attached")
    give(room, tickets(tmp_path / "seen.csv", ("question", "answer")))
    wait_until_ready(room, "to train on")
    limit = room.locator("#data-limit input")
    limit.fill("0")
    wait_for_text(room, "data-trouble-limit", "limit = 0")
    expect(room.locator("#train-on-this")).to_be_disabled()
    limit.fill("20")
    wait_until_ready(room, "20\\s*to train on")
    room.locator("#data-heldout-part .label-wrap").first.click()
    room.locator("#data-heldout").get_by_label("a file of its own").check()
    wait_for_text(room, "data-trouble-heldout", "No file of held-out rows is given")
    room.locator("#data-heldout").get_by_label("by itself").check()
    wait_until_ready(room, "20\\s*to train on")
    limit.fill("10")
    room.locator("#train-on-this").click()  # before it was read
    wait_for_text(room, "data-message", "rows are being read again")
    wait_until_ready(room, "10\\s*to train on")
    room.locator("#train-on-this").click()
    wait_for_text(room, "material", "10 rows to train on")


def test_what_one_browser_uploads_another_does_not_see(room, app, browser, tmp_path, starter):
    give(room, tickets(tmp_path / "secret.csv", ("question", "answer")))
    wait_until_ready(room, "to train on")
    context = browser.new_context()
    other = context.new_page()
    other.goto(app.url)
    other.get_by_role("tab", name="Data", exact=True).click()
    wait_for_text(other, "data-summary", "to train on")
    assert "secret.csv" not in other.content()
    context.close()


def test_a_data_set_of_the_hub_without_a_network_is_explained_beside_its_source(room, app):
    choose(room, "Hub")
    room.locator("#data-hub textarea, #data-hub input").fill("someone/rows")
    room.locator("#data-fetch").click()
    wait_for_text(room, "data-trouble-source", "can't be had from the Hugging Face Hub")
    expect(room.locator("#train-on-this")).to_be_disabled()


@pytest.mark.parametrize(
    ("name", "content", "where", "message"),
    [
        ("empty.csv", "\n", "source", "empty.csv is empty"),
        ("columns.csv", "a,b\n1,2\n3,4\n", "prompt", "no columns to learn from were recognised"),
        ("nothing.csv", "prompt,completion\nx,\ny,\n", "source", "row 1: there is nothing to learn from"),
    ],
)
def test_a_wrong_file_is_explained(room, app, tmp_path, name, content, where, message):
    path = tmp_path / name
    path.write_text(content)
    give(room, path)
    wait_for_text(room, f"data-trouble-{where}", message)
    assert "Traceback" not in room.content()


def test_the_first_visit_leads_to_a_file_of_ones_own_and_train_leads_back(page, app):
    page.get_by_role("button", name="Begin with my data").click()
    page.locator("#data-panel-file").wait_for()
    expect(page.locator("#data-kind").get_by_role("radio", name="File")).to_be_checked()
    page.get_by_role("tab", name="Train", exact=True).click()
    page.locator("#change-data").click()
    page.locator("#data-kind").wait_for()


def test_the_room_fits_a_phone(room, app, tmp_path, starter):
    room.set_viewport_size({"width": 390, "height": 844})
    give(room, tickets(tmp_path / "phone.csv", ("question", "answer")))
    wait_until_ready(room, "to train on")
    for tab in ("Rows", "Findings", "Pictures", "Split"):
        room.locator("#data-views").get_by_role("tab", name=tab).click()
        assert room.evaluate("document.documentElement.scrollWidth") <= 390
    shot(room, "data-phone")
