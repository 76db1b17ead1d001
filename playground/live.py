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
MOST_MADE = 1000  # parts that are kept
Part = Callable[["Jobs", "Run | None"], str]

# by the name that an element carries as `data-live`: what follows from the run alone, and what from all of them
OF_RUN: Mapping[str, Part] = {
    "chosen": views.chosen_html,
    "status": views.status_html,
    "chart": views.chart_html,
    "samples": views.samples_html,
    "measuring": views.measuring_html,
}
OF_ALL: Mapping[str, Part] = {"runs": views.runs_html}
# by the name before "@"; what follows it names the ladder or sweep that is shown
NAMED: Mapping[str, Callable[[Jobs, str], str]] = {"series": views.series_html}


class Looks:
    """What the pages of one app are told."""

    def __init__(self, jobs: Jobs, of_run: Mapping[str, Part] = OF_RUN, of_all: Mapping[str, Part] = OF_ALL) -> None:
        self.jobs, self.of_run, self.of_all = jobs, of_run, of_all
        self._lock = threading.Lock()
        self._looked, self._state, self._moment = float("-inf"), "", ""
        self._made: dict[tuple[str, str], tuple[str, str, str]] = {}  # by run and part: its key, hash and HTML

    def look(self, run_id: str, key: str, have: Mapping[str, str]) -> dict[str, Any] | None:
        """What has changed since `key` of the parts a page has; None: nothing."""
        with self._lock:
            now = f"{self._look()}:{_digest(run_id)}"
            if now == key:
                return None
            parts = {name: self._part(run_id, name) for name in have if self._is_part(name)}
        changed = {name: part for name, part in parts.items() if part[0] != have[name]}
        return {"key": now, "moment": self._moment, "boot": BOOT, "parts": changed}

    def _look(self) -> str:
        """The state of all runs."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._moment = _digest(self.jobs.moment())
            self._state = _digest([self._moment, self.jobs.state()])
            self._looked = time.monotonic()
            if len(self._made) > MOST_MADE:
                self._made.clear()
        return self._state

    def _is_part(self, name: str) -> bool:
        return name in self.of_run or name in self.of_all or name.partition("@")[0] in NAMED

    def _part(self, run_id: str, name: str) -> tuple[str, str]:
        """Hash and HTML of a part, made anew only where what it follows from has changed."""
        key = _digest(self.jobs.state_of(run_id)) if name in self.of_run else self._state
        made, hash_, html = self._made.get((run_id, name), ("", "", ""))
        if made != key:
            html = str(self._made_anew(run_id, name))
            hash_ = _digest(html)
            self._made[run_id, name] = (key, hash_, html)
        return hash_, html

    def _made_anew(self, run_id: str, name: str) -> str:
        kind, _at, shown = name.partition("@")
        if kind in NAMED:
            return NAMED[kind](self.jobs, shown)
        part = self.of_run[name] if name in self.of_run else self.of_all[name]
        return part(self.jobs, self.jobs.find(run_id))


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
