"""What people get wrong in the browser: one clear message, never a traceback, nothing lost."""

from __future__ import annotations

from contextlib import suppress

from playwright.sync_api import TimeoutError, expect

from tests.browser.conftest import text, wait_for_text
from tunelab import Run, list_runs


def test_a_wrong_setting_is_named_and_the_form_keeps_what_was_written(page, app):
    page.get_by_text("All settings").click()
    page.locator("#drawer").get_by_label("Name").fill("my careful run")
    page.locator("#drawer").get_by_label("Learning rate").fill("fast")
    before = len(list_runs(app.root))
    with suppress(TimeoutError):  # where the forecast was faster, it can't be pressed any more
        page.get_by_role("button", name="Start training").click(timeout=2000)
    page.locator("#train-message, #forecast").get_by_text("learning_rate").first.wait_for()
    expect(page.locator("#drawer").get_by_label("Name")).to_have_value("my careful run")
    assert len(list_runs(app.root)) == before


def test_a_number_that_cannot_be_is_named_and_no_other_is_taken_for_it(page, app):
    page.get_by_text("All settings").click()
    steps = page.locator("#drawer").get_by_label("Steps", exact=True).first
    for written, said in (("0", "steps = 0: "), ("2.6", "steps = 2.6: "), ("", "Steps is empty")):
        steps.fill(written)
        wait_for_text(page, "forecast", said, 60)
        expect(page.locator("#start")).to_be_disabled()
    steps.fill("3")
    page.locator("#start:not([disabled])").wait_for()


def test_a_hub_model_without_a_network_is_explained(page, app):
    page.get_by_label("Model", exact=True).fill("someone/some-model")
    page.get_by_label("Model", exact=True).press("Enter")
    wait_for_text(page, "forecast", "Hub can't be reached", 180)
    expect(page.locator("#start")).to_be_disabled()


def test_a_run_of_another_version_is_listed_and_hurts_nobody(page, app):
    folder = app.root / "20200101-000000-old-run-0000"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"format": 99, "config": {}}')
    page.reload()
    page.get_by_role("tab", name="Runs").click()
    wait_for_text(page, "runs", "unreadable", 180)
    assert Run(folder).status == "unreadable"
    assert "Traceback" not in text(page, "runs")


def test_comparing_nothing_says_what_to_choose(page, app):
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    wait_for_text(page, "compare-message", "prompt is empty|Train|choose", 180)
