"""Start the playground: `python -m playground [--runs DIR] [--port N] [--no-browser]`. Listens on this machine only."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

from tunelab.machine import libraries

HOST = "127.0.0.1"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m playground", description=__doc__)
    parser.add_argument("--runs", type=Path, help="where runs live (default: the user's data folder)")
    parser.add_argument("--port", type=int, default=7860, help="the first port to try")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    options = parser.parse_args()

    # before Gradio is imported: nothing is reported to anybody, uploads stay in a folder of our own
    uploads = tempfile.mkdtemp(prefix="playground-")
    libraries.prepare()
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads, "HF_HUB_DISABLE_TELEMETRY": "1"}
    from playground import app
    from playground.jobs import Jobs
    from tunelab import Comparer

    jobs = Jobs(options.runs)
    try:
        jobs.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"Runs can't be kept in {jobs.root}: {error.strerror}. Choose another folder with --runs DIR.")
        return 2
    comparer = Comparer(jobs.root)
    page = app.build(jobs, comparer)
    page.queue(api_open=False, default_concurrency_limit=4)
    jobs.watch()
    try:
        server, url, _ = page.launch(
            server_name=HOST,
            server_port=free_port(options.port),
            share=False,
            inbrowser=not options.no_browser,
            prevent_thread_lock=True,
            quiet=True,
            theme=app.theme(),
            css=app.STYLE,
            max_file_size="200mb",
            footer_links=[],
            enable_monitoring=False,
            run_history=False,
            show_error=False,
        )
        # deep links would write every value of a page into a file that others can fetch
        server.router.routes[:] = [r for r in server.router.routes if not getattr(r, "path", "").endswith("/deep_link")]
        print(
            f"The playground is up: {url}\nRuns are kept in {jobs.root}. Ctrl-C ends the page, not a training.",
            flush=True,
        )
        threading.Thread(target=warm_up, daemon=True, name="warm-up").start()
        page.block_thread()
    finally:
        jobs.end()
        shutil.rmtree(uploads, ignore_errors=True)
    return 0


def warm_up() -> None:
    """Import what the first preview or comparison needs, while the reader still reads."""
    import transformers  # noqa: F401


def free_port(first: int) -> int:
    """The first free port from `first` on."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) != 0:
                return port
    raise SystemExit(f"No free port from {first} to {first + 99}. Give another one with --port.")


if __name__ == "__main__":
    sys.exit(main())
