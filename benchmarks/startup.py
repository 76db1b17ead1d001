"""How long one waits before anything moves: `python -m benchmarks.startup [--json]` (about two minutes).

Each is a process of its own, started several times: the library's import, the app's page, a run's first step.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

from benchmarks.report import Figure, run
from playground import loopback
from playground.quick import quick_config
from tunelab import Run
from tunelab.machine import libraries

PORT = 7970


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    yield Figure.of("import_seconds", "s", [import_seconds() for _ in range(options.rounds)])
    yield Figure.of("app_ready_seconds", "s", [app_ready_seconds() for _ in range(options.rounds)])
    yield Figure.of("first_step_seconds", "s", [first_step_seconds() for _ in range(options.rounds)])


def import_seconds() -> float:
    """`import tunelab` in a new interpreter; it must not bring PyTorch."""
    code = "import time; t = time.perf_counter(); import tunelab, sys; print(time.perf_counter() - t); "
    code += "assert 'torch' not in sys.modules"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def app_ready_seconds() -> float:
    """From the command to the page in hand."""
    loopback.exempt()
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "playground", "--no-browser", "--runs", root, "--port", str(PORT)]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app:
            assert app.stdout is not None
            assert "http://" in app.stdout.readline()
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}") as page:
                assert b"gradio" in page.read()
            seconds = time.perf_counter() - started
            app.terminate()
    return seconds


def first_step_seconds() -> float:
    """From the start of a worker's process to the first finished step of the quick adapter."""
    with tempfile.TemporaryDirectory() as root:
        made = Run.create(quick_config(), root)
        started = time.time()
        with subprocess.Popen([sys.executable, "-m", "tunelab.worker", str(made.path)]) as worker:
            while not (steps := made.progress().steps):
                assert worker.poll() is None, made.progress().message
                time.sleep(0.02)
            seconds = steps[0].time_unix_seconds - started
            worker.kill()
    return seconds


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="starts of each kind")
    run(measure, parser)


if __name__ == "__main__":
    main()
