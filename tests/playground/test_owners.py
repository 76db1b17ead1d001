"""Who may change a run: who started it, and whoever shows the server's key."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from playground.app import _is_awaited
from playground.jobs import Jobs
from playground.owners import KEY_FILE, OWNER_FILE, Caller, Owners
from playground.quick import quick_config
from tests.measure.test_ladder import config as ladder_config
from tests.train.test_loop import config
from tunelab import Ladder, Run, UserError, list_runs
from tunelab.run.events import Finished, Stopped

ANNA, BEN, SERVER = Caller(session="anna's"), Caller(session="ben's"), Caller.server()
NOTHING = (sys.executable, "-c", "")  # a worker that trains nothing


@pytest.fixture
def jobs() -> Jobs:
    return Jobs(worker=NOTHING, climber=NOTHING)


@pytest.fixture
def run(jobs) -> Run:
    return jobs.start(config("starter"), Caller("anna's", "token of anna"))


def test_session_and_token_of_the_starter_and_the_servers_key_may_change_a_run(jobs, run):
    owners = jobs.owners
    assert owners.may_change(run, "anna's", None)
    assert owners.may_change(run, None, "token of anna")
    assert owners.may_change(run, "ben's", owners.key)
    for session, token in (
        (None, None),
        ("", ""),
        ("ben's", None),
        ("token of anna", "anna's"),  # each in its own place
        (owners.key, None),
        ("anna's ", None),
        ("\ud800", "\ud800é"),
    ):
        assert not owners.may_change(run, session, token)


def test_a_restart_changes_nothing_and_another_root_has_another_key(jobs, run, tmp_path):
    again = Owners(jobs.root)
    assert again.key == jobs.owners.key
    assert again.may_change(run, "anna's", None)
    assert Owners(tmp_path / "other").key != again.key


def test_a_run_of_the_command_line_belongs_to_the_server(jobs):
    run = Run.create(config("starter"))
    assert not jobs.owners.may_change(run, "anna's", None)
    assert jobs.owners.may_change(run, None, jobs.owners.key)
    assert "started on the command line" in jobs.owners.refusal(run)
    assert not (jobs.start(config("starter"), SERVER).path / OWNER_FILE).exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_nobody_else_reads_key_and_owner_and_the_owner_file_shows_neither(jobs, run):
    key = jobs.root / KEY_FILE
    assert [file.stat().st_mode & 0o777 for file in (key, run.path / OWNER_FILE)] == [0o600, 0o600]
    text = (run.path / OWNER_FILE).read_text()
    assert "anna" not in text
    assert jobs.owners.key not in text
    key.chmod(0o644)
    assert Owners(jobs.root).key == jobs.owners.key
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]", '{"session": 3}', '{"session": ""}', "[" * 9000, "x" * 20_000])
def test_a_broken_owner_file_gives_the_run_to_nobody_but_the_server(jobs, run, content):
    (run.path / OWNER_FILE).write_text(content)
    assert not any(jobs.owners.may_change(run, session, None) for session in ("anna's", "", None))
    assert jobs.owners.may_change(run, None, jobs.owners.key)


def test_servers_that_start_at_once_have_one_key(tmp_path):
    keys = []
    threads = [threading.Thread(target=lambda: keys.append(Owners(tmp_path).key)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 16
    assert len(set(keys)) == 1
    assert [file.name for file in tmp_path.iterdir()] == [KEY_FILE]


def test_the_first_key_stays_where_two_servers_make_one(tmp_path, monkeypatch):
    first = Owners(tmp_path).key
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != KEY_FILE and exists(path))  # as if not yet there
    assert Owners(tmp_path).key == first


def test_nothing_shown_is_nobody(jobs):
    run = jobs.start(config("starter"), Caller(session="None", token="None"))
    assert not jobs.owners.may_change(run, None, None)


def test_an_empty_key_file_opens_nothing(tmp_path):
    (tmp_path / KEY_FILE).touch()
    with pytest.raises(UserError, match="holds no key"):
        _ = Owners(tmp_path).key


CHANGES = {
    "stop": lambda jobs, run, caller: jobs.stop(run, caller),
    "pause": lambda jobs, run, caller: jobs.pause(run, caller),
    "resume": lambda jobs, run, caller: jobs.resume(run, caller),
    "delete": lambda jobs, run, caller: jobs.delete(run, caller),
    "label": lambda jobs, run, caller: jobs.label(run, caller, name="x"),
    "roll back": lambda jobs, run, caller: jobs.roll_back(run, 0, caller),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_a_run_is_refused_to_others_and_changes_nothing(jobs, run, change):
    if change is CHANGES["resume"]:
        jobs.stop(run, ANNA)
    before = {file.name: file.read_bytes() for file in run.path.iterdir() if file.name != "worker.log"}
    for caller in (BEN, Caller(), Caller(token="guess")):
        with pytest.raises(UserError, match="was started in another session"):
            change(jobs, run, caller)
    assert {file.name: file.read_bytes() for file in run.path.iterdir() if file.name != "worker.log"} == before
    if change is not CHANGES["roll back"]:  # has nothing to go back to
        change(jobs, run, ANNA)


def test_only_its_owner_restores_a_run_and_only_the_server_empties(jobs, run):
    jobs.delete(run, ANNA)
    with pytest.raises(UserError, match="another session"):
        jobs.restore(run.id, BEN)
    with pytest.raises(UserError, match="everybody's runs"):
        jobs.empty_deleted(ANNA)
    assert jobs.restore(run.id, ANNA).id == run.id
    jobs.delete(run, Caller(token=jobs.owners.key))
    assert [one.run.id for one in jobs.deleted()] == [run.id]
    assert jobs.empty_deleted(Caller(token=jobs.owners.key)) > 0
    assert (jobs.deleted(), list_runs()) == ([], [])


def test_a_ladder_is_its_starters_too(jobs):
    ladder = jobs.start_ladder(ladder_config("starter", "ia3"), ANNA)
    ladder.end_beat()
    for change in (jobs.stop_climbing, jobs.climb):
        with pytest.raises(UserError, match="another session"):
            change(ladder, BEN)
    assert not ladder.stop_requested
    jobs.climb(ladder, ANNA)


def test_the_runs_of_a_ladder_and_a_sweep_are_their_starters_and_those_of_the_command_line_the_servers(jobs, run):
    run.take_from_queue()
    run.append(Finished(step=4, seconds=1, heldout_loss=1.5, adapter="adapter", peak_memory_bytes=1))
    alone = Ladder.create(ladder_config("starter", "ia3"), root=jobs.root)
    mine = jobs.start_ladder(ladder_config("starter", "qlora"), ANNA), jobs.start_sweep(run, ANNA)
    for series in (*mine, alone):
        made = Run.create(config("starter"), jobs.root)
        assert jobs.owners.whose(made, ANNA) == "server"
        series.remember(series.config.names[-1], run=made.id)
        with pytest.raises(UserError, match="command line" if series is alone else "another session"):
            jobs.label(made, BEN, name="ben's")
        if series is alone:
            with pytest.raises(UserError, match="command line"):
                jobs.label(made, ANNA, name="anna's")
            continue
        assert [jobs.owners.whose(made, caller) for caller in (ANNA, BEN)] == ["yours", "another"]
        jobs.delete(made, ANNA)
        with pytest.raises(UserError, match="another session"):
            jobs.restore(made.id, BEN)
        jobs.restore(made.id, ANNA)
    (alone.path / alone.FILE).write_text("{}")  # what can't be read has no runs
    with pytest.raises(UserError, match="command line"):
        jobs.label(made, ANNA, name="anna's")


def test_the_browser_names_no_folder_but_a_runs(jobs, run):
    jobs.delete(run, ANNA)
    (jobs.root / "uploads").mkdir()
    names = ["", ".", "..", ".deleted", f".deleted/{run.id}", f"../runs/.deleted/{run.id}", str(run.path), "\0"]
    for name in (*names, "uploads", "x" * 300, "é" * 200, "\ud800"):
        assert jobs.find(name) is None


def test_a_page_waits_for_its_own_quick_adapter_alone(jobs, run):
    made = jobs.start(quick_config(), ANNA)
    assert [_is_awaited(jobs, made, who) for who in (ANNA, BEN, Caller())] == [True, False, False]
    assert not _is_awaited(jobs, run, ANNA)  # is no quick adapter
    jobs.stop(made, ANNA)
    assert not _is_awaited(jobs, made, ANNA)


def wait_since(*runs):
    """Has the runs wait since one second after the other: clocks of files may be coarse."""
    for age, run in enumerate(reversed(runs), 1):
        moment = time.time() - age
        os.utime(run.path / "queued", (moment, moment))


def test_a_paused_run_keeps_its_place_and_never_starts_by_itself(jobs, monkeypatch):
    monkeypatch.setattr(Jobs, "start_next", lambda _self: None)
    first, second, third = (jobs.start(config("starter"), ANNA) for _ in range(3))
    wait_since(first, second, third)
    jobs.pause(second, ANNA)
    assert second.status == "paused"
    assert [run.id for run in Jobs(jobs.root).queued()] == [first.id, third.id]  # after a restart as well
    with pytest.raises(UserError, match="can't be paused: it is paused"):
        jobs.pause(second, ANNA)
    jobs.resume(second, ANNA)
    assert [run.id for run in jobs.queued()] == [first.id, second.id, third.id]
    assert not second.stop_requested
    jobs.pause(second, ANNA)
    jobs.stop(second, ANNA)
    assert second.status == "stopped"
    jobs.resume(second, ANNA)
    assert [run.id for run in jobs.queued()] == [first.id, third.id, second.id]  # a place that was given up is gone


def test_a_run_that_was_training_when_it_was_paused_goes_on_before_all_that_wait(jobs, monkeypatch):
    monkeypatch.setattr(Jobs, "start_next", lambda _self: None)
    first, waiting = (jobs.start(config("starter"), ANNA) for _ in range(2))
    wait_since(first, waiting)
    first.beat()
    first.take_from_queue()
    jobs.pause(first, ANNA)
    assert first.status == "running"  # until its step is done
    assert first.stop_requested
    first.append(Stopped(step=3, reason="as asked", adapter=None))  # as the process that trains it does
    first.clear_requests()
    first.end_beat()
    assert first.status == "paused"
    assert first.progress().message.startswith("paused at step 3")
    jobs.resume(first, ANNA)
    assert [run.id for run in jobs.queued()] == [first.id, waiting.id]


def test_a_page_sees_that_something_was_renamed_paused_or_deleted(jobs, monkeypatch):
    monkeypatch.setattr(Jobs, "start_next", lambda _self: None)
    _first, second = (jobs.start(config("starter"), ANNA) for _ in range(2))
    states = [[jobs.moment(), jobs.state()]]
    for change in (
        lambda: jobs.label(second, ANNA, name="x"),
        lambda: jobs.pause(second, ANNA),
        lambda: jobs.stop(second, ANNA),
        lambda: jobs.delete(second, ANNA),
    ):
        assert [jobs.moment(), jobs.state()] == states[-1]
        change()
        states.append([jobs.moment(), jobs.state()])
        assert states[-1] not in states[:-1]
