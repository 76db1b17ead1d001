"""When a page has left, and when one of its streams has merely ended.

A page opens a stream for what it is sent, and cuts it off when it has all it waits for. Gradio takes each stream that
is cut off for a page that has left: it forgets what waits for the page and ends what the page has asked for. On a busy
machine it notices late, and by then the page may have asked for something else, which never comes: a press that does
nothing. Here a page has left when, `GRACE_SECONDS` after a stream of it was cut off, it has no other one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI
from gradio.utils import LRUCache

GRACE_SECONDS = 2.0
PAGES_KEPT = 2000  # with what waits for them; Gradio's own number
STREAMS = "/queue/data"


class Messages(LRUCache[str, Any]):
    """What waits for each page. What is sent to a page that has left is dropped."""

    def __delitem__(self, session: str) -> None:
        """Nothing yet: who cuts a stream off has `Leaving.clean_events` look whether the page has left."""

    def __missing__(self, session: str) -> Any:
        return asyncio.Queue()

    def forget(self, session: str) -> None:
        """What waits for a page that has left."""
        if session in self:
            super().__delitem__(session)


class Leaving:
    """Counts the streams of each page, and tells Gradio's queue when a page has left."""

    def __init__(self, queue: Any) -> None:
        self.open: Counter[str] = Counter()
        self.messages = queue.pending_messages_per_session = Messages(PAGES_KEPT)
        self._clean, self._looking = queue.clean_events, set[asyncio.Task[None]]()
        queue.clean_events = self.clean_events

    async def clean_events(self, *, session_hash: str | None = None, event_id: str | None = None) -> None:
        """In the place of Gradio's own: a page's events end when it has left, one event at once."""
        if session_hash is None:
            await self._clean(event_id=event_id)
            return
        task = asyncio.get_running_loop().create_task(self._look(session_hash))
        self._looking.add(task)  # nobody else holds it
        task.add_done_callback(self._looking.discard)

    async def _look(self, session: str) -> None:
        await asyncio.sleep(GRACE_SECONDS)
        if not self.open[session]:
            del self.open[session]
            self.messages.forget(session)
            await self._clean(session_hash=session)


class Streams:
    """ASGI: counts the streams that are open."""

    def __init__(self, app: Any, leaving: Leaving) -> None:
        self.app, self.leaving = app, leaving

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")) if scope["type"] == "http" else {}
        if not asked.get("session_hash") or not scope["path"].endswith(STREAMS):
            await self.app(scope, receive, send)
            return
        (session, *_) = asked["session_hash"]
        self.leaving.open[session] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.leaving.open[session] -= 1


def notice(web: FastAPI, queue: Any) -> None:
    """Have the queue of Gradio's that `web` serves notice pages that leave as it is described here."""
    web.add_middleware(Streams, leaving=Leaving(queue))
