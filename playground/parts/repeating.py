"""Updates of a page that comes in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec

import gradio as gr

Given = ParamSpec("Given")
Updates = Iterator[dict[Any, Any]]


def repeating(handler: Callable[Given, Updates]) -> Callable[Given, Updates]:
    """A handler each of whose updates says again what those before it have said. Gradio's page writes an update into
    the one before while that one waits for its turn: a part that only the first has named would stay as it was."""

    @wraps(handler)
    def repeated(*given: Given.args, **named: Given.kwargs) -> Updates:
        said: dict[Any, Any] = {}
        for update in handler(*given, **named):
            said |= {part: change for part, change in update.items() if part not in said or change != gr.skip()}
            yield dict(said)

    return repeated
