"""Why a run failed or got lost: certain only where it is, and fixes that are configurations."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest

from playground.jobs import Jobs
from playground.owners import Caller
from tests.train.test_loop import config
from tunelab import FullFineTuning, LoRA, ModelSpec, PrefixTuning, Run, RunConfig, UserError, finetune
from tunelab.errors import cause_of, explain
from tunelab.machine import containers
from tunelab.run import process
from tunelab.run.diagnosis import diagnose, memory_fixes
from tunelab.run.events import Failed, Finished, Preparing, Started, StepDone
from tunelab.run.settings import config_diff

SERVER = Caller.server()
STARTED = Started(
    device="cpu",
    dtype="float32",
    quantization="none",
    attention="sdpa",
    fast=True,
    threads=1,
    base_sha256="0" * 64,
    trainable_parameters=1,
    total_parameters=2,
    steps_total=6,
    learning_rates=(0.1,),
    train_rows=(12,),
    heldout_rows=(4,),
    data_sha256=("0",),
    forecast_bytes=3_100_000_000,
)


@pytest.fixture
def counters(monkeypatch):
    """What the kernel counts, to be changed."""
    now = SimpleNamespace(here=3, anywhere=7, boot="first")
    kills = lambda: containers.Kills(now.here, now.anywhere, now.boot)  # noqa: E731
    monkeypatch.setattr(process, "memory_kills", kills)
    return now


@pytest.fixture
def lost(counters) -> Run:
    """A run whose process is gone after it had begun to train."""
    run = Run.create(config("starter", batch_size=16))
    process.note_start(run.path)
    run.append(STARTED)
    return run


def test_a_kill_that_was_seen_and_counted_is_certain(lost, counters):
    counters.here, counters.anywhere = 4, 8
    process.note_exit(lost.path, -9)
    found = diagnose(lost)
    assert (found.kind, found.certain) == ("memory", True)
    assert found.words.startswith("The system ended its process because memory ran out at batch 16 × up to 512 tokens")
    assert "3.1 GB were forecast" in found.words
    assert lost.progress().message.startswith("the system ended its process because memory ran out; resume it")


def test_what_nobody_saw_is_a_guess(lost, counters):
    assert diagnose(lost).kind == "unknown"
    assert not diagnose(lost).certain
    assert "If the machine was short of memory" in diagnose(lost).words
    counters.here = 4
    found = diagnose(lost)
    assert (found.kind, found.certain) == ("memory", False)
    assert "probably this one too" in found.words


def test_a_kill_that_the_system_does_not_count_blames_nobody(lost, counters):
    process.note_exit(lost.path, -9)
    counters.anywhere = 9  # later, of another process
    found = diagnose(lost)
    assert (found.kind, found.certain) == ("killed", False)
    assert "counts no process" in found.words
    counters.here = counters.anywhere = None
    process.note_start(lost.path)
    process.note_exit(lost.path, -9)
    assert "counts no process" not in diagnose(lost).words


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (-int(signal.SIGTERM), "killed", "asked to end by a person"),
        (-int(signal.SIGSEGV), "crashed", "SIGSEGV"),
        (1, "crashed", "exit code 1 and could not write why. Its last line: 'KeyError: 3'"),
    ],
)
def test_other_ends_are_told_as_they_are(lost, code, kind, words):
    (lost.path / "worker.log").write_text("something\nKeyError: 3\n\n")
    process.note_exit(lost.path, code)
    found = diagnose(lost)
    assert found.kind == kind
    assert words in found.words
    assert [fix.title for fix in found.fixes] == ["Resume"]


def test_a_restart_of_the_machine_is_told(lost, counters):
    counters.boot, counters.here = "second", 0
    assert diagnose(lost).kind == "restarted"


def test_the_next_process_starts_with_nothing_of_the_one_before(lost, counters):
    counters.here = 4
    process.note_exit(lost.path, -9)
    process.note_start(lost.path)
    assert process.evidence(lost.path) == process.Evidence(counted=True)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"code": "x", "here": []}', "[" * 9999])
def test_broken_notes_are_no_evidence(lost, content):
    for name in (process.PROCESS_FILE, process.EXIT_FILE):
        (lost.path / name).write_text(content)
    assert diagnose(lost).kind in ("unknown", "restarted")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: can't allocate memory"), "memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (UserError("There is no file x."), "said"),
    ],
)
def test_a_failure_is_diagnosed_by_what_the_run_recorded(tiny, monkeypatch, error, kind):
    def fail(*_given, **_named):
        raise error

    monkeypatch.setattr("tunelab.chain._Chain._attach", fail)
    with pytest.raises(UserError):
        finetune(config(tiny, steps=2))
    run = Run.open("latest")
    assert run.progress().ending.cause == cause_of(error)
    assert diagnose(run).kind == kind
    assert explain(error)
    if kind == "memory":
        assert "before the first step" in diagnose(run).words


def test_a_log_that_names_no_cause_is_understood():
    run = Run.create(config("starter"))
    run.append(Failed(message=explain(MemoryError())))
    assert diagnose(run).kind == "memory"


def test_a_run_that_is_well_has_no_diagnosis(lost):
    lost.append(Finished(step=1, seconds=1, heldout_loss=None, adapter="adapter", peak_memory_bytes=1))
    assert diagnose(lost) is None


def settings(fix, before: RunConfig) -> dict[str, str]:
    return {one.field: one.b for one in config_diff(before, fix.config)}


def test_fixes_are_configurations_and_the_first_learns_the_same():
    before = config("starter", batch_size=16)
    first, *others = memory_fixes(before, STARTED)
    assert (first.title, settings(first, before)) == (
        "Retry with batch 8",
        {"batch_size": "8", "gradient_accumulation_steps": "2"},
    )
    assert [settings(fix, before) for fix in others] == [
        {"gradient_checkpointing": "yes"},
        {"max_length": "256"},
        {"quantization": "nf4", "keep_dequantized": "no"},
    ]


@pytest.mark.parametrize("size", [2, 3, 6, 7, 9, 25, 1024])
@pytest.mark.parametrize("steps", [1, 3])
def test_smaller_batches_give_the_same_effective_batch(size, steps):
    before = config("starter", batch_size=size, gradient_accumulation_steps=steps)
    training = memory_fixes(before, STARTED)[0].config.stages[0].training
    assert training.batch_size < size
    assert training.batch_size * training.gradient_accumulation_steps == size * steps


def test_what_does_not_fit_the_run_is_not_offered():
    def titles(made, started=STARTED):
        return [fix.title for fix in memory_fixes(made, started)]

    smallest = config("starter", batch_size=1, gradient_checkpointing=True)
    smallest = smallest.model_copy(update={"model": ModelSpec(repo_id="starter", max_length=64, quantization="nf4")})
    assert titles(smallest) == ["Retry with packed weights"]
    base = config("starter")
    assert "Retry in 4 bits" not in titles(base.model_copy(update={"technique": FullFineTuning()}))
    assert "Retry with gradient checkpointing" not in titles(base.model_copy(update={"technique": PrefixTuning()}))
    on = STARTED.model_copy(update={"gradient_checkpointing": True})
    assert "Retry with gradient checkpointing" not in titles(base, on)
    full, on_gpu = base.model_copy(update={"technique": FullFineTuning()}), {"device": "cuda", "optimizer": "adamw"}
    pages = "Retry with paged moments"
    assert pages in titles(full, STARTED.model_copy(update=on_gpu))
    assert pages not in titles(base, STARTED.model_copy(update=on_gpu))  # whose moments are small
    assert pages not in titles(full)  # on a CPU
    assert pages not in titles(full, STARTED.model_copy(update=on_gpu | {"optimizer": "paged_adamw_32bit"}))
    assert titles(base, None)[0] == "Retry in 4 bits"  # it ended while the model was loaded
    assert memory_fixes(base.model_copy(update={"technique": LoRA(r=2)}))


def until(condition, seconds=20):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_killed_worker_is_seen_at_once_and_one_click_trains_it_smaller(counters):
    script = (
        "import os, signal, sys; from pathlib import Path; from tunelab import Run; run = Run(Path(sys.argv[1])); "
        "run.beat(); run.take_from_queue(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    jobs = Jobs(worker=(sys.executable, "-c", script))
    run = Run.create(config("starter", batch_size=16), jobs.root)
    run.label(name="renamed")
    process.note_start(run.path)
    run.append(Preparing(message="loading"))
    run.queue()
    jobs.start_next()
    counters.here = 4
    until(lambda: jobs.start_next() or (run.path / process.EXIT_FILE).exists())
    assert run.status == "lost"  # without waiting for its heartbeat to grow old
    found = diagnose(run)
    assert (found.kind, found.certain) == ("memory", True)
    number = [fix.title for fix in found.fixes].index("Retry with batch 8")
    with pytest.raises(UserError, match="only whoever shows the server's key"):
        jobs.retry(run, number, Caller(session="somebody"))
    retried = jobs.retry(run, number, SERVER)
    assert retried.id != run.id
    assert settings(SimpleNamespace(config=retried.config), run.config) == {
        "name": "renamed",
        "batch_size": "8",
        "gradient_accumulation_steps": "2",
    }
    with pytest.raises(UserError, match="no such fix any more"):
        jobs.retry(run, 99, SERVER)
    resume = [fix.title for fix in found.fixes].index("Resume")
    assert jobs.retry(run, resume, SERVER).id == run.id
    assert run.status in ("queued", "running")


def test_the_expected_wait_is_the_sum_of_those_before_or_not_known(monkeypatch):
    monkeypatch.setattr(Jobs, "start_next", lambda _self: None)
    jobs = Jobs()
    running, second, third = (jobs.start(config("starter"), SERVER, seconds) for seconds in (None, 100.0, None))
    for age, run in enumerate((third, second, running), 1):  # clocks of files may be coarse
        os.utime(run.path / "queued", (time.time() - age, time.time() - age))
    assert jobs.waiting(running).seconds == 0
    assert jobs.waiting(second).seconds is None
    assert "not known" in jobs.waiting(second).words
    running.take_from_queue()
    running.beat()
    running.append(STARTED)
    for step in (1, 2):
        running.append(_step(step, seconds=10))
    assert (jobs.waiting(second).place, jobs.waiting(second).seconds) == (1, 40)
    assert jobs.waiting(third).seconds == 140
    assert jobs.waiting(third).words == "number 2 in line, its turn comes in about 2.3 minutes"
    assert jobs.waiting(running) is None


def test_a_run_takes_as_long_as_a_finished_one_like_it():
    from tunelab.run.waiting import seconds_left

    done = Run.create(config("starter", steps=3))
    done.append(STARTED)
    for step in (1, 2, 3):
        done.append(_step(step, seconds=10, time_unix_seconds=1000.0 + 10 * step))
    done.append(Finished(step=3, seconds=50, heldout_loss=None, adapter="adapter", peak_memory_bytes=1))
    longer, other = Run.create(config("starter", steps=12)), Run.create(config("starter", steps=3, batch_size=2))
    assert seconds_left(longer, [other, done]) == 30 + 20 / 2 * 12
    assert seconds_left(other, [done, longer]) is None


def _step(step, **facts):
    values = {"stage": 0, "loss": 1.0, "scored_tokens": 1, "tokens": 1, "gradient_norm": 1.0, "learning_rate": 0.1}
    return StepDone(step=step, **values, **facts)
