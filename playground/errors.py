"""Handlers that fail show one clear message in the page, never a traceback."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from typing import Any

import gradio as gr

from playground.views import plain_markdown
from tunelab import explain

log = logging.getLogger("playground")
UNEXPECTED = "Something went wrong that should not have. The details are in the terminal the playground runs in."


def words_for(error: BaseException) -> str:
    """What the page says about a failure; an unknown one goes to the terminal with its traceback."""
    known = explain(error)
    if known is None:
        log.exception("unexpected failure in a handler", exc_info=error)
    return known or UNEXPECTED


def shown(message: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: the handler's failure goes into the component `message`."""

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def guarded(*values: Any) -> Any:
            try:
                return handler(*values)
            except Exception as error:
                return {message: as_message(error)}

        return guarded

    return decorate


def as_message(error: BaseException) -> Any:
    return gr.update(value="⚠ " + plain_markdown(words_for(error)).replace("\n", "  \n"))


class LeftPages(logging.Filter):
    """Drops what the server says of the stream of a page that was left: Gradio raises 404 in it after the answer has
    begun, and nobody is there to be told."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        while error is not None:
            if getattr(error, "status_code", None) == 404 and "sse_stream" in _functions(error):
                return False
            error = error.__cause__ or error.__context__
        return True


def _functions(error: BaseException) -> set[str]:
    """The functions that an error passed through."""
    return {frame.f_code.co_name for frame, _line in traceback.walk_tb(error.__traceback__)}
