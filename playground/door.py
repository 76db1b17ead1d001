"""Who comes in. Plain ASGI, before everything the server answers, Gradio's own routes included.

- Each browser gets a session cookie: a run belongs to the session that started it (`owners`).
- The address that the terminal prints carries the server's key; whoever opens it is known as who runs the server.
- On this machine alone, only names of this machine are answered, so that no page of elsewhere can pose as this one.
- What a page of elsewhere has a browser ask for is refused, but for following a link: it could come with what the
  browser knows of this one (W3C Fetch Metadata).
- In a network (`--lan`) nobody gets in without the password, and who guesses has to wait.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

SESSION = "playground_session"
LOCAL = ("127.0.0.1", "localhost", "[::1]")
FREE_TRIES = 5  # wrong passwords before somebody has to wait
WAIT_SECONDS, LONGEST_WAIT_SECONDS = 2.0, 300.0  # doubled with each further one
FORGOTTEN_AFTER_SECONDS = 3600.0

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Web = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


@dataclass
class Throttle:
    """How long somebody has to wait who gave wrong passwords."""

    clock: Callable[[], float] = time.monotonic
    # tries, until when nothing is heard, and what was tried last
    _wrong: dict[str, tuple[int, float, bytes]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def seconds_to_wait(self, who: str) -> float:
        with self._lock:
            return max(0.0, self._wrong.get(who, (0, 0.0, b""))[1] - self.clock())

    def wrong(self, who: str, password: str) -> None:
        """Count a wrong password. The same one again is no further guess: a page that was open while the server started
        again goes on with the one it knows."""
        tried = hashlib.sha256(password.encode()).digest()
        with self._lock:
            now = self.clock()
            self._wrong = {k: v for k, v in self._wrong.items() if v[1] + FORGOTTEN_AFTER_SECONDS > now}
            before, _until, last = self._wrong.get(who, (0, 0.0, b""))
            if hmac.compare_digest(tried, last):
                return
            tries = before + 1
            beyond = tries - FREE_TRIES
            # the exponent is bounded: 2 ** 2000 is no float
            pause = min(LONGEST_WAIT_SECONDS, WAIT_SECONDS * 2 ** min(beyond, 10)) if beyond >= 0 else 0.0
            self._wrong[who] = (tries, now + pause, tried)

    def right(self, who: str) -> None:
        with self._lock:
            self._wrong.pop(who, None)


@dataclass
class Door:
    """The web application `inside`, for those who may come in.

    Args:
        key: the server's key; None: nobody can show it.
        password: what a network's visitors have to know; None: only this machine is listened to.
    """

    inside: Web
    key: str | None = None
    password: str | None = None
    throttle: Throttle = field(default_factory=Throttle)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.inside(scope, receive, send)
        elif refusal := self._refusal(scope):
            await _answer(scope, receive, send, *refusal)
        elif shown := self._key_in_address(scope):
            known = _cookie(key_cookie(str(self.key)), str(self.key), "Strict")
            await _answer(scope, receive, send, 303, "", [(b"location", shown), known])
        else:
            await self.inside(scope, receive, self._with_session(scope, send))

    def _refusal(self, scope: Scope) -> tuple[int, str, Headers] | None:
        """Status, words and headers for who may not come in."""
        if _is_sent_from_elsewhere(scope):
            return 403, "Another page asks for this. Open the playground in a tab of its own.", []
        if self.password is not None:
            return self._password_refusal(scope, self.password)
        host = _header(scope, b"host")
        if host.rpartition(":")[0] in LOCAL or host in LOCAL:
            return None
        return 421, f"Only this machine is listened to: open http://127.0.0.1, not {host[:60]!r}.", []

    def _password_refusal(self, scope: Scope, password: str) -> tuple[int, str, Headers] | None:
        who = (scope.get("client") or ("unknown", 0))[0]
        if wait := self.throttle.seconds_to_wait(who):
            seconds = int(wait) + 1
            said = f"Too many wrong passwords. Try again in {seconds} s."
            return 429, said, [(b"retry-after", str(seconds).encode())]
        given = _password_of(scope)
        if given is not None and hmac.compare_digest(given.encode(), password.encode()):
            self.throttle.right(who)
            return None
        if given is not None:
            self.throttle.wrong(who, given)
        asked = [(b"www-authenticate", b'Basic realm="Fine-tuning Playground", charset="UTF-8"')]
        said = "The password is needed: it stands in the terminal the playground runs in. Any user name will do."
        return 401, said, asked

    def _key_in_address(self, scope: Scope) -> bytes | None:
        """The address without the key, if the right key stands in it."""
        if scope["type"] != "http" or self.key is None:
            return None
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        if not any(name == "key" and hmac.compare_digest(value.encode(), self.key.encode()) for name, value in query):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "key"])
        return (scope["path"] + (f"?{rest}" if rest else "")).encode()

    @staticmethod
    def _with_session(scope: Scope, send: Send) -> Send:
        """`send`, which gives a browser its session if it has none."""
        if scope["type"] != "http" or cookies(scope).get(SESSION):
            return send
        # sent along by links of elsewhere: whoever follows one would be given another session, and lose his runs
        new = _cookie(SESSION, secrets.token_urlsafe(24), "Lax")

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), new]}
            await send(message)

        return sending


def key_cookie(key: str) -> str:
    """The name of the cookie that holds a server's key: cookies know no ports, and two playgrounds may run at once."""
    return f"playground_key_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def cookies(scope: Scope) -> dict[str, str]:
    """The cookies of a request, by name."""
    try:
        return {name: one.value for name, one in SimpleCookie(_header(scope, b"cookie")).items()}
    except CookieError:
        return {}


def _is_sent_from_elsewhere(scope: Scope) -> bool:
    """Whether a browser sends it for a page that is not this server's."""
    if site := _header(scope, b"sec-fetch-site"):
        follows_link = _header(scope, b"sec-fetch-mode") == "navigate" and scope.get("method") in ("GET", "HEAD")
        return site not in ("same-origin", "none") and not follows_link
    origin = _header(scope, b"origin")  # in a network without TLS browsers say no more than this
    return bool(origin) and origin.partition("://")[2] != _header(scope, b"host")


def _header(scope: Scope, name: bytes) -> str:
    return next((value for key, value in scope["headers"] if key == name), b"").decode("latin-1")


def _password_of(scope: Scope) -> str | None:
    """The password of HTTP's basic authentication (RFC 7617); None where none is given."""
    scheme, _space, told = _header(scope, b"authorization").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(told, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _cookie(name: str, value: str, same_site: Literal["Strict", "Lax"]) -> tuple[bytes, bytes]:
    """The header that sets a cookie scripts can't read and pages of other sites can't send, for a year; with "Lax"
    their links can."""
    return b"set-cookie", f"{name}={value}; Path=/; Max-Age=31536000; HttpOnly; SameSite={same_site}".encode()


async def _answer(scope: Scope, receive: Receive, send: Send, status: int, words: str, headers: Headers) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": status, "headers": [kind, *headers]})
    await send({"type": "http.response.body", "body": words.encode()})
