"""What the app shows to others: nothing. It listens on this machine only and keeps no history of what was asked."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from urllib.parse import urlparse

import psutil
import pytest


def test_it_listens_on_loopback_only(app):
    port = urlparse(app.url).port
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith("127."):
                with socket.socket() as probe:
                    probe.settimeout(2)
                    assert probe.connect_ex((address.address, port)) != 0, address.address


@pytest.mark.parametrize("path", ["gradio_api/deep_link?session_hash=x", "gradio_api/monitoring", "monitoring"])
def test_what_would_give_pages_away_is_switched_off(app, path):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{app.url}/{path}", timeout=10)
    assert refused.value.code in (403, 404)


def test_no_run_history_is_kept_in_the_browser(app):
    with urllib.request.urlopen(f"{app.url}/config", timeout=10) as answer:
        config = answer.read().decode()
    assert '"run_history":false' in config.replace(" ", "")
