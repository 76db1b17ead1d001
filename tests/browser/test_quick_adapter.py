"""The first visit: one press, two minutes, base and tuned answers side by side. Nothing is lost on the way."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from playground.quick import quick_config
from tests.browser.conftest import enter, shot, text, visit, wait_for_text, wait_for_words
from tunelab import list_runs, read_data


def test_one_press_trains_survives_a_reload_and_lands_in_compare(page, app, starter):
    shot(page, "first-visit")
    page.get_by_role("button", name="Train a quick adapter").click()
    wait_for_text(page, "status", r"step\s+[2-9]\d* of 60", 180)  # the first held-out losses are there after step 1
    assert re.search(r"held-out loss\s+\d\.\d+ \(base \d\.\d+\)", text(page, "status"))
    chart = page.locator("#loss-chart svg")
    assert "held-out" in chart.get_attribute("aria-label")
    expect(chart.locator("polyline")).to_have_count(4)  # a smoothed one, too
    (run,) = list_runs(app.root)
    page.wait_for_url(f"**?run={run.id}")

    page.close()  # closed and opened again, the page finds its run
    page = page.context.new_page()
    visit(page, app.url)
    wait_for_text(page, "status", "quick adapter.*training", 180)
    page.wait_for_url(f"**?run={run.id}")
    page.reload()
    wait_for_text(page, "status", r"step\s+[12]\d of 60", 120)
    shot(page, "training")

    second = page.context.new_page()  # a second training waits for the first
    second.goto(app.url)
    second.get_by_role("button", name="Start training").click()
    wait_for_text(second, "status", "queued, number 1 in line", 20)
    second.get_by_role("button", name="Stop").click()
    wait_for_text(second, "status", "taken out of the queue", 20)
    second.close()

    # the page goes to Compare by itself, after a reload too, and asks the first held-out question
    wait_for_text(page, "provenance-0", "adapter off", 300)
    for column in (0, 1):
        wait_for_text(page, f"provenance-{column}", "ended by itself|cut at the length", 180)
    data = read_data(quick_config().stages[0].data)
    asked = data.heldout[0]
    expect(page.locator("#prompt textarea")).to_have_value(asked.prompt)
    expect(page.locator("#examples input")).to_have_value(asked.prompt)
    expect(page.locator("#reference textarea")).to_have_value(asked.answer)
    expect(page.locator("#reference textarea")).to_be_visible()
    assert re.search(rf"in 60 steps .* out of {len(data.train):,}: .* 200 rows that it never saw", text(page, "landed"))
    shot(page, "landed")
    page.get_by_role("button", name="Now with my data").click()
    page.locator("#data-kind").wait_for()
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator("#landed")).to_be_hidden()  # it has been followed
    page.get_by_role("tab", name="Train").click()
    wait_for_text(page, "status", "finished after 60 steps", 20)
    shot(page, "finished")
    progress = run.progress()
    assert progress.evaluations[-1].heldout_loss < 0.8 * progress.evaluations[0].base_loss


def test_compare_streams_both_answers_and_says_where_they_come_from(page, app):
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator("#who-1 input")).to_have_value(re.compile("quick adapter"))  # the run has come to the room
    page.locator("#prompt textarea").fill("What does `textwrap.dedent` do in Python?")
    page.get_by_role("button", name="Compare", exact=True).click()
    wait_for_text(page, "provenance-0", "adapter off", 180)
    for column in (0, 1):
        wait_for_text(page, f"provenance-{column}", "ended by itself|cut at the length", 180)
    base, tuned = (page.locator(f"#answer-{i} .last").inner_text() for i in (0, 1))
    assert base
    assert tuned
    assert base != tuned
    wait_for_words(page, "provenance-1", "quick-adapter")
    shot(page, "compare")


def test_cancel_ends_an_answer_at_once(page):
    page.get_by_role("tab", name="Compare").click()
    page.get_by_text("System prompt and decoding").click()
    page.get_by_label("number input for Longest answer").fill("512")
    page.get_by_label("number input for Temperature").fill("1.8")
    page.locator("#prompt textarea").fill("Write a very long story about everything.")
    page.get_by_role("button", name="Compare", exact=True).click()
    wait_for_text(page, "provenance-0", r"[3-9] tokens|\d\d tokens", 180)
    page.get_by_role("button", name="Cancel").click()
    wait_for_text(page, "provenance-0", "cancelled", 10)


def test_an_example_brings_its_reference_answer(page):
    page.get_by_role("tab", name="Compare").click()
    page.locator("#examples input").click()
    page.get_by_role("option").nth(0).click()
    page.wait_for_function("document.querySelector('#prompt textarea').value.includes('`')")
    assert page.locator("#reference textarea").input_value()
    page.locator("#prompt textarea").press_sequentially(" And why?")  # it is the answer to nothing else
    page.locator("#reference textarea").wait_for(state="hidden")
    assert page.locator("#prompt textarea").input_value().endswith(" And why?")


def test_a_run_is_chosen_by_what_it_is_and_leads_to_its_answers(page, app):
    (finished,) = [run for run in list_runs(app.root) if run.has_adapter]
    page.get_by_role("tab", name="Runs").click()
    page.locator(f"#runs [data-choose='{finished.id}']").click()
    page.wait_for_url(f"**?run={finished.id}")
    wait_for_text(page, "chosen-run", "quick adapter.*finished after 60 steps", 20)
    page.get_by_role("tab", name="Train").click()
    page.get_by_role("button", name="Compare answers").click()
    page.wait_for_function("document.querySelector('#prompt textarea')?.value.includes('`')")
    assert "quick adapter" in page.locator("#who-1 input").input_value()


def test_every_page_is_readable_on_a_phone_and_in_the_dark(page, app):
    for room in ("train", "compare"):
        for width in (1280, 390):
            for scheme in ("light", "dark"):
                page.set_viewport_size({"width": width, "height": 900})
                visit(page, f"{app.url}/?__theme={scheme}")
                page.get_by_role("tab", name="Train").wait_for()
                enter(page, room)
                shot(page, f"{room}-{width}-{scheme}")
                assert page.evaluate("document.documentElement.scrollWidth") <= width
