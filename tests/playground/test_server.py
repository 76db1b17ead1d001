"""The page's server: a free port, the page's scripts in its HTML, and what the page may ask for."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse
from gradio.server_messages import HeartbeatMessage
from starlette.middleware.gzip import GZipMiddleware
from starlette.testclient import TestClient

from playground import leaving, server
from playground.__main__ import greeting, main, new_password, serve
from playground.front import Front
from playground.jobs import Jobs
from playground.look import scripts
from playground.owners import KEY_FILE

INSIDE = FastAPI()
INSIDE.add_middleware(GZipMiddleware, minimum_size=1)


@INSIDE.get("/")
def page() -> HTMLResponse:
    return HTMLResponse("<!doctype html><head><script>first()</script></head><body>ä <head></body>" + "x" * 100_000)


@INSIDE.get("/other")
def other() -> PlainTextResponse:
    return PlainTextResponse("<head>")


def test_the_pages_scripts_run_before_all_others():
    answer = TestClient(Front(INSIDE, "ours()")).get("/")
    assert answer.text.startswith("<!doctype html><head><script>ours()</script><script>first()</script>")
    assert answer.text.count("ours()") == 1
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_nothing_else_is_changed():
    answer = TestClient(Front(INSIDE, "ours()")).get("/other")
    assert answer.text == "<head>"


@pytest.mark.parametrize(("client", "packed"), [("127.0.0.1", None), ("::1", None), ("10.0.0.5", "gzip")])
def test_what_goes_over_a_network_is_packed_and_on_this_machine_it_is_not(client, packed):
    answer = TestClient(Front(INSIDE, ""), client=(client, 5000)).get("/other")
    assert answer.headers.get("content-encoding") == packed
    assert answer.text == "<head>"


@pytest.mark.parametrize("path", ["/", "/other", "/none"])
def test_a_page_may_ask_this_server_only(path):
    policy = TestClient(Front(INSIDE, "")).get(path).headers["content-security-policy"]
    sources = re.findall(r"(?:https?:|\*|ws:)\S*", policy)
    assert sources == []
    assert "default-src 'self'" in policy
    assert "object-src 'none'" in policy


def test_the_scripts_can_not_end_their_own_element():
    assert "</script" not in scripts().lower()


def test_a_port_that_is_taken_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = server.listener("127.0.0.1", port)
        assert found.getsockname()[1] > port
        found.close()


def test_two_that_start_at_the_same_time_get_two_ports():
    first = server.listener("127.0.0.1", 7987)
    second = server.listener("127.0.0.1", 7987)
    assert first.getsockname() != second.getsockname()
    first.close()
    second.close()


def test_where_no_port_is_free_it_says_what_to_do(monkeypatch):
    def refuse(self, address):
        raise OSError("in use")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(SystemExit, match=r"No free port from 7860 to 7959. Give another one with --port"):
        server.listener("127.0.0.1", 7860)


@pytest.mark.parametrize("port", ["-1", "65536", "many", "٣", "1.5"])
def test_what_is_no_port_is_refused_with_what_is(port, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["playground", f"--port={port}"])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert f"'{port}' is no port: allowed are 0 (any that is free) to 65535" in capsys.readouterr().err


def test_a_folder_that_can_keep_no_runs_is_told_in_a_sentence(tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / KEY_FILE).write_text("short")
    for folder, words in (("file", "Choose another folder with --runs DIR"), ("damaged", "holds no key")):
        assert serve(tmp_path / folder, 0, open_browser=False) == 2
        assert words in capsys.readouterr().out


ENDS = """
import os, signal, time
signal.signal(signal.{number}, signal.SIG_DFL)  # whoever runs the tests may ignore it
from playground.__main__ import end_orderly
for name in {ignored}: signal.signal(getattr(signal, name), signal.SIG_IGN)
end_orderly()
try:
    os.kill(os.getpid(), signal.{number})
    time.sleep({seconds})
    print("goes on")
finally:
    print("tidied up")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no such signals")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_who_is_ended_tidies_up_and_who_ignores_it_goes_on(number):
    code = ENDS.format(number=number, ignored=[], seconds=60)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "tidied up\n"
    code = ENDS.format(number=number, ignored=[number], seconds=0)
    ignoring = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ignoring.stdout == "goes on\ntidied up\n"


