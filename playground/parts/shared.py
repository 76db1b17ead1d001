"""What every room is given, and what it says to the others: the run that is chosen and the data in hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground.door import SESSION, key_cookie
from playground.english import page as say
from playground.jobs import Jobs
from playground.owners import Caller
from playground.parts.events import QUIET
from tunelab import Comparer, Run
from tunelab.errors import UserError


@dataclass(frozen=True)
class Shared:
    """Of one page. A room sets `chosen` and `material` as outputs of its handlers and listens to their `change`."""

    page: gr.Blocks
    jobs: Jobs
    comparer: Comparer
    tabs: gr.Tabs
    chosen: gr.State  # the id of the run that is chosen, or None
    material: gr.State  # a `Material`: the data in hand
    refresh: gr.Button  # pressed by the page itself when a run began, ended, came or went

    def run(self, run_id: str | None) -> Run:
        """The run that is chosen.

        Raises:
            UserError: there is none.
        """
        run = self.jobs.find(run_id)
        if run is None:
            raise UserError(say.NOT_CHOSEN)
        return run

    def caller(self, request: gr.Request) -> Caller:
        """Who asks: the browser's session, and the server's key if it has been given it."""
        cookies = dict(request.cookies)
        return Caller(cookies.get(SESSION), cookies.get(key_cookie(self.jobs.owners.key)))

    def forget(self, message: gr.Markdown, *announced: str) -> None:
        """Have `message` emptied when what it announces has come: a run began or ended, or a measurement did."""

        def passed(said: str) -> Any:
            return "" if said in announced else gr.skip()

        self.refresh.click(passed, message, message, queue=False, **QUIET)

    def keep(self, stand: Any, inputs: Any, outputs: Any, *also: Any) -> Any:
        """Have what stands of runs filled in anew when one began, ended, came, went or was chosen, and after the events
        that are named beside. It is one event for all of these: while it is answered the next one waits, and is asked
        with what the page holds then, so that no older answer replaces a newer one."""
        events = [self.refresh.click, self.chosen.change, *also]
        return gr.on(events, stand, inputs, outputs, trigger_mode="always_last", queue=False, **QUIET)

    def go(self, room: str) -> dict[Any, Any]:
        """The update that opens a room; `tabs` is among the outputs then."""
        return {self.tabs: gr.Tabs(selected=room)}
