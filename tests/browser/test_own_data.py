"""From a file of one's own to a verdict, and a training that is left, stopped and gone on with."""

from __future__ import annotations

import csv
import re

from playwright.sync_api import expect

from tests.browser.conftest import shot, text, wait_for_text, wait_for_words
from tunelab import list_runs, read_report


def tickets(path):
    """Columns that nobody knows, and 2 of 64 rows broken."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = [[f"Ticket {n}: where is my order?", ("billing", "shipping")[n % 2]] for n in range(64)]
        rows[16] = rows[40] = ["one", "cell", "too", "many"]
        csv.writer(file).writerows([("Nachricht", "Sorte"), *rows])
    return path


def small(page, tiny, steps):
    """The form, with the smallest model there is."""
    page.get_by_label("Model", exact=True).fill(tiny)
    page.get_by_label("Model", exact=True).press("Enter")
    page.get_by_text("All settings").click()
    page.get_by_label("Steps", exact=True).first.fill(str(steps))


def test_from_a_file_with_unknown_columns_to_a_verdict(page, app, tiny, tmp_path):
    pressed = []

    def press(element):
        pressed.append(element)
        page.locator(element).click()

    card = page.locator("#first-visit")
    card.wait_for()
    press("#own")
    expect(card).to_be_hidden()
    page.locator("#data-file input[type=file]").set_input_files(tickets(tmp_path / "tickets.csv"))
    wait_for_text(page, "data-trouble-prompt", "no columns to learn from were recognised")
    wait_for_text(page, "data-rows", "as they stand in their source.*Nachricht.*Ticket 0: where is my order")
    shot(page, "own-raw")
    press("#data-trouble-prompt button")
    wait_for_text(page, "data-summary", "2 rows left out")
    press("#train-on-this:not([disabled])")
    wait_for_text(page, "material", "tickets.csv · 56 rows to train on, 6 held out")
    expect(card).to_be_hidden()  # it is in the Train room again, and has been followed
    small(page, tiny, 3)  # which nobody has to do
    press("#start")
    wait_for_text(page, "status", "finished after 3 steps")
    press("#to-measure:not([disabled])")
    press("#measure")
    wait_for_text(page, "result", "Who answers", 300)
    (run,) = list_runs(app.root)
    wait_for_words(page, "result", read_report(run.path).sentence.split(": ")[0])
    assert len(pressed) == 6
    shot(page, "own-verdict")


def test_a_training_is_found_after_a_reload_stopped_and_gone_on_with(page, app, tiny):
    small(page, tiny, 900_000)
    page.locator("#start").click()
    wait_for_text(page, "status", r"training.*step\s+\d+ of 900000")
    run = list_runs(app.root)[0]
    page.reload()
    wait_for_text(page, "status", r"training.*step\s+\d+ of 900000")
    page.wait_for_url(f"**?run={run.id}")
    page.locator("#stop:not([disabled])").click()
    wait_for_text(page, "status", "stopped at step")
    expect(page.locator("#run-message")).to_have_text("")  # "It stops after …" holds no more
    stopped = int(re.search(r"stopped at step (\d+)", text(page, "status"))[1])
    assert run.has_adapter
    expect(page.locator("#to-compare")).to_be_enabled()
    page.locator("#resume:not([disabled])").click()
    wait_for_text(page, "status", r"training.*step\s+\d+ of 900000")
    assert run.progress().step >= stopped
    page.locator("#pause:not([disabled])").click()
    wait_for_text(page, "status", "paused at step")
    assert [one.id for one in list_runs(app.root)].count(run.id) == 1
