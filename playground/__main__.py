"""Start the playground: `python -m playground [--runs DIR] [--port N] [--no-browser]`. Listens on this machine only."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from playground import loopback
from tunelab.machine import libraries

ATTEMPTS = 4  # to open the page


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m playground", description=__doc__)
    parser.add_argument("--runs", type=Path, help="where runs live (default: the user's data folder)")
    parser.add_argument("--port", type=int, default=7860, help="the first port to try")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    options = parser.parse_args()

    uploads = tempfile.mkdtemp(prefix="playground-")
    prepare(uploads)
    try:
        return serve(options.runs, options.port, open_browser=not options.no_browser)
    finally:
        shutil.rmtree(uploads, ignore_errors=True)


def prepare(uploads: str) -> None:
    """What has to be said before Gradio is imported: nothing is reported to anybody, uploads stay in a folder of our
    own, and the page is reached without a proxy."""
    libraries.prepare()
    loopback.exempt()
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads, "HF_HUB_DISABLE_TELEMETRY": "1"}


def serve(root: Path | None, port: int, open_browser: bool) -> int:
    """The exit code, once the page has been closed with Ctrl-C."""
    with loopback.without_proxies():
        from playground import app
    from playground.jobs import Jobs
    from tunelab import Comparer

    jobs = Jobs(root)
    try:
        jobs.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"Runs can't be kept in {jobs.root}: {error.strerror}. Choose another folder with --runs DIR.")
        return 2
    page = app.build(jobs, Comparer(jobs.root))
    try:
        with loopback.without_proxies():
            url = opened(lambda free: app.launch(page, loopback.HOST, free, open_browser), port)
        jobs.watch()  # not before: workers take over the environment, and may need its proxies
        print(
            f"The playground is up: {url}\nRuns are kept in {jobs.root}. Ctrl-C ends the page, not a training.",
            flush=True,
        )
        threading.Thread(target=warm_up, daemon=True, name="warm-up").start()
        page.block_thread()
    finally:
        jobs.end()
    return 0


def warm_up() -> None:
    """Import what the first preview or comparison needs, while the reader still reads."""
    import transformers  # noqa: F401


def opened(launch: Callable[[int], str], first: int) -> str:
    """The address of the page. A port can be lost between looking and taking it, and Gradio gives its server five
    seconds to start, which a busy machine may need: then the next free one is tried."""
    for _attempt in range(ATTEMPTS):
        port = free_port(first)
        try:
            return launch(port)
        except OSError:
            first = port + 1
    raise SystemExit(
        f"The page did not open on port {port}. Wait until the machine is less busy, or give another --port."
    )


def free_port(first: int) -> int:
    """The first free port from `first` on."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            if probe.connect_ex((loopback.HOST, port)) != 0:
                return port
    raise SystemExit(f"No free port from {first} to {first + 99}. Give another one with --port.")


if __name__ == "__main__":
    sys.exit(main())
