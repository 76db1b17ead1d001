"""What a page waits for: one question, the newest. It ends when somebody cancels, leaves, or asks another one."""

from __future__ import annotations

import threading

import gradio as gr


class Asked(threading.Event):
    """A question's end, for whoever answers: set, nothing more is answered. `wanted`: whether its page still shows what
    there is of the answers."""

    wanted = True


class Cancels:
    """The questions that pages wait for, one a page."""

    def __init__(self) -> None:
        self._asked: dict[str, Asked] = {}

    def begin(self, page: gr.Request, asked: Asked) -> None:
        """A new question; the one before it is forgotten."""
        self.forget(page)
        self._asked[str(page.session_hash)] = asked

    def end(self, page: gr.Request) -> None:
        """Cancelled: what there is of the answers is shown."""
        if asked := self._asked.pop(str(page.session_hash), None):
            asked.set()

    def forget(self, page: gr.Request) -> None:
        """Cancelled, and nobody wants to see it."""
        if asked := self._asked.get(str(page.session_hash)):
            asked.wanted = False
        self.end(page)

    def over(self, page: gr.Request, asked: Asked) -> None:
        """It has been answered, or can't be."""
        if self._asked.get(str(page.session_hash)) is asked:
            del self._asked[str(page.session_hash)]

    def waits(self, page: gr.Request) -> bool:
        return str(page.session_hash) in self._asked
