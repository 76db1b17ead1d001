"""Start the playground: `python -m playground [--runs DIR] [--port N] [--no-browser]`. Listens on this machine only."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path

from playground import loopback
from tunelab.machine import libraries


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
        from playground import app, look, server
    from playground.door import Door
    from playground.jobs import Jobs
    from tunelab import Comparer

    jobs = Jobs(root)
    try:
        jobs.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"Runs can't be kept in {jobs.root}: {error.strerror}. Choose another folder with --runs DIR.")
        return 2
    listener = server.listener(loopback.HOST, port)
    url = f"http://{loopback.HOST}:{listener.getsockname()[1]}"
    page = app.build(jobs, Comparer(jobs.root))
    web = Door(server.application(page, jobs, look.look()), key=jobs.owners.key)
    running = server.Server(web, listener)
    try:
        running.start()
        jobs.watch()
        print(
            f"The playground is up: {url}/?key={jobs.owners.key}\nRuns are kept in {jobs.root}. Ctrl-C ends the page, not a training.",
            flush=True,
        )
        if open_browser:
            webbrowser.open(f"{url}/?key={jobs.owners.key}")
        threading.Thread(target=warm_up, daemon=True, name="warm-up").start()
        running.wait()
    except KeyboardInterrupt:
        print("The page is closed.")
    finally:
        jobs.end()
        running.stop()
    return 0


def warm_up() -> None:
    """Import what the first preview or comparison needs, while the reader still reads."""
    import transformers  # noqa: F401


if __name__ == "__main__":
    sys.exit(main())
