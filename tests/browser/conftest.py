"""The app as people start it, and a real browser looking at it.

`TUNELAB_SHOTS=DIR` keeps screenshots, for people to look at. `TUNELAB_PATIENCE=0.3` gives up sooner.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page, TimeoutError, expect, sync_playwright

from playground.english.page import ROOMS
from tests.conftest import REPOSITORY

ARGUMENTS = ["--disable-background-networking", "--disable-gpu", "--disable-dev-shm-usage"]

# times the seconds that a wait names: a slow or busy machine is not wrong
PATIENCE = float(os.environ.get("TUNELAB_PATIENCE", 3))
expect.set_options(timeout=20_000 * PATIENCE)


# files Gradio's page asks for and does not need; requests that end because a test leaves the page
HARMLESS = ("favicon", "manifest", "AbortError", "Connection errored out")


PAGE = pytest.StashKey[Page]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure tells what stood on the page: whoever reads it later has no browser to look into."""
    report = yield
    page = item.stash.get(PAGE, None)
    if report.when != "teardown" and report.failed and page:
        with suppress(Error):
            report.sections.append(("The page", page.locator("body").aria_snapshot(timeout=10_000)))
            shot(page, f"failed-{item.name}")
    return report


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium where there is one, else Playwright's own."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    arguments = ARGUMENTS + (["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


class App:
    """A started app: its address, its runs, and what it printed."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root, self.log = root, log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "playground", "--no-browser", "--runs", str(root), "--port", "7961"],
                stdout=subprocess.PIPE,
                stderr=file,
                cwd=REPOSITORY,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        address = re.search(r"(http://127\.0\.0\.1:\d+)/\?key=\S+", line)
        assert address, f"the app printed {line!r}: {log.read_text()}"
        self.url, self.address = address[1], address[0]  # the address makes known who runs the server

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        for run in self.root.glob("*/heartbeat"):
            (run.parent / "stop").touch()


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    app = App(folder / "runs", folder / "app.log")
    yield app
    app.end()
    assert "Traceback" not in app.log.read_text()


@pytest.fixture
def blank(request, browser, app):
    """A fresh page that shows nothing yet, of whoever runs the server; a test fails when the page logged an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(120_000 * PATIENCE)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    assert context.request.get(app.address).ok  # the browser is given its cookies
    request.node.stash[PAGE] = page
    yield page
    context.close()
    assert not [e for e in errors if not any(word in e for word in HARMLESS)], errors


@pytest.fixture
def page(blank, app):
    """A fresh page that shows the app."""
    visit(blank, app.url)
    blank.get_by_role("tab", name="Train").wait_for()
    return blank


def visit(page: Page, address: str) -> None:
    """Go to an address, also from a page that is still on its way itself and breaks the first try off."""
    try:
        page.goto(address)
    except Error as error:
        if "ERR_ABORTED" not in str(error):
            raise
        page.goto(address)


def train_on_this(page: Page, name: str) -> None:
    """Press "Train on this data" until the rows of that name are in hand: pressed before they were read, it says so."""
    for patience in (10, 20, 60 * PATIENCE):
        page.locator("#train-on-this:not([disabled])").click()
        with suppress(TimeoutError):
            wait_for_text(page, "material", re.escape(name), patience / PATIENCE)
            return
        enter(page, "data")
    raise AssertionError(f"{name} is not in hand")


def enter(page: Page, room: str) -> None:
    """Open a room; where there is no space for all of them, they stand behind a button."""
    tab = page.get_by_role("tab", name=ROOMS[room], exact=True)
    if not tab.is_visible():
        page.locator(".overflow-menu button").first.click()
        tab = page.locator(".overflow-dropdown button", has_text=ROOMS[room])
    tab.click()


def shot(page: Page, name: str) -> None:
    """Keep a screenshot if somebody wants to look."""
    if folder := os.environ.get("TUNELAB_SHOTS"):
        page.wait_for_timeout(600)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def text(page: Page, element: str) -> str:
    return page.locator(f"#{element}").inner_text()


def wait_for_text(page: Page, element: str, wanted: str, seconds: float = 180) -> None:
    """Until the element's text matches the regular expression `wanted`."""
    page.wait_for_function(
        "([id, re]) => new RegExp(re, 's').test(document.getElementById(id)?.innerText ?? '')",
        arg=[element, wanted],
        timeout=seconds * PATIENCE * 1000,
    )


def wait_for_words(page: Page, element: str, words: str, seconds: float = 20) -> None:
    """Until the words stand in the element, in capitals or not."""
    page.wait_for_function(
        "([id, words]) => document.getElementById(id)?.innerText.toLowerCase().includes(words)",
        arg=[element, words.lower()],
        timeout=seconds * PATIENCE * 1000,
    )


def upload(page: Page, path: Path, element: str = "file", tab: str | None = None) -> None:
    """Choose a file on a tab, until its name stands there. An app that has just started, on a machine that does other
    work too, may leave its first page half alive: it is loaded again then, as people do."""
    for patience in (30, 60, 60 * PATIENCE):
        if tab:
            page.get_by_role("tab", name=tab).click()
        field = page.locator(f"#{element}")
        field.locator("input[type=file]").set_input_files(path)
        with suppress(TimeoutError):
            field.get_by_text(path.name).first.wait_for(timeout=patience * 1000)
            return
        page.reload()
        page.get_by_role("tab", name="Train").wait_for()
    raise AssertionError(f"{path.name} was not taken")
