"""The Learn room in a real browser, by itself: notebooks are read, words explain themselves, and a hostile notebook
does nothing."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pytest
from playwright.sync_api import expect

from playground.look import look
from playground.rooms import learn
from tests.browser.conftest import PATIENCE, shot, visit
from tests.playground import hostile

pytestmark = pytest.mark.slow


@pytest.fixture
def room(browser):
    """Opens the room with the notebooks of a folder: the page, and what it asked of others and said by itself."""
    opened = []

    def show(*folder: Path, **context):
        with gr.Blocks(analytics_enabled=False) as blocks:
            learn.build(*folder)
        _, url, _ = blocks.launch(
            server_name="127.0.0.1",
            prevent_thread_lock=True,
            quiet=True,
            **look(),
            footer_links=[],
        )
        page = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context}).new_page()
        page.set_default_timeout(20_000 * PATIENCE)
        opened.append((blocks, page.context))
        outside: list[str] = []
        page.on("request", lambda asked: None if asked.url.startswith((url, "data:")) else outside.append(asked.url))
        for event in ("dialog", "pageerror"):
            page.on(event, lambda said: outside.append(str(said)))
        visit(page, url)
        page.get_by_role("tab", name="Notebooks").wait_for()
        return page, outside

    yield show
    for blocks, context in opened:
        context.close()
        blocks.close()


def test_a_hostile_notebook_runs_nothing_and_asks_nothing_of_the_network(room, tmp_path):
    hostile.write(tmp_path / "hostile.ipynb")
    page, outside = room(tmp_path)
    page.locator("#open-hostile").click()
    page.locator("#notebook-page").get_by_text("drawn").wait_for()
    page.locator("#notebook-page .katex").first.wait_for()
    page.wait_for_timeout(1500)
    shot(page, "learn-hostile")
    assert outside == []
    expect(page.locator("#notebook-page").locator("script, iframe, form, style, [onerror], [onload]")).to_have_count(0)
    addresses = (
        page.locator("#notebook-page")
        .locator("[href], [src]")
        .evaluate_all("all => all.map(one => (one.getAttribute('href') ?? one.getAttribute('src')).slice(0, 20))")
    )
    assert set(addresses) == {"https://example.org/", "data:image/png;base6", "data:image/svg+xml;b"}


def test_a_notebook_is_read_with_its_formulas_and_the_command_that_runs_it(room):
    page, outside = room()
    page.locator("#open-03_lora_from_scratch").click()
    page.locator("#notebook-page .katex").first.wait_for()
    expect(page.locator("#notebook-page .katex-error")).to_have_count(0)
    assert page.locator("#notebook-page .highlight").count() > 20
    command = page.locator("#notebook-command").locator("input, textarea")
    assert command.input_value().endswith("jupyter lab notebooks/03_lora_from_scratch.ipynb")
    page.locator("#notebook-solutions").click()
    page.get_by_role("button", name="Back to the exercises").wait_for()
    assert command.input_value().endswith("notebooks/solutions/03_lora_from_scratch.ipynb")
    assert outside == []


def test_a_term_explains_itself_to_the_keyboard_and_the_glossary_is_searched(room):
    page, _outside = room()
    term = page.locator("#notebook-list .term", has_text="adapter").first
    tip = term.get_by_role("tooltip", include_hidden=True)
    expect(tip).to_be_hidden()
    term.focus()
    expect(tip).to_be_visible()
    page.get_by_role("tab", name="Glossary").click()
    page.locator("#glossary-search").locator("input, textarea").fill("double quant")
    page.wait_for_function("document.querySelectorAll('#glossary-words dt').length === 1")


def test_a_phone_shows_a_notebook_without_scrolling_sideways(room):
    page, _outside = room(viewport={"width": 390, "height": 844})
    page.locator("#open-07_method_ladder").click()
    page.locator("#notebook-page svg[role=img]").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
