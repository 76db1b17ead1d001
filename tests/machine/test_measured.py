"""What is measured once: it counts this thread's own time, is kept on disk, and stays the same beside other work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch

from tunelab.machine import hardware, measured

CHOOSE = """
import sys
from tunelab.machine import hardware, libraries
libraries.prepare()
import torch
if sys.argv[1] == "must not measure":
    hardware.own_seconds = lambda *works, turns: 1 / 0
print(hardware.best_cpu_dtype(), hardware.best_cpu_attention(torch.float32))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of one's own, empty."""
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "measured"


@contextmanager
def all_cores_busy():
    burn = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(burn) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_the_choices_are_the_same_while_all_cores_are_busy():
    choices = hardware.measure_dtype(), hardware.measure_attention(torch.float32)
    with all_cores_busy():
        for _ in range(5):
            assert (hardware.measure_dtype(), hardware.measure_attention(torch.float32)) == choices


def test_time_in_which_the_thread_does_not_compute_does_not_count():
    def waits():
        time.sleep(0.2)

    def computes():
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    waited, computed = measured.own_seconds(waits, computes, turns=2)
    assert waited < computed


def test_threads_are_as_before_even_if_a_measurement_fails():
    before = torch.get_num_threads()
    seen = []
    with pytest.raises(ZeroDivisionError):
        measured.own_seconds(lambda: seen.append(torch.get_num_threads()), lambda: 1 / 0, turns=1)
    assert seen == [1]
    assert torch.get_num_threads() == before


def test_random_numbers_are_the_same_whether_something_was_measured_or_was_on_disk(cache):
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        measured.measured("a draw", {}, lambda: float(torch.rand(3)[0]), lambda value: isinstance(value, float))
        drawn.append(torch.rand(4))
    assert len(list(cache.iterdir())) == 1
    assert torch.equal(*drawn)


def test_a_second_process_reads_the_choice_and_does_not_measure(cache):
    def choose(how):
        command = [sys.executable, "-c", CHOOSE, how]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    first = choose("measure")
    assert len(list(cache.iterdir())) == 2
    assert choose("must not measure") == first


@pytest.fixture
def asked(cache):
    """A function that asks for a measurement that gives 1, 2, 3, …, and what has been measured."""
    calls: list[int] = []

    def measure():
        calls.append(len(calls) + 1)
        return calls[-1]

    def ask(**key):
        return measured.measured("test", key, measure, lambda kept: isinstance(kept, int))

    return ask, calls


def test_what_was_measured_holds_for_the_same_question_on_the_same_machine(asked, monkeypatch):
    ask, _calls = asked
    assert [ask(dtype="a"), ask(dtype="a"), ask(dtype="b"), ask(dtype="a")] == [1, 1, 2, 1]
    for name, other in (("torch", "9.9"), ("cpu", {"model name": "another"}), ("affinity", [7]), ("quota", 0.5)):
        here = measured.machine()
        assert name in here
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(measured, "machine", lambda there={**here, name: other}: there)
            assert ask(dtype="a") > 2
    assert ask(dtype="a") == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[1]", b'{"asked": {}}', None], ids=str)
def test_a_damaged_answer_is_measured_again_and_mended(asked, cache, damage):
    ask, _calls = asked
    assert ask() == 1
    (file,) = cache.iterdir()
    if damage is None:  # whole, and another kind of value
        file.write_text(json.dumps(json.loads(file.read_text()) | {"value": "fast"}))
    else:
        file.write_bytes(damage)
    assert ask() == 2
    assert ask() == 2


def test_a_cache_that_cannot_be_written_or_read_only_costs_time(asked, cache):
    ask, calls = asked
    cache.parent.write_text("a file where the folder should be")
    assert ask() == 1
    assert ask() == 2
    cache.parent.unlink()
    cache.mkdir(parents=True)
    ask()
    (file,) = cache.iterdir()
    file.unlink()
    file.mkdir()
    assert ask() == len(calls)


def test_answers_that_nobody_asks_for_are_forgotten(asked, cache, monkeypatch):
    ask, _calls = asked
    monkeypatch.setattr(measured, "KEEP", 3)
    for number in range(4):
        ask(number=number)
        for age, file in enumerate(sorted(cache.iterdir(), key=lambda f: f.stat().st_mtime_ns, reverse=True), 1):
            os.utime(file, (1000 - age, 1000 - age))
        ask(number=0)  # this one is asked for
    assert len(list(cache.iterdir())) == 3
    assert ask(number=0) == 1
    assert ask(number=1) == 5
