"""The log of a run is read as it grows, and is what stands in the file at every moment."""

from __future__ import annotations

import random

import pytest

from tunelab.run import log as module
from tunelab.run.events import Finished, Preparing, Resumed, StepDone, parse_event
from tunelab.run.log import Log, log_of
from tunelab.run.progress import summarise


def step(number):
    return StepDone(
        step=number, stage=0, loss=1.0, scored_tokens=1, tokens=1, seconds=1.0, gradient_norm=1.0, learning_rate=0.1
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def write(path, *events, end="\n"):
    with open(path, "a", encoding="utf-8") as file:
        for event in events:
            file.write(event.model_dump_json() + end)


def test_each_line_is_parsed_once_however_often_somebody_looks(path, monkeypatch):
    parsed = []
    monkeypatch.setattr(module, "parse_event", lambda line: parsed.append(line) or parse_event(line))
    log = Log(path)
    for number in range(1, 31):
        write(path, step(number))
        for _look in range(5):
            assert log.summary().steps[-1].step == number
    assert len(parsed) == 30


def test_at_every_moment_it_is_what_a_fresh_reading_of_the_file_gives(path):
    """However the writer's bytes arrive: torn within a line, several at a time, an unknown one among them."""
    events = [Preparing(message="é\u2028x"), step(1), step(2), Resumed(step=1), step(2), step(3)]
    lines = [event.model_dump_json().encode() for event in events]
    content = b"\n".join([*lines[:3], b'{"event":"Unknown"}', b"{torn", b"", *lines[3:]]) + b"\n"
    for seed in range(20):
        path.unlink(missing_ok=True)
        cuts = sorted(random.Random(seed).sample(range(len(content)), 12))
        log, written = Log(path), 0
        for cut in (*cuts, len(content)):
            with open(path, "ab") as file:
                file.write(content[written:cut])
            written = cut
            assert log.events() == Log(path).events()
            assert log.summary() == summarise(Log(path).events())
        assert [e.event for e in log.events()] == [e.event for e in events]
        assert [e.step for e in log.summary().steps] == [1, 2, 3]


def test_a_file_that_was_written_anew_or_has_gone_is_read_anew(path):
    log = Log(path)
    assert log.events() == []
    write(path, step(1), step(2))
    assert len(log.events()) == 2
    path.write_text("")
    write(path, step(7), step(8), step(9))  # longer than before, in the same file
    assert [e.step for e in log.events()] == [7, 8, 9]
    path.unlink()
    assert log.events() == []
    write(path, step(4))
    assert [e.step for e in log.events()] == [4]


def test_who_asked_before_keeps_what_he_was_given(path):
    log = log_of(path)
    write(path, step(1))
    before = log.events()
    summary = log.summary()
    write(path, step(2), Finished(step=2, seconds=1, heldout_loss=None, adapter="adapter", peak_memory_bytes=0))
    assert len(log.events()) == 3
    assert log.summary().ending is not None
    assert len(before) == 1
    assert summary.ending is None
    assert [e.step for e in summary.steps] == [1]


def test_a_log_that_has_not_changed_is_not_opened_again(path, monkeypatch):
    log = Log(path)
    write(path, step(1))
    before = log.events()

    def never(*_given):
        raise AssertionError("opened")

    with monkeypatch.context() as patched:
        patched.setattr(module, "open", never, raising=False)
        assert log.events() == log.summary().steps == before
    write(path, step(2))
    assert [event.step for event in log.events()] == [1, 2]
