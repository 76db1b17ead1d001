"""From a file of one's own to a verdict in the browser: `python -m benchmarks.first_verdict` (five minutes).

Somebody who has never seen the app has a CSV whose columns have names of their own and of whose rows three per cent are
broken. A real browser presses what the page offers, and nothing else: `presses` counts them, `minutes` is from opening
the page to the verdict. Rows are real: questions of the built-in support tickets and their urgency.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.page_cost import ARGUMENTS, BROWSERS
from benchmarks.report import Figure, run
from playground import loopback
from tunelab import DataSpec, read_data
from tunelab.machine import libraries

PORT = 7976
ROWS, BROKEN_EVERY = 400, 33
PATIENCE_MS = 900_000


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        table = _table(Path(folder) / "tickets.csv")
        command = [sys.executable, "-m", "playground", "--no-browser", "--runs", f"{folder}/runs", "--port", str(PORT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app:
            assert app.stdout is not None
            url = app.stdout.readline().split()[-1]
            try:
                presses, seconds, verdict = _walk(url, table)
            finally:
                app.terminate()
    print(verdict, file=sys.stderr)
    yield Figure.of("presses", "presses", [presses])
    for name, second in seconds.items():
        yield Figure.of(name, "minutes", [second / 60])


def _table(path: Path) -> Path:
    """A file whose columns nobody knows, and of whose rows some have a cell too many."""
    rows = read_data(DataSpec(source="support-tickets")).train[:ROWS]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Nachricht", "Dringlichkeit"])
        for number, row in enumerate(rows):
            cells = [row.prompt, json.loads(row.answer)["urgency"]]
            writer.writerow(cells if number % BROKEN_EVERY else [*cells, "one too many"])
    return path


def _walk(url: str, table: Path) -> tuple[int, dict[str, float], str]:
    """Presses, seconds until each part of the way was done, and the verdict."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE_MS)
        started, presses, seconds = time.perf_counter(), 0, {}
        page.goto(url)
        page.get_by_role("button", name="Begin with my data").click()
        page.locator("#data-file input[type=file]").set_input_files(table)
        page.locator("#data-trouble-prompt button").click()  # the columns it proposes
        page.locator("#train-on-this:not([disabled])").click()
        seconds["data understood after"] = time.perf_counter() - started
        page.locator("#start:not([disabled])").click()
        page.locator("#to-measure:not([disabled])").click()
        seconds["trained after"] = time.perf_counter() - started
        page.locator("#measure:not([disabled])").click()
        presses += 7
        verdict: Any = page.locator(".result .verdict")
        verdict.wait_for()
        seconds["verdict after"] = time.perf_counter() - started
        said = verdict.inner_text() + " · " + page.locator(".result .details").first.inner_text()
        browser.close()
    return presses, seconds, said


def main() -> None:
    libraries.prepare()
    loopback.exempt()
    run(measure, argparse.ArgumentParser(prog="python -m benchmarks.first_verdict", description=__doc__))


if __name__ == "__main__":
    main()
