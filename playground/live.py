"""What a page shows of a run while it grows, without Gradio: the page asks for the parts it shows (`web/live.js`), and
gets those that have changed. A look at a run in which nothing is new costs some file sizes.

    GET /live?run=ID&key=KEY&have=status:HASH,chart:HASH
    204, or {"key", "moment", "boot", "parts": {name: [hash, html]}}

A part that depends on what a page asks for has that behind its name, percent-encoded: `runs~newest/tag%3Agood`.
`moment` changes when the rest of the page has to follow: a run began, ended, came or went.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from playground import views
from playground.errors import words_for

if TYPE_CHECKING:
    from playground.jobs import Jobs
    from tunelab import Run

BOOT = secrets.token_hex(4)  # a page that was open while the app started again opens itself anew
LOOK_SECONDS = 0.3  # pages that ask within this time share one look at the disk
MOST_MADE = 1000  # parts that are kept
MOST_ASKED, LONGEST_ASKED = 24, 1000  # parts of one look; characters of what a page asks for
Part = Callable[["Jobs", "Run | None"], str]
AskedPart = Callable[["Jobs", "Run | None", Sequence[str]], str]

# by the name that an element carries as `data-live`: what follows from the run alone, and what from all of them
OF_RUN: Mapping[str, Part] = {
    "chosen": views.chosen_html,
    "status": views.status_html,
    "chart": views.chart_html,
    "samples": views.samples_html,
    "measuring": views.measuring_html,
    "about": views.about_html,
    "take": views.take_html,
}
OF_ALL: Mapping[str, Part] = {"deleted": views.deleted_html}
# … and what follows from all of them and from words that the page asks with
OF_ASKED: Mapping[str, AskedPart] = {"runs": views.runs_html, "picked": views.picked_html, "series": views.series_html}


class Looks:
    """What the pages of one app are told."""

    def __init__(
        self,
        jobs: Jobs,
        of_run: Mapping[str, Part] = OF_RUN,
        of_all: Mapping[str, Part] = OF_ALL,
        of_asked: Mapping[str, AskedPart] = OF_ASKED,
    ) -> None:
        self.jobs, self.of_run, self.of_all, self.of_asked = jobs, of_run, of_all, of_asked
        self._lock = threading.Lock()
        self._looked, self._state, self._moment = float("-inf"), "", ""
        self._made: dict[tuple[str, str], tuple[str, str, str]] = {}  # by run and part: its key, hash and HTML

    def look(self, run_id: str, key: str, have: Mapping[str, str]) -> dict[str, Any] | None:
        """What has changed since `key` of the parts a page has; None: nothing."""
        with self._lock:
            now = f"{self._look()}:{_digest(run_id)}"
            if now == key:
                return None
            asked = [name for name in list(have)[:MOST_ASKED] if self._is_known(name)]
            of_run = _digest(self.jobs.state_of(run_id)) if any(name in self.of_run for name in asked) else ""
            parts = {name: self._part(run_id, name, of_run if name in self.of_run else self._state) for name in asked}
        changed = {name: part for name, part in parts.items() if part[0] != have[name]}
        return {"key": now, "moment": self._moment, "boot": BOOT, "parts": changed}

    def _look(self) -> str:
        """The state of all runs."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._moment = moment_of(self.jobs)
            self._state = _digest([self._moment, self.jobs.state()])
            self._looked = time.monotonic()
            if len(self._made) > MOST_MADE:
                self._made.clear()
        return self._state

    def _is_known(self, name: str) -> bool:
        return name in self.of_run or name in self.of_all or name.partition("~")[0] in self.of_asked

    def _part(self, run_id: str, name: str, key: str) -> tuple[str, str]:
        """Hash and HTML of a part, made anew only where what it follows from, `key`, has changed."""
        made, hash_, html = self._made.get((run_id, name), ("", "", ""))
        if made != key:
            html = self._rendered(self.jobs.find(run_id), name)
            hash_ = _digest(html)
            self._made[run_id, name] = (key, hash_, html)
        return hash_, html

    def _rendered(self, run: Run | None, name: str) -> str:
        """The HTML of a part; one that can't be made, as of a run with a damaged report, says so in its own place."""
        try:
            return str(self._render(run, name))
        except Exception as error:
            return str(views.problem_html(words_for(error)))

    def _render(self, run: Run | None, name: str) -> str:
        if part := self.of_run.get(name) or self.of_all.get(name):
            return part(self.jobs, run)
        name, _, asked = name[:LONGEST_ASKED].partition("~")
        return self.of_asked[name](self.jobs, run, [unquote(word) for word in asked.split("/")])


def moment_of(jobs: Jobs) -> str:
    """A short text of `jobs.moment()`, for pages to compare."""
    return _digest(jobs.moment())


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
