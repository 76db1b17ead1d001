"""What steers the run that is chosen: pause, stop, go on, and back to the end of another stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.english import runs as say
from playground.errors import shown
from playground.parts.events import PRIVATE
from playground.parts.shared import Shared


@dataclass(frozen=True)
class Steering:
    """The buttons, and the choice of the stage whose result counts."""

    pause: gr.Button
    stop: gr.Button
    resume: gr.Button
    result: gr.Dropdown


def steer(shared: Shared, steering: Steering, message: gr.Markdown) -> None:
    """Presses steer the run; `message` says what comes of it, where its status does not say so at once."""
    jobs = shared.jobs

    @shown(message)
    def go_on(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        jobs.resume(shared.run(run_id), shared.caller(request))
        return {message: say.GOES_ON}

    @shown(message)
    def pause(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        run = shared.run(run_id)
        waits = run.status == "queued"
        jobs.pause(run, shared.caller(request))
        return {message: "" if waits else say.PAUSING}

    @shown(message)
    def stop(request: gr.Request, run_id: str | None) -> dict[Any, Any]:
        run = shared.run(run_id)
        waits = run.status in ("queued", "paused")
        jobs.stop(run, shared.caller(request))
        return {message: "" if waits else say.STOPPING}

    @shown(message)
    def go_back(request: gr.Request, run_id: str | None, stage: int | None) -> dict[Any, Any]:
        run = shared.run(run_id)
        # the browser may say it twice, or have another run's stages still
        if stage is not None and views.stage_results(run, run.progress())[1] != stage:
            jobs.roll_back(run, stage, shared.caller(request))
        return {message: run.progress().message}

    for button, deed in ((steering.resume, go_on), (steering.pause, pause), (steering.stop, stop)):
        button.click(deed, shared.chosen, message, **PRIVATE)
    shared.forget(message, say.GOES_ON, say.PAUSING, say.STOPPING)
    steering.result.input(go_back, [shared.chosen, steering.result], message, concurrency_limit=1, **PRIVATE)
