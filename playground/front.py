"""The page's own scripts, first in its HTML, and what the page may ask for: this server and nothing else.

Gradio brings a page's scripts when its own have run; ours have to be there before (`web/frames.js`), and choose light
or dark before anything is drawn. The content security policy (W3C CSP 3) holds whatever text is shown on the page: no
image, script or style of elsewhere is ever asked for.
"""

from __future__ import annotations

from typing import Any

from playground import loopback
from playground.door import Receive, Scope, Send, Web

# Gradio's page has scripts and styles in its HTML, evaluates handlers that are text, and shows pictures as data
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; frame-ancestors 'self'; form-action 'self'"
)
HEADERS = ((b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer"))
HEAD = b"<head>"
# On this machine nothing has a long way to go: to pack a page's hundred files would keep a core busy for longer than
# they take.
HERE = (loopback.HOST, "::1")


class Front:
    """A web application whose page gets `scripts`, and whose answers say what a page may ask for."""

    def __init__(self, inside: Web, scripts: str) -> None:
        self.inside = inside
        self.scripts = f"<script>{scripts}</script>".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inside(scope, receive, send)
            return
        is_page = scope["path"] == "/" and scope["method"] == "GET"
        who = (scope.get("client") or ("", 0))[0]
        if is_page or who in HERE:
            plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
            scope = {**scope, "headers": plain}
        await self.inside(scope, receive, self._with_scripts(send) if is_page else self._with_headers(send))

    @staticmethod
    def _with_headers(send: Send) -> Send:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        return sending

    def _with_scripts(self, send: Send) -> Send:
        """`send`, which gathers the whole page and puts the scripts at the beginning of its head."""
        start: dict[str, Any] = {}
        body: list[bytes] = []

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.append(message.get("body", b""))
            if message.get("more_body"):
                return
            page = b"".join(body).replace(HEAD, HEAD + self.scripts, 1)
            kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            length = (b"content-length", str(len(page)).encode())
            await send({**start, "headers": [*kept, length, *HEADERS]})
            await send({"type": "http.response.body", "body": page})

        return sending
