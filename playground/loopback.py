"""No proxy stands between this machine and itself, whatever the environment says of the way to other machines.

Gradio asks its own address whether it is up, with httpx, which takes the proxies of the environment for that too.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

HOST = "127.0.0.1"
NAMES = ("no_proxy", "NO_PROXY")  # programs read the one or the other


def exempt() -> None:
    """Have loopback asked directly, by this process and those it starts; for other addresses nothing changes."""
    if not urllib.request.getproxies_environment():
        # an environment that names anything hides the system's own proxies (macOS, Windows): they go into it
        os.environ |= {f"{scheme}_proxy": url for scheme, url in urllib.request.getproxies().items()}
    for name, other in (NAMES, NAMES[::-1]):
        given = os.environ.get(name) or os.environ.get(other, "")
        exempted = [host.strip() for host in given.split(",") if host.strip()]
        if "*" not in exempted:
            os.environ[name] = ",".join([*exempted, *(h for h in (HOST, "localhost") if h not in exempted)])


@contextmanager
def without_proxies() -> Iterator[None]:
    """No proxy at all for as long as it lasts: httpx prepares every one that is named before it knows whom to ask, and
    fails at those it can't speak to (SOCKS)."""
    before = {name: os.environ.get(name) for name in NAMES}
    os.environ |= dict.fromkeys(NAMES, "*")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
