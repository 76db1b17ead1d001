"""What programs may call, through `gradio_client` and a real server: runs are listed, started, stopped, resumed,
deleted and asked; nobody changes what is another's."""

from __future__ import annotations

import json
import re
import time

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from playground import loopback
from playground.errors import UNEXPECTED
from playground.owners import Caller
from tests.helpers import ROWS
from tests.train.test_loop import config
from tunelab import Comparer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a page, and its jobs."""
    loopback.exempt()
    from playground import app, look, server
    from playground.door import Door
    from playground.front import Front
    from playground.jobs import Jobs

    jobs = Jobs(tmp_path_factory.mktemp("runs"))
    listener = server.listener("127.0.0.1", 7986)
    with Comparer(jobs.root) as comparer:
        web = Front(server.application(app.build(jobs, comparer), jobs, look.look()), look.scripts())
        running = server.Server(Door(web, jobs.owners.key), listener)
        running.start()
        jobs.watch()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", jobs
        jobs.end()
        running.stop()


@pytest.fixture
def client(served):
    return Client(served[0], verbose=False)


@pytest.fixture(scope="module")
def finished(served, tiny):
    """The id and the token of a run that was started by a program and has finished."""
    url, jobs = served
    client = Client(url, verbose=False)
    asked = config(tiny, steps=4).model_dump(mode="json")
    started = client.predict(asked, jobs.owners.key, api_name="/start")
    until(lambda: client.predict(started["run"], api_name="/run")["status"] == "finished")
    return started["run"], started["token"]


def until(condition, seconds=120):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.2)


def test_a_run_is_started_followed_and_asked(client, finished):
    run, _token = finished
    facts = client.predict(run, api_name="/run")
    assert facts["step"] == facts["steps_total"] == 4
    assert facts["config"]["technique"]["kind"] == "lora"
    assert run in [one["run"] for one in client.predict(api_name="/runs")]
    answered = client.predict([run], ROWS[0]["prompt"], max_new_tokens=8, api_name="/compare")
    assert [answer["label"] for answer in answered["answers"]] == ["base", facts["name"]]
    assert "adapter off" in answered["answers"][0]["provenance"]


def test_a_run_is_measured(client, served, finished):
    run, token = finished
    client.predict(run, {"rows": 4, "max_new_tokens": 4}, token, api_name="/measure")
    until(lambda: client.predict(run, api_name="/run")["report"])
    assert client.predict(run, api_name="/run")["report"]["rows"] == 4


@pytest.mark.parametrize(
    "settings", [{"metric": "/tmp/own.py"}, {"rows": "many"}, {"rows": -1}, {"by": "magic"}, {"x": 1}]
)
def test_a_measurement_runs_no_file_and_takes_no_nonsense(client, finished, settings):
    with pytest.raises(AppError) as refused:
        client.predict(finished[0], settings, finished[1], api_name="/measure")
    assert next(iter(settings)) in str(refused.value)
    assert len(str(refused.value)) <= 400


def test_what_changes_a_run_takes_its_token(client, served, finished, tiny):
    _url, jobs = served
    run = jobs.start(config(tiny, steps=100_000), Caller.server())
    jobs.owners.remember(run, Caller(None, "first"))
    until(lambda: client.predict(run.id, api_name="/run")["step"] >= 1)
    for token in ("", "second", "first "):
        with pytest.raises(AppError, match="another session"):
            client.predict(run.id, token, api_name="/stop")
    client.predict(run.id, "first", api_name="/stop")
    until(lambda: client.predict(run.id, api_name="/run")["status"] == "stopped")
    client.predict(run.id, "first", api_name="/resume")
    until(lambda: client.predict(run.id, api_name="/run")["status"] == "running")
    client.predict(run.id, jobs.owners.key, api_name="/stop")  # who runs the server may
    until(lambda: client.predict(run.id, api_name="/run")["status"] == "stopped")
    with pytest.raises(AppError, match="another session"):
        client.predict(run.id, "second", api_name="/delete")
    client.predict(run.id, "first", api_name="/delete")
    assert run.id not in [one["run"] for one in client.predict(api_name="/runs")]


RUN = "the run that has finished"  # in its place
WRONG = [
    ("/run", ["../../etc"], "no run"),
    ("/run", [5], "run = 5"),
    ("/run", [None], "run: "),
    ("/run", ["x" * 5000], "no run"),
    ("/start", [{"model": {"repo_id": "starter"}}], "technique"),
    ("/start", [[1]], "config"),
    ("/start", ["config", 5], "token = 5"),
    ("/stop", ["none", ""], "no run"),
    ("/stop", [{"run": RUN}, ""], "run: "),
    ("/resume", [[RUN], ""], "run: "),
    ("/delete", ["uploads", ""], "no run"),
    ("/measure", [RUN, ["rows"]], "settings"),
    ("/compare", [[], "hello"], "No run is chosen"),
    ("/compare", [RUN, "hello"], "runs = "),
    ("/compare", [None, "hello"], "runs: "),
    ("/compare", [[5], "hello"], "runs.0 = 5"),
    ("/compare", [[RUN], None], "prompt: "),
    ("/compare", [[RUN], "  "], "prompt is empty"),
    ("/compare", [[RUN] * 9, "hello"], "9 runs"),
    ("/compare", [[RUN], "hello", "", "many"], "max_new_tokens = 'many'"),
    ("/compare", [[RUN], "hello", "", 10**9], "max_new_tokens"),
    ("/compare", [[RUN], "hello", "", 4, -1], "temperature = -1"),
    ("/compare", [[RUN], "hello", "", 4, 0, 2**80], "seed"),
    ("/compare", [[RUN], "hello", "", 4, 0, 0, [{"run": RUN}]], "Leave runs empty"),
    ("/compare", [[RUN], "hello", "", 4, 0, 0, None, [[["a", "b"]]]], "history goes with columns"),
    ("/compare", [[], "hello", "", 4, 0, 0, ["x"]], "columns.0"),
    ("/compare", [[], "hello", "", 4, 0, 0, [{"x": 1}]], "columns.0.x"),
    ("/compare", [[], "hello", "", 4, 0, 0, [{"run": "../../etc"}]], "no run"),
    ("/compare", [[], "hello", "", 4, 0, 0, [{"run": RUN, "strength": "much"}]], "columns.0.strength = 'much'"),
    ("/compare", [[], "hello", "", 4, 0, 0, [{"run": RUN, "strength": 9}]], "strength = 9"),
    ("/compare", [[], "hello", "", 4, 0, 0, [{"run": RUN, "examples": [["a"]]}]], "columns.0.examples.0"),
    ("/compare", [[], "hello", "", 4, 0, 0, [{"run": RUN}] * 9], "9 columns"),
    ("/compare", [[], "hello", "", 4, 0, 0, [{"run": RUN}], [["a"]]], "history.0.0"),
    ("/compare", [[], "hello", "", 4, 0, 0, [{"run": RUN}], [[], []]], "2 histories for 1 columns"),
    ("/stream", [[RUN], "hello", "", "many"], "max_new_tokens = 'many'"),
]


@pytest.mark.parametrize(("call", "arguments", "words"), WRONG)
def test_what_is_wrong_is_one_sentence_that_names_it(client, finished, call, arguments, words):
    arguments = json.loads(json.dumps(arguments).replace(RUN, finished[0]))
    with pytest.raises(AppError, match=re.escape(words)) as refused:
        client.predict(*arguments, api_name=call)
    assert "Traceback" not in str(refused.value)
    assert UNEXPECTED not in str(refused.value)
    assert len(str(refused.value)) <= 400


def test_nothing_else_can_be_called_by_name(client):
    names = set(client.view_api(return_format="dict", print_info=False)["named_endpoints"])
    changing = {"/start", "/stop", "/resume", "/delete", "/measure"}
    assert names == changing | {"/runs", "/run", "/compare", "/stream"}
