"""The process that trains, and the queue that outlives whatever happens to it."""

from __future__ import annotations

import errno
import sys
import time

import pytest

from playground import jobs as module
from playground.jobs import Jobs
from playground.owners import Caller
from tests.train.test_loop import config
from tunelab import Run, diagnose, list_runs, worker
from tunelab.run.events import Finished, Stopped

ANNA = Caller(session="anna's")
# a worker that notes which run it was started for, and then does as the code says
WORKER = "import pathlib, sys; run = pathlib.Path(sys.argv[1]); (run / 'begun').open('a').write('x'); {}"
KILLED = WORKER.format("import os; os.kill(os.getpid(), 9)")
FAILED = WORKER.format("sys.exit(2)")


def until(condition, seconds=30):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.02)


@pytest.fixture
def watched(monkeypatch):
    """Makes jobs whose queue is looked at often."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    made: list[Jobs] = []

    def make(code: str) -> Jobs:
        made.append(Jobs(worker=(sys.executable, "-c", code)))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.mark.parametrize("code", [KILLED, FAILED], ids=["killed", "failed"])
def test_a_worker_that_ends_before_it_begins_is_not_started_again_and_holds_nobody_up(watched, code):
    jobs = watched(code)
    first, second = jobs.start(config("starter"), ANNA), jobs.start(config("starter"), ANNA)
    jobs.watch()
    until(lambda: first.status == second.status == "lost")
    assert [(run.path / "begun").read_text() for run in (first, second)] == ["x", "x"]
    assert jobs.queued() == []
    assert diagnose(first).kind == ("killed" if code == KILLED else "crashed")
    jobs.resume(first, ANNA)  # whoever wants it to be tried again says so
    until(lambda: (first.path / "begun").read_text() == "xx")


def test_a_run_that_is_asked_for_again_before_its_worker_was_seen_to_end_is_trained(watched):
    jobs = watched(FAILED)
    run = jobs.start(config("starter"), ANNA)
    until(lambda: (run.path / "begun").exists())
    run.append(Stopped(step=1, reason="as asked", adapter=None))
    run.queue()
    jobs.watch()
    until(lambda: (run.path / "begun").read_text() == "xx")


def test_the_queue_goes_on_after_a_failure(watched, monkeypatch, caplog):
    jobs = watched(FAILED)
    run = Run.create(config("starter"))
    run.queue()
    look, failures = jobs.queued, [OSError("a disk that comes and goes")] * 5

    def queued():
        if failures:
            raise failures.pop()
        return look()

    monkeypatch.setattr(jobs, "queued", queued)
    jobs.watch()
    until(lambda: (run.path / "begun").exists())
    assert caplog.text.count("the queue could not go on") == 1


def test_of_two_workers_of_a_run_the_second_leaves_it_alone(tiny):
    run = Run.create(config(tiny, steps=2))
    run.queue()
    with worker._alone(run) as first:
        assert first
        assert worker.main([str(run.path)]) == 0
        assert (run.queued_ns is not None, list(run.events())) == (True, [])
    assert worker.main([str(run.path)]) == 0
    assert run.status == "finished"


def test_an_app_that_starts_while_a_run_trains_says_when_that_is_nearly_done(monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    run, heard = Run.create(config("starter")), []
    run.beat()
    jobs = Jobs(on_nearly_done=lambda run: heard.append(run.id))
    jobs.watch()
    run.append(Finished(step=4, seconds=1.0, heldout_loss=None, adapter="adapter", peak_memory_bytes=0))
    run.end_beat()
    until(lambda: heard == [run.id])
    jobs.end()


def test_a_run_that_a_full_disk_kept_out_of_the_queue_is_not_left_behind(monkeypatch):
    jobs = Jobs()

    def full(_run):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Run, "queue", full)
    with pytest.raises(OSError, match="No space left"):
        jobs.start(config("starter"), ANNA, expected_seconds=1.0)
    assert list_runs() == []
