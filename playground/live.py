"""What a page shows of a run while it grows, without Gradio: the page asks for the parts it shows (`web/live.js`), and
gets those that have changed. A look at a run in which nothing is new costs some file sizes.

    GET /live?run=ID&key=KEY&have=status:HASH,chart:HASH
    204, or {"key", "moment", "boot", "parts": {name: [hash, html]}}

`moment` changes when the rest of the page has to follow: a run began, ended, came or went.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from playground import views

if TYPE_CHECKING:
    from playground.jobs import Jobs
    from tunelab import Run

BOOT = secrets.token_hex(4)  # a page that was open while the app started again opens itself anew
LOOK_SECONDS = 0.3  # pages that ask within this time share one look at the disk
Part = Callable[["Jobs", "Run | None"], str]

# by the name that an element carries as `data-live`
PARTS: Mapping[str, Part] = {
    "chosen": views.chosen_html,
    "status": views.status_html,
    "chart": views.chart_html,
    "samples": views.samples_html,
    "runs": views.runs_html,
    "measuring": views.measuring_html,
}
# by the name before "@"; what follows it names the ladder or sweep that is shown
NAMED: Mapping[str, Callable[[Jobs, str], str]] = {"series": views.series_html}


class Looks:
    """What the pages of one app are told."""

    def __init__(self, jobs: Jobs, parts: Mapping[str, Part] = PARTS) -> None:
        self.jobs, self.parts = jobs, parts
        self._lock = threading.Lock()
        self._states: dict[str, tuple[float, str, str]] = {}  # by run: when it was looked at, its key, the moment
        self._rendered: dict[tuple[str, str, str], tuple[str, str]] = {}  # by run, part and key: hash and HTML

    def look(self, run_id: str, key: str, have: Mapping[str, str]) -> dict[str, Any] | None:
        """What has changed since `key` of the parts a page has; None: nothing."""
        with self._lock:
            now, moment = self._state(run_id)
            if now == key:
                return None
            parts = {name: self._part(run_id, name, now) for name in have if self._is_known(name)}
        changed = {name: part for name, part in parts.items() if part[0] != have[name]}
        return {"key": now, "moment": moment, "boot": BOOT, "parts": changed}

    def _state(self, run_id: str) -> tuple[str, str]:
        looked, key, moment = self._states.get(run_id, (0.0, "", ""))
        if time.monotonic() - looked > LOOK_SECONDS:
            key, moment = _digest(self.jobs.state(run_id)), _digest(self.jobs.moment())
            self._states[run_id] = (time.monotonic(), key, moment)
            self._rendered = {k: v for k, v in self._rendered.items() if k[0] != run_id or k[2] == key}
        return key, moment

    def _part(self, run_id: str, name: str, key: str) -> tuple[str, str]:
        if (run_id, name, key) not in self._rendered:
            html = str(self._html(run_id, name))
            self._rendered[run_id, name, key] = (_digest(html), html)
        return self._rendered[run_id, name, key]

    def _is_known(self, name: str) -> bool:
        return name in self.parts or name.partition("@")[0] in NAMED

    def _html(self, run_id: str, name: str) -> str:
        kind, _at, identity = name.partition("@")
        if kind in NAMED:
            return NAMED[kind](self.jobs, identity)
        return self.parts[name](self.jobs, self.jobs.find(run_id))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def router(jobs: Jobs) -> APIRouter:
    """The route that pages ask."""
    routes, looks = APIRouter(), Looks(jobs)

    @routes.get("/live")
    def look(run: str = "", key: str = "", have: str = "") -> Response:
        parts = dict(part.partition(":")[::2] for part in have.split(",") if part)
        changed = looks.look(run, key, parts)
        return Response(status_code=204) if changed is None else JSONResponse(changed)

    return routes
