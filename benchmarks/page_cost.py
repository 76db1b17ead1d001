"""What an open page costs while a run trains: `python -m benchmarks.page_cost` (two minutes).

Thirty runs lie on the disk, one of them trains (its events are written once a second by this program, so that no
training's own time is measured). A real browser looks at it. Figures are shares of one core, one room after the other:
of the page in the browser, and of the app, of which `nobody looks` is what it takes without a page. `interactive` is
from the address to the page that can be pressed, `blocked` the longest task of the page's own thread meanwhile.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import Figure, run
from playground import loopback
from playground.quick import quick_config
from tunelab import Run
from tunelab.machine import libraries
from tunelab.run.events import Evaluated, Finished, Started, StepDone

PORT = 7972
RUNS, STEPS = 30, 5000
ROOMS = ("Train", "Compare", "Runs")
SECONDS = 15.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--disable-background-networking", "--disable-gpu", "--disable-dev-shm-usage", "--no-sandbox"]
LONG_TASKS = """() => { window.longest = 0; new PerformanceObserver((list) => {
    for (const one of list.getEntries()) window.longest = Math.max(window.longest, one.duration);
}).observe({ type: "longtask" }); }"""


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder, _app(Path(folder)) as (app, url):
        yield Figure.of("nobody looks", "% of a core", [_share_of_app(app) for _ in range(options.rounds)])
        with _page(url) as (page, waited):
            yield Figure.of("interactive", "s", waited)
            page.evaluate(LONG_TASKS)
            for room in ROOMS:
                page.get_by_role("tab", name=room, exact=True).click()
                page.wait_for_timeout(3000)
                shares = [_shares(app, page) for _ in range(options.rounds)]
                yield Figure.of(f"{room}: app", "% of a core", [100 * one for one, _page_ in shares])
                yield Figure.of(f"{room}: page", "% of a core", [100 * one for _app_, one in shares])
            yield Figure.of("blocked", "ms", [page.evaluate("window.longest")])


def _share_of_app(app: psutil.Process) -> float:
    before, started = _seconds(app), time.perf_counter()
    time.sleep(SECONDS)
    return 100 * (_seconds(app) - before) / (time.perf_counter() - started)


def _shares(app: psutil.Process, page: Any) -> tuple[float, float]:
    """Processor time of the app and of the page's own process, over the time that passed."""
    before, started = (_seconds(app), _page_seconds(page)), time.perf_counter()
    page.wait_for_timeout(1000 * SECONDS)
    passed = time.perf_counter() - started
    return (_seconds(app) - before[0]) / passed, (_page_seconds(page) - before[1]) / passed


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _page_seconds(page: Any) -> float:
    """Of the browser's renderers."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if "--type=renderer" in process.cmdline():
                total += _seconds(process)
        except psutil.NoSuchProcess:
            continue
    return total


@contextmanager
def _page(url: str) -> Iterator[tuple[Any, list[float]]]:
    """The page in a browser, and the seconds until it could be used, of three loads."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        waited = []
        for _ in range(3):
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            started = time.perf_counter()
            page.goto(url)
            page.get_by_role("tab", name="Runs", exact=True).click()
            page.locator("#runs [data-choose]").first.wait_for()
            waited.append(time.perf_counter() - started)
            if len(waited) < 3:
                page.close()
        yield page, waited
        browser.close()


@contextmanager
def _app(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """The app over thirty runs of which one trains."""
    made = [Run.create(quick_config(), folder) for _ in range(RUNS)]
    ending = {"heldout_loss": 2.0, "adapter": "adapter", "peak_memory_bytes": 10**9}
    for one in made:
        _write(one, range(1, 61))
    for one in made[:-1]:
        one.append(Finished(step=60, seconds=60.0, **ending))
        (one.path / "adapter").mkdir()
    ended = threading.Event()
    threading.Thread(target=_train, args=(made[-1], ended), daemon=True).start()
    command = [sys.executable, "-m", "playground", "--no-browser", "--runs", str(folder), "--port", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app:
        assert app.stdout is not None
        assert "http://" in app.stdout.readline()
        try:
            time.sleep(15)  # what it imports once it is up is not what a page costs
            yield psutil.Process(app.pid), f"http://127.0.0.1:{PORT}/?run={made[-1].id}"
        finally:
            ended.set()
            app.terminate()


def _train(run: Run, ended: threading.Event) -> None:
    """Write the events of a training, a step each second."""
    step = 60
    while not ended.wait(1.0):
        step += 1
        run.beat()
        _write(run, [step])


def _write(run: Run, steps: Iterable[int]) -> None:
    figures = {"scored_tokens": 200, "tokens": 800, "gradient_norm": 1.0, "learning_rate": 1e-4, "seconds": 1.0}
    measured = {"rows": 32, "scored_tokens": 2000, "seconds": 1.0, "best": True}
    for step in steps:
        if step == 1:
            run.append(_started())
        loss = 2.0 + 1.0 / step
        run.append(StepDone.model_validate({"step": step, "stage": 0, "loss": loss, **figures}))
        if step % 10 == 0:
            losses = {"heldout_loss": loss, "base_loss": 3.0}
            run.append(Evaluated.model_validate({"step": step, "stage": 0, **losses, **measured}))


def _started() -> Started:
    kinds = {"device": "cpu", "dtype": "bfloat16", "quantization": "nf4", "attention": "own", "base_sha256": "0" * 64}
    counts = {"threads": 2, "trainable_parameters": 4_884_480, "total_parameters": 139_400_064, "steps_total": STEPS}
    rows = {"train_rows": (1312,), "heldout_rows": (200,), "data_sha256": ("0" * 64,), "learning_rates": (1e-4,)}
    return Started.model_validate({**kinds, **counts, **rows, "fast": True})


def main() -> None:
    libraries.prepare()
    loopback.exempt()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="times of fifteen seconds in each room")
    run(measure, parser)


if __name__ == "__main__":
    main()
