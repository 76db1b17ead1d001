"""Requests to stop: for the process that trains then, and for no other."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.train.test_loop import config
from tunelab import Run, finetune, train_run
from tunelab.cli import main
from tunelab.run import log
from tunelab.run.events import Started, StepDone, Stopped
from tunelab.run.turn import Turn


@pytest.fixture
def stopped(tiny) -> Run:
    """A run that was stopped after two steps of four."""
    run = Run.create(config(tiny, steps=4))
    for event in train_run(run):
        if isinstance(event, StepDone) and event.step == 2:
            run.request_stop()
    assert run.status == "stopped"
    return run


def in_this_process(run):
    list(train_run(run))


def by_the_command_line(run):
    assert main(["resume", run.id]) == 0


def from_the_queue(run):
    run.queue()
    list(train_run(run))


def by_a_worker(run):
    subprocess.run([sys.executable, "-m", "tunelab.worker", str(run.path)], check=True, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("resume", [in_this_process, by_the_command_line, from_the_queue, by_a_worker])
def test_a_request_that_a_killed_process_left_does_not_stop_the_resumed_run(stopped, resume):
    stopped.request_stop()  # its process died before it could clear this
    resume(stopped)
    assert stopped.status == "finished"
    assert not stopped.stop_requested


def test_a_request_that_comes_while_it_waits_is_heeded(stopped):
    stopped.request_stop()  # left over
    other = Turn(Run.create(stopped.config))
    assert other.come()
    other.run.beat()
    events = train_run(stopped)
    assert f"until {other.run.id} has finished" in next(events).message
    stopped.request_stop()
    assert isinstance(next(events), Stopped)
    assert list(events) == []
    other.close()
    assert stopped.progress().message == "stopped at step 2: stopped while it waited"
    assert not stopped.stop_requested


def test_a_request_that_comes_while_it_loads_is_heeded(stopped):
    for event in train_run(stopped):
        if isinstance(event, Started):
            stopped.request_stop()
    assert (event.step, event.reason) == (2, "as asked")


def test_what_was_taken_out_of_the_queue_can_be_trained_later(stopped):
    stopped.queue()
    stopped.request_stop()
    old = time.time() - 60
    os.utime(stopped.path / "stop", (old, old))
    list(train_run(stopped))
    assert stopped.status == "finished"


def test_resuming_what_was_taken_out_of_the_queue_a_moment_ago_trains_it(stopped):
    stopped.queue()
    stopped.request_stop()
    by_the_command_line(stopped)
    assert stopped.status == "finished"


def test_a_run_paused_as_it_trains_goes_on_when_somebody_trains_it(tiny):
    run = Run.create(config(tiny, steps=4))
    for event in train_run(run):
        if isinstance(event, StepDone) and event.step == 2:
            run.pause()
    assert (run.status, run.progress().step, run.has_adapter) == ("paused", 2, True)
    list(train_run(run))
    assert run.status == "finished"
    assert not run.is_paused
    assert [event.step for event in run.progress().steps] == [1, 2, 3, 4]


def test_resuming_what_was_paused_in_the_queue_a_moment_ago_trains_it(stopped):
    stopped.queue()
    stopped.pause()
    assert stopped.status == "paused"
    by_the_command_line(stopped)
    assert stopped.status == "finished"
    assert not stopped.is_paused


def test_waiting_for_another_run_reads_no_log(tiny, monkeypatch):
    done = finetune(config(tiny, steps=1))
    done.beat()  # as if it trained on
    waiting, holder = Run.create(config(tiny, steps=1)), Turn(done)
    assert holder.come()
    log.log_of.cache_clear()

    def never(line):
        raise AssertionError(line)

    monkeypatch.setattr(log, "parse_event", never)
    assert done.id in next(train_run(waiting)).message
    holder.close()
