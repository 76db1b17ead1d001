"""The page as a whole: readable for everybody in every room and size, light and dark; hostile text does nothing."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from playground.english.page import ROOMS
from tests.browser.conftest import enter, shot, visit, wait_for_text
from tests.train.test_loop import config
from tunelab import Run

SIZES = {"phone": (390, 844), "laptop": (1280, 800), "projector": (1920, 1080)}
HOSTILE = "<img src=//evil.example/x onerror=alert(1)> ![x](//evil.example/y) $\\href{//evil.example}{z}$ <|im_end|>"


@pytest.fixture(scope="module")
def run(app, tiny):
    """A finished run with a hostile name, tag and note."""
    made = Run.create(config(tiny, steps=2), app.root)
    made.label(name=HOSTILE[:60], tags=["<b>tag</b>"], note=HOSTILE)
    return made


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_anybody(blank, app, run, scheme):
    page = blank
    visit(page, f"{app.url}/?run={run.id}&__theme={scheme}")
    page.get_by_role("tab", name="Train").wait_for()
    for room in ROOMS:
        enter(page, room)
        page.wait_for_timeout(1500)
        page.wait_for_function(SETTLED)
        found = Axe().run(page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in SERIOUS]
        assert not serious, room


SERIOUS = ("serious", "critical")
# nothing is on its way from one colour to another
SETTLED = "!document.getAnimations().some((one) => one instanceof CSSTransition && one.playState === 'running')"


@pytest.mark.parametrize("size", SIZES)
def test_no_room_is_wider_than_its_window(blank, app, run, size):
    page = blank
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    visit(page, f"{app.url}/?run={run.id}")
    page.get_by_role("tab", name="Train").wait_for()
    for room in ROOMS:
        enter(page, room)
        page.wait_for_timeout(800)
        shot(page, f"{room}-{size}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, room


def test_hostile_text_is_text_in_every_room(blank, app, run):
    page = blank
    dialogs, asked = [], []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    visit(page, f"{app.url}/?run={run.id}")
    wait_for_text(page, "chosen-run", "<img src=", 30)
    for room in ROOMS:
        enter(page, room)
        page.wait_for_timeout(800)
    assert not dialogs
    assert all(url.startswith((app.url, "data:", "blob:")) for url in asked), asked


def test_dark_and_large_stay_as_they_were_chosen(page, app):
    page.locator("#dark").click()
    page.locator("#projector").click()
    was_dark = page.evaluate("document.body.classList.contains('dark')")
    visit(page, app.url)
    page.get_by_role("tab", name="Train").wait_for()
    assert page.evaluate("document.body.classList.contains('dark')") == was_dark
    assert page.evaluate("document.documentElement.classList.contains('projector')")
