"""Who gets in, who is known as who runs the server, and who has to wait."""

from __future__ import annotations

import base64

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from starlette.testclient import TestClient

from playground.door import FREE_TRIES, SESSION, Door, Throttle, key_cookie

KEY = "k" * 43
INSIDE = FastAPI()


@INSIDE.get("/{path:path}")
def inside(path: str) -> PlainTextResponse:
    return PlainTextResponse("inside")


def visitor(door: Door, host: str = "127.0.0.1:7860") -> TestClient:
    return TestClient(door, base_url=f"http://{host}", follow_redirects=False)


def basic(password: str, user: str = "anybody") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:7860", "localhost:1", "[::1]:7860"])
def test_this_machine_is_answered_by_its_own_names(host):
    assert visitor(Door(INSIDE), host).get("/").text == "inside"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil:80", ""]
)
def test_a_page_of_elsewhere_can_not_pose_as_this_one(host):
    answer = visitor(Door(INSIDE)).get("/any/route", headers={"host": host})
    assert answer.status_code == 421
    assert "127.0.0.1" in answer.text


ELSEWHERE = [
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "origin": "https://evil.example"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},  # a picture, a script
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "origin": "http://127.0.0.1:1234"},  # of another port
    {"origin": "http://evil.example"},  # in a network without TLS
    {"origin": "http://127.0.0.1:1234"},
    {"origin": "null"},
]


@pytest.mark.parametrize("password", [None, "pass"])
@pytest.mark.parametrize("headers", ELSEWHERE)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_page_of_elsewhere_can_not_have_the_browser_ask(method, headers, password):
    known = {"cookie": f"{SESSION}=known", **basic("pass")}
    answer = visitor(Door(INSIDE, KEY, password)).request(method, f"/any?key={KEY}", headers={**headers, **known})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_a_form_of_elsewhere_is_not_sent():
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "origin": "https://evil.example"}
    assert visitor(Door(INSIDE)).post("/gradio_api/upload", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "origin": "https://behind.a.proxy"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},  # typed, or a bookmark
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},  # a link
        {"origin": "http://127.0.0.1:7860"},
        {},  # no browser
    ],
)
def test_the_page_itself_links_to_it_and_programs_are_answered(headers):
    assert visitor(Door(INSIDE)).get("/any", headers=headers).text == "inside"


def test_a_browser_gets_one_session_that_scripts_and_other_sites_can_not_use_and_keeps_it_when_it_follows_a_link():
    client = visitor(Door(INSIDE))
    given = client.get("/").headers["set-cookie"]
    assert given.startswith(f"{SESSION}=")
    assert "HttpOnly" in given
    assert "SameSite=Lax" in given  # Strict cookies stay at home when a link is followed: a new session would be given
    assert "set-cookie" not in client.get("/").headers
    other = visitor(Door(INSIDE)).get("/").headers["set-cookie"]
    assert other.split(";")[0] != given.split(";")[0]


def test_the_printed_address_makes_known_who_runs_the_server_and_leaves_no_key_in_it():
    answer = visitor(Door(INSIDE, KEY)).get(f"/?run=a&key={KEY}&x=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?run=a&x=1"
    assert answer.headers["set-cookie"].startswith(f"{key_cookie(KEY)}={KEY};")
    assert "SameSite=Strict" in answer.headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "x", KEY[:-1], KEY + "k"])
def test_another_key_is_no_key(key):
    answer = visitor(Door(INSIDE, KEY)).get(f"/?key={key}")
    assert answer.text == "inside"
    assert key_cookie(KEY) not in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/queue/join", "/live", "/theme.css"])
def test_in_a_network_every_route_needs_the_password(path):
    client = visitor(Door(INSIDE, KEY, "pass"), "192.0.2.7:7860")
    assert client.get(path).status_code == 401
    assert client.get(f"{path}?key={KEY}").status_code == 401
    assert client.get(path, headers=basic("wrong")).status_code == 401
    assert client.get(path, headers=basic("pass")).text == "inside"


@pytest.mark.parametrize(
    "header", ["Basic", "Basic ???", "Basic " + base64.b64encode(b"\xff:\xff").decode(), "Bearer pass"]
)
def test_a_broken_password_is_a_wrong_one(header):
    assert visitor(Door(INSIDE, KEY, "pass")).get("/", headers={"authorization": header}).status_code == 401


def test_who_guesses_waits_longer_and_longer_and_the_right_one_ends_it():
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0])
    client = visitor(Door(INSIDE, KEY, "pass", throttle))
    for number in range(FREE_TRIES):
        assert client.get("/", headers=basic(f"guess {number}")).status_code == 401
    waits = []
    for number in range(12):
        refused = client.get("/", headers=basic("pass"))  # not even the right one is heard meanwhile
        assert refused.status_code == 429
        waits.append(int(refused.headers["retry-after"]))
        now[0] += waits[-1]
        assert client.get("/", headers=basic(f"wrong {number}")).status_code == 401
    assert waits == sorted(waits)
    assert waits[-1] > 100 * waits[0]
    now[0] += waits[-1] + 1
    assert client.get("/", headers=basic("pass")).text == "inside"
    assert client.get("/", headers=basic("wrong")).status_code == 401  # and one may be wrong again


def test_a_page_that_goes_on_with_an_old_password_keeps_nobody_out():
    client = visitor(Door(INSIDE, KEY, "pass"))
    for _ in range(3 * FREE_TRIES):
        assert client.get("/live", headers=basic("of before")).status_code == 401
    assert client.get("/", headers=basic("pass")).text == "inside"


def test_a_browser_without_a_password_is_asked_and_not_counted():
    client = visitor(Door(INSIDE, KEY, "pass"))
    for _ in range(3 * FREE_TRIES):
        assert client.get("/").status_code == 401
    assert client.get("/", headers=basic("pass")).text == "inside"


def test_the_throttle_forgets_those_who_have_not_come_for_long():
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0])
    for number in range(1000):
        throttle.wrong(str(number), "x")
    now[0] = 1e6
    throttle.wrong("last", "x")
    assert len(throttle._wrong) == 1


def test_a_cookie_header_that_is_none_hurts_nobody():

    assert visitor(Door(INSIDE)).get("/", headers={"cookie": "a=(; =;"}).text == "inside"