def test_who_is_no_longer_read_says_goodbye_to_nobody_and_ends_well():
    code = "import sys; from playground.__main__ import say_goodbye; sys.stdin.read(); say_goodbye()"
    left = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    left.stdout.close()
    left.stdin.close()
    assert (left.stderr.read(), left.wait(60)) == ("", 0)
    left.stderr.close()


def test_a_server_answers_until_it_is_stopped():
    import urllib.request

    listener = server.listener("127.0.0.1", 7985)
    port = listener.getsockname()[1]
    running = server.Server(INSIDE, listener)
    running.start()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/other") as answer:
        assert answer.read() == b"<head>"
    running.stop()
    with pytest.raises(OSError, match=r"refused|reset"):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_the_terminal_shows_the_password_only_in_a_network(tmp_path):
    alone = greeting("http://127.0.0.1:1/?key=k", tmp_path, 1, None)
    assert "assword" not in alone
    password = new_password()
    assert password in greeting("http://127.0.0.1:1/?key=k", tmp_path, 1, password)
    assert len({new_password() for _ in range(100)}) == 100


def test_an_answer_that_comes_in_pieces_is_gathered():
    sent = []

    async def in_pieces(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"13")]})
        await send({"type": "http.response.body", "body": b"<he", "more_body": True})
        await send({"type": "http.response.body", "body": b"ad></head>"})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/", "method": "GET", "headers": []}
    with ThreadPoolExecutor(1) as apart:  # a browser of another test may have left a loop running in this thread
        apart.submit(asyncio.run, Front(in_pieces, "ours()")(scope, None, send)).result()
    start, body = sent
    assert body["body"] == b"<head><script>ours()</script></head>"
    lengths = [value for name, value in start["headers"] if name.lower() == b"content-length"]
    assert lengths == [str(len(body["body"])).encode()]


class Stream:
    """A stream of a page's, as its browser opens it and cuts it off."""

    def __init__(self, web, session: str) -> None:
        self.web, self.begun, self.heard = web, asyncio.Event(), b""
        self.scope = {
            "type": "http", "method": "GET", "path": "/gradio_api/queue/data", "headers": [], "http_version": "1.1",
            "query_string": f"session_hash={session}".encode(), "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 5000),
        }  # fmt: skip

    async def open(self) -> None:
        self.task = asyncio.create_task(self.web(self.scope, self._receive, self._send))
        await asyncio.wait_for(self.begun.wait(), 20)

    async def cut_off(self) -> type:
        self.task.cancel()
        (end,) = await asyncio.gather(self.task, return_exceptions=True)
        return type(end)

    async def _receive(self):
        await asyncio.Event().wait()

    async def _send(self, message):
        self.begun.set()
        self.heard += message.get("body", b"")


def in_a_loop(work):
    """Where a browser is driven, this thread has a loop of its own already."""
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(asyncio.run, work).result()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """An application, and the queue of its page, which has an event that waits."""
    monkeypatch.setattr(leaving, "GRACE_SECONDS", 0.3)
    with gr.Blocks() as blocks:
        gr.Textbox()
    web, queue = server.application(blocks, Jobs(tmp_path), {}), blocks._queue
    event = SimpleNamespace(alive=True, session_hash="a-page", _id="asked")
    queue.active_jobs = [[event]]
    queue.pending_messages_per_session["a-page"] = asyncio.Queue()
    return web, queue, event


def test_a_page_whose_streams_are_all_cut_off_has_left(served):
    web, queue, event = served

    async def leaves():
        streams = [Stream(web, "a-page") for _ in range(2)]
        for one in streams:
            await one.open()
        ends = [await one.cut_off() for one in streams]
        await asyncio.sleep(0.6)
        return ends

    assert in_a_loop(leaves()) == [asyncio.CancelledError] * 2
    assert not event.alive
    assert "a-page" not in queue.pending_messages_per_session
    queue.send_message(SimpleNamespace(alive=True, session_hash="a-page", _id="late"), HeartbeatMessage())
    assert "a-page" not in queue.pending_messages_per_session


def test_a_page_that_opens_another_stream_gets_what_it_asked_for_though_the_old_one_ends_late(served):
    web, queue, event = served

    async def goes_on():
        old, new = Stream(web, "a-page"), Stream(web, "a-page")
        await old.open()
        await old.cut_off()  # what the page asked for is in the queue already
        await new.open()
        await asyncio.sleep(0.6)
        queue.send_message(event, HeartbeatMessage())
        await asyncio.sleep(0.3)
        heard = new.heard
        await new.cut_off()
        return heard

    assert b"heartbeat" in in_a_loop(goes_on())
    assert event.alive
