"""The README's pictures, of real runs in the app: `python -m benchmarks.pictures --runs DIR` (a minute).

The rows of `--data` are shown as the Data room reads them (`data.png`; none: a built-in set). The newest measured run
under DIR is shown as it was trained (`train.png`), is asked its first held-out question beside the base
(`compare.png`), and its measurement is shown (`measure.png`); the newest ladder that is done becomes `ladder.png`. What
is not there leaves the picture as it is, and says so. A real browser takes them, and they are written into `docs`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.page_cost import ARGUMENTS, BROWSERS
from playground import loopback
from playground.english.page import ROOMS
from tunelab import Ladder, Run, list_ladders, list_runs, read_report
from tunelab.machine import libraries

PORT = 7978
DOCS = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT = 1280, 800
PATIENCE_MS = 300_000
ANSWERED = r"ended by itself|cut at the length"


def main() -> int:
    """Take the pictures; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs and ladders to show")
    parser.add_argument("--data", type=Path, help="a file to show in the Data room")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the pictures")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    options = parser.parse_args()
    libraries.prepare()
    loopback.exempt()
    run = next((one for one in list_runs(options.runs) if one.has_adapter and read_report(one.path)), None)
    ladder = next((one for one in list_ladders(options.runs) if _is_done(one)), None)
    with _page(options.runs, options.scheme) as (page, url):
        _data(page, url, options.data, options.out / "data.png")
        if run:
            _train(page, url, run, options.out / "train.png")
            _compare(page, url, run, options.out / "compare.png")
            _measure(page, url, run, options.out / "measure.png")
        if ladder:
            _ladder(page, url, options.out / "ladder.png")
    print("data.png: " + (options.data.name if options.data else "a built-in set"))
    for made, name in ((run, "train.png, compare.png and measure.png"), (ladder, "ladder.png")):
        print(f"{name}: {made.path.name if made else f'as before, for nothing under {options.runs} can be shown'}")
    return 0


def _is_done(ladder: Ladder) -> bool:
    return all(rung.status in ("done", "skipped") for rung in ladder.rungs())


@contextmanager
def _page(runs: Path, scheme: str) -> Iterator[tuple[Any, str]]:
    """A page of the app over the runs, and its address."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "playground", "--no-browser", "--runs", str(runs), "--port", str(PORT)]
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app, sync_playwright() as playwright:
        assert app.stdout is not None
        assert "http://" in app.stdout.readline()
        try:
            browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.set_default_timeout(PATIENCE_MS)
            yield page, f"http://127.0.0.1:{PORT}/?__theme={scheme}"
            browser.close()
        finally:
            app.terminate()


def _data(page: Any, url: str, data: Path | None, path: Path) -> None:
    page.goto(url)
    page.get_by_role("tab", name=ROOMS["data"], exact=True).click()
    if data:
        page.locator("#data-kind").get_by_role("radio", name="File", exact=True).check()
        page.locator("#data-file input[type=file]").set_input_files(data)
        page.locator("#data-file").get_by_text(data.stem).first.wait_for()
    page.wait_for_function(
        "!document.querySelector('#data-summary .working') && !document.querySelector('#train-on-this').disabled"
    )
    _take(page, path, HEIGHT)


def _train(page: Any, url: str, run: Run, path: Path) -> None:
    page.goto(f"{url}&run={run.id}")
    page.locator("#loss-chart svg").first.wait_for()
    _take(page, path, HEIGHT)


def _compare(page: Any, url: str, run: Run, path: Path) -> None:
    page.goto(f"{url}&run={run.id}")
    page.locator("#to-compare:not([disabled])").click()
    page.wait_for_function("document.querySelector('#prompt textarea')?.value")
    page.get_by_role("button", name="Compare", exact=True).click()
    for column in (0, 1):
        page.wait_for_function(
            "([id, words]) => new RegExp(words).test(document.getElementById(id)?.innerText ?? '')",
            arg=[f"provenance-{column}", ANSWERED],
        )
    bottom = page.evaluate(
        "Math.max(...[0, 1].map(n => document.getElementById(`provenance-${n}`).getBoundingClientRect().bottom))"
    )
    _take(page, path, bottom + 16)


def _measure(page: Any, url: str, run: Run, path: Path) -> None:
    page.goto(f"{url}&run={run.id}")
    page.locator("#to-measure:not([disabled])").click()
    page.locator(".result .verdict").wait_for()
    page.locator(".beside section").first.wait_for()
    _take(page, path, HEIGHT)


def _ladder(page: Any, url: str, path: Path) -> None:
    page.goto(url)
    page.get_by_role("tab", name="Measure", exact=True).click()
    page.get_by_role("tab", name="Methods compared").click()
    page.locator("#ladder-result svg").wait_for()
    page.wait_for_timeout(1000)
    page.locator("#ladder-result").screenshot(path=path)


def _take(page: Any, path: Path, height: float) -> None:
    page.wait_for_timeout(1500)  # what fades in has
    page.screenshot(path=path, clip={"x": 0, "y": 0, "width": WIDTH, "height": min(height, HEIGHT)})
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)  # a third of the bytes


if __name__ == "__main__":
    sys.exit(main())
