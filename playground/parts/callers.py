"""Who asks: from a request of Gradio's to the caller whose runs may be changed (`owners`)."""

from __future__ import annotations

import gradio as gr

from playground.door import KEY, SESSION
from playground.owners import Caller


def caller_of(request: gr.Request) -> Caller:
    """The session, and the server's key if the browser has been given it."""
    cookies = dict(request.cookies)
    return Caller(session=cookies.get(SESSION), token=cookies.get(KEY))
