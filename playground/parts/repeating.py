"""Updates of a page that comes in several."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import wraps
from typing import Any, ParamSpec

import gradio as gr

Given = ParamSpec("Given")
Updates = Iterator[dict[Any, Any]]


def repeated(updates: Updates, once: Collection[Any] = ()) -> Updates:
    """Updates each of which says again what those before it have said. Gradio's page writes an update into the one
    before while that one waits for its turn: a part that only the first has named would stay as it was.

    `once`: parts that a person may write into meanwhile; they are told only when an update names them.
    """
    said: dict[Any, Any] = {}
    for update in updates:
        said |= {part: change for part, change in update.items() if part not in said or change != gr.skip()}
        yield dict(said)
        for part in once:
            said.pop(part, None)


def repeating(handler: Callable[Given, Updates]) -> Callable[Given, Updates]:
    """A handler whose updates are `repeated`."""

    @wraps(handler)
    def repeats(*given: Given.args, **named: Given.kwargs) -> Updates:
        yield from repeated(handler(*given, **named))  # Gradio takes only a generator function for one

    return repeats
