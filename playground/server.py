"""The web server of the page: Gradio's application and the page's own routes, behind the door."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI

from playground import live, take
from playground.door import Door
from playground.errors import LeftPages

if TYPE_CHECKING:
    import gradio as gr

    from playground.jobs import Jobs

START_SECONDS = 60.0
# Gradio looks for something to do a thousand times a second, which takes a twentieth of a core while nobody is there.
LOOK_SECONDS = 0.02


def application(page: gr.Blocks, jobs: Jobs, look: dict[str, Any]) -> FastAPI:
    """The page with its routes; `look` is its theme, style and scripts (`app.look`)."""
    import gradio as gr

    from playground import leaving

    web = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    web.include_router(live.router(jobs))
    web.include_router(take.router(jobs))
    page.queue(api_open=False, default_concurrency_limit=4)
    web = gr.mount_gradio_app(
        web,
        page,
        path="/",
        max_file_size="200mb",
        footer_links=[],
        enable_monitoring=False,
        run_history=False,
        show_error=False,
        ssr_mode=False,
        **look,
    )
    page._queue.sleep_when_free = page._queue.progress_update_sleep_when_free = LOOK_SECONDS
    leaving.notice(web, page._queue)
    _without_deep_links(web)
    return web


def _without_deep_links(web: FastAPI) -> None:
    """Deep links would write every value of a page into a file that others can fetch."""
    for route in web.router.routes:
        inner = getattr(route, "app", None)
        if isinstance(inner, FastAPI):
            kept = [one for one in inner.router.routes if not getattr(one, "path", "").endswith("/deep_link")]
            inner.router.routes[:] = kept


class Server:
    """A web application that is listened to from a thread of its own."""

    def __init__(self, web: Door, listener: socket.socket) -> None:
        logging.getLogger("uvicorn.error").addFilter(LeftPages())
        settings = uvicorn.Config(
            web, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
        )
        self._server = uvicorn.Server(settings)
        self._listener = listener
        self._thread = threading.Thread(target=self._run, daemon=True, name="server")

    def start(self) -> None:
        """Answer from now on; comes back when the page can be opened."""
        self._thread.start()
        end = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise SystemExit("The page did not open. Wait until the machine is less busy, then start it again.")
            time.sleep(0.01)

    def wait(self) -> None:
        """Until it ends; Ctrl-C gets through."""
        while self._thread.is_alive():
            self._thread.join(1.0)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(5)

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])


def listener(host: str, first: int) -> socket.socket:
    """A socket that listens on the first free port from `first` on."""
    for port in range(first, min(first + 100, 65536)):
        found = socket.socket()
        if os.name == "posix":  # elsewhere it would take the port from who has it
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port))
            found.listen()  # at once: until then another process may bind it as well
            return found
        except OSError:
            found.close()
    raise SystemExit(f"No free port from {first} to {first + 99}. Give another one with --port.")
