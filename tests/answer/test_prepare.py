"""A base that is made ready before anybody asks: it spares the first one the wait, and stands in nobody's way."""

from __future__ import annotations

import time

import pytest

from tests.train.test_loop import config
from tunelab import Comparer, finetune
from tunelab.answer import owner


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    return finetune(config(tiny, steps=1), root=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def comparer(run):
    with Comparer(run.root) as made:
        yield made


class OtherPrecision:
    """A run on the same model at another precision, as far as making ready looks."""

    def __init__(self, run):
        self.base_spec = run.base_spec.model_copy(update={"dtype": "bfloat16"})


def until(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.02)


def settled(comparer):
    """Wait until the wish has been looked at."""
    until(lambda: comparer._owner._wished is None and (comparer._owner.resident is not None))


def notes(comparer, run):
    return [one.note for one in comparer.stream([run], "say red", max_new_tokens=2) if one.note]


def test_who_asks_after_it_was_made_ready_waits_for_no_base(run, comparer):
    comparer.prepare(run)
    settled(comparer)
    assert not any("loading" in note for note in notes(comparer, run))


def test_who_asks_before_is_told_that_the_base_is_loaded(run, comparer):
    assert any("loading" in note for note in notes(comparer, run))


def test_a_base_that_is_asked_is_not_taken_away(run, comparer, monkeypatch):
    notes(comparer, run)
    resident = comparer._owner.resident
    other = OtherPrecision(run)
    comparer.prepare(other)
    until(lambda: comparer._owner._wished is None)
    assert comparer._owner.resident is resident
    monkeypatch.setattr(owner, "KEPT_SECONDS", 0.0)
    comparer.prepare(other)
    until(lambda: comparer._owner.resident is not resident and comparer._owner.resident is not None)


def test_nothing_is_loaded_where_there_is_no_memory_for_it(run, comparer, monkeypatch):
    from tunelab.machine import hardware

    monkeypatch.setattr(hardware, "available_memory_bytes", lambda device=None: 1000)
    comparer.prepare(run)
    until(lambda: comparer._owner._wished is None)
    assert any("loading" in note for note in notes(comparer, run))


def test_a_base_that_can_not_be_loaded_harms_nobody(run, comparer, monkeypatch):
    from tunelab.model import load as loading

    def fail(spec):
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(loading, "load", fail)
        comparer.prepare(run)
        until(lambda: comparer._owner._wished is None)
        time.sleep(0.1)
    assert [answer.tokens for answer in list(comparer.stream([run], "say red", max_new_tokens=2))[-1].answers]
