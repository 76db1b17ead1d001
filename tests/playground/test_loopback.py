"""A company's proxy leads to other machines, never from this one to itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request

import pytest

from playground import loopback
from tests.conftest import REPOSITORY

NOBODY = "127.0.0.1:9"  # where nothing listens


@pytest.fixture
def environment(monkeypatch):
    """The environment without anything about proxies, put back afterwards."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in (*loopback.NAMES, "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "")  # so that what a test leaves behind is put back as well
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.slow
@pytest.mark.parametrize(
    "proxy", [{"http_proxy": f"http://{NOBODY}"}, {"ALL_PROXY": f"socks5://{NOBODY}"}], ids=lambda proxy: str(*proxy)
)
def test_the_app_comes_up_where_a_proxy_is_set(environment, tmp_path, proxy):
    command = [sys.executable, "-m", "playground", "--no-browser", "--runs", str(tmp_path / "runs"), "--port", "7981"]
    with open(tmp_path / "log", "wb") as log:
        app = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=REPOSITORY, env=os.environ | proxy
        )
    try:
        line = app.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, f"the app printed {line!r}: {(tmp_path / 'log').read_text()}"
        with urllib.request.urlopen(address[0], timeout=30) as page:
            assert "Fine-tuning Playground" in page.read().decode()
    finally:
        app.terminate()
        app.communicate(timeout=30)


@pytest.mark.parametrize("name", loopback.NAMES)
def test_only_loopback_is_exempted_and_what_was_exempted_stays_so(environment, name):
    environment.setenv("http_proxy", f"http://{NOBODY}")
    environment.setenv(name, "intranet.example, 10.0.0.1")
    loopback.exempt()
    loopback.exempt()
    for known in loopback.NAMES:
        assert os.environ[known] == "intranet.example,10.0.0.1,127.0.0.1,localhost"
    for host in ("127.0.0.1:7860", "localhost", "intranet.example", "10.0.0.1"):
        assert urllib.request.proxy_bypass(host)
    assert not urllib.request.proxy_bypass("huggingface.co")
    assert urllib.request.getproxies()["http"] == f"http://{NOBODY}"


def test_where_nothing_goes_through_a_proxy_that_stays_so(environment):
    environment.setenv("NO_PROXY", "*")
    loopback.exempt()
    assert urllib.request.proxy_bypass("huggingface.co")


def test_the_systems_own_proxy_is_not_lost(environment):
    """macOS and Windows are asked for their proxies only as long as the environment names nothing."""
    environment.setattr(
        urllib.request, "getproxies", lambda: urllib.request.getproxies_environment() or {"https": "http://system:1"}
    )
    loopback.exempt()
    assert urllib.request.getproxies() == {"https": "http://system:1", "no": "127.0.0.1,localhost"}


def test_proxies_are_there_again_once_the_page_is_up(environment):
    environment.setenv("https_proxy", f"http://{NOBODY}")
    environment.setenv("NO_PROXY", "intranet.example")
    before = dict(os.environ)
    with loopback.without_proxies():
        assert urllib.request.proxy_bypass("huggingface.co")
    assert os.environ == before
