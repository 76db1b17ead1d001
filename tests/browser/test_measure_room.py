"""From a run to a verdict in the browser: measured by one press, rows chosen by bars, and a row asked by hand."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import enter, shot, text, visit, wait_for_text, wait_for_words
from tests.helpers import ROWS
from tests.train.test_loop import config
from tunelab import DataSpec, Stage, TrainConfig, evaluate, finetune, read_report

EVIL = '<img src=x onerror="document.title=1"> **b** $x$ <|im_end|>'


@pytest.fixture(scope="module")
def run(app, tiny):
    """A run of the tiny model, whose held-out rows have labels and hostile text."""
    rows = [
        {"prompt": f"{row['prompt']} {EVIL if n % 3 else ''}", "completion": ("yes", EVIL)[n % 2]}
        for n, row in enumerate(ROWS * 3)
    ]
    data = DataSpec(rows=rows, heldout=24)
    stages = (Stage(data=data, training=TrainConfig(steps=3, batch_size=4, eval_every=3)),)
    return finetune(config(tiny).model_copy(update={"stages": stages, "name": EVIL[:30]}), root=app.root)


@pytest.fixture
def measured(run):
    """The run with a report, also where a test is run alone."""
    if read_report(run.path) is None:
        evaluate(run, rows=24, max_new_tokens=4)
    return run


def measure_tab(page, app, run):
    visit(page, f"{app.url}/?run={run.id}")
    page.get_by_role("tab", name="Train").wait_for()
    enter(page, "measure")


def test_one_press_measures_to_a_verdict_and_bars_choose_rows(blank, app, run):
    page = blank
    measure_tab(page, app, run)
    wait_for_text(page, "result", "Not measured yet", 60)
    shot(page, "measure-empty")
    page.locator("#measure-settings button").first.click()
    page.get_by_label("Rows", exact=True).first.fill("24")
    page.get_by_label("Longest answer").first.fill("4")
    page.locator("#measure").click()
    wait_for_text(page, "measuring", "Waiting|Measuring", 30)
    wait_for_text(page, "result", "Who answers", 300)
    report = read_report(run.path)
    assert report.rows == 24
    wait_for_words(page, "result", report.sentence.split(": ")[0])
    page.locator("#changed article").first.wait_for()
    wait_for_text(page, "changed", "all 24 rows", 60)
    shot(page, "measured")
    columns = page.evaluate("getComputedStyle(document.querySelector('.changed .cross')).gridTemplateColumns")
    assert len(columns.split()) == 2  # bars beside the rows that they choose

    label = page.locator('#changed section[aria-label="Label"] button').first
    label.focus()
    page.keyboard.press("Enter")
    wait_for_text(page, "changed", r"\d+ of 24 rows", 60)
    left = int(text(page, "changed").split(" of 24 rows")[0].split()[-1])
    assert 0 < left < 24
    pressed = page.locator('#changed section[aria-label="Label"] button[aria-pressed="true"]')
    expect(pressed).to_have_count(1)
    page.wait_for_function("document.activeElement?.getAttribute('aria-pressed') === 'true'")  # it keeps the focus
    shot(page, "measure-filtered")
    page.locator("#changed .chip").first.click()
    wait_for_text(page, "changed", "all 24 rows", 60)
    assert page.title() != "1"
    expect(page.locator("#changed img, #result img, #beside img")).to_have_count(0)


def test_it_is_found_again_and_a_row_is_asked_by_hand(blank, app, measured):
    page = blank
    measure_tab(page, app, measured)
    page.locator("#changed article").first.wait_for()
    asked = page.locator("#changed article .asked").nth(1).text_content()
    page.get_by_role("button", name="Ask this in Compare").nth(1).click()
    page.wait_for_function(
        "asked => document.querySelector('#prompt textarea')?.value === asked", arg=asked, timeout=60_000
    )
    assert page.get_by_role("tab", name="Compare").get_attribute("aria-selected") == "true"


def test_the_card_is_a_file_to_take_along(blank, app, measured):
    page = blank
    measure_tab(page, app, measured)
    page.locator("#card").click()
    wait_for_text(page, "card-message", "ready", 120)
    for name, start in (("card-html", "<!doctype html"), ("card-json", "{")):
        with page.expect_download() as download:
            page.locator(f"#{name}").click()
        assert download.value.path().read_text(encoding="utf-8").lower().startswith(start)
        assert download.value.suggested_filename.startswith(measured.id)


def test_on_a_phone_nothing_is_wider_than_the_screen(blank, app, measured):
    page = blank
    page.set_viewport_size({"width": 390, "height": 844})
    measure_tab(page, app, measured)
    page.locator("#changed article").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    columns = page.evaluate("getComputedStyle(document.querySelector('.changed .cross')).gridTemplateColumns")
    assert len(columns.split()) == 1
    shot(page, "measure-phone")
