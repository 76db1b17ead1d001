"""Labels: a run can be called otherwise after it was made, and no file of labels can break the list."""

from __future__ import annotations

import json
import os
import threading

import pytest

from tests.helpers import ROWS
from tests.train.test_loop import config
from tunelab import Run, UserError, finetune, list_runs
from tunelab.run.labels import LABELS_FILE, LARGEST_FILE, LONGEST_NAME, LONGEST_NOTE, LONGEST_TAG, MOST_TAGS, Labels


@pytest.fixture
def run() -> Run:
    return Run.create(config("starter").model_copy(update={"name": "first"}))


def test_a_new_name_is_used_everywhere_and_the_configuration_stays(run):
    before = (run.path / "config.json").read_bytes()
    run.label(name="second", tags=["good", "v1"], note="lower rate\nthan before")
    again = Run.open("second")
    assert again.id == run.id
    assert again.name == again.given_name == "second"
    assert again.labels == Labels("second", ("good", "v1"), "lower rate\nthan before")
    assert (run.path / "config.json").read_bytes() == before
    with pytest.raises(UserError, match="There is no run 'first'"):
        Run.open("first")


def test_what_is_not_given_stays_and_what_is_empty_is_taken_away(run):
    run.label(name="second", tags=["good"], note="x")
    run.label(note="y")
    assert run.labels == Labels("second", ("good",), "y")
    run.label(name="", tags=[], note="")
    assert (run.labels, run.name) == (Labels(), "first")


def test_a_tag_counts_once_however_it_is_written(run):
    assert run.label(tags=["Good", " good ", "GOOD", "", "two  words"]).tags == ("Good", "two words")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "x" * (LONGEST_NAME + 1)}, "name = 'xxx.*61 characters, 60 at most"),
        ({"tags": ["y" * (LONGEST_TAG + 1)]}, "tag = 'yyy.*31 characters, 30 at most"),
        ({"tags": [str(n) for n in range(MOST_TAGS + 1)]}, "13 are given, 12 at most"),
        ({"note": "z" * (LONGEST_NOTE + 1)}, "note = 'zzz.*2,001 characters, 2,000 at most"),
        ({"name": "a\u202eb"}, "letters that are not seen"),
        ({"note": "red \x1b[31m"}, "letters that are not seen"),
    ],
)
def test_what_no_label_may_hold_is_refused_and_nothing_changes(run, given, words):
    run.label(name="second", tags=["good"], note="x")
    with pytest.raises(UserError, match=words):
        run.label(**given)
    assert run.labels == Labels("second", ("good",), "x")


def test_the_longest_labels_are_kept_as_they_are(run):
    longest = Labels("é" * LONGEST_NAME, tuple(f"{n:0>{LONGEST_TAG}}" for n in range(MOST_TAGS)), "😀" * LONGEST_NOTE)
    run.label(name=longest.name, tags=longest.tags, note=longest.note)
    assert Run(run.path).labels == longest


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe",
        b"[1, 2]",
        b"[" * 50_000,
        b'{"name": "' + b"x" * LARGEST_FILE + b'"}',
        json.dumps({"name": ["a"], "tags": {"b": 1}, "note": 3}).encode(),
        json.dumps({"name": "a\u202eb" * 99, "tags": ["\x1b[2J", 7, "t" * 99] * 99, "note": "\x00" * 9999}).encode(),
    ],
)
def test_a_broken_or_hostile_file_is_told_and_breaks_no_list(run, content):
    (run.path / LABELS_FILE).write_bytes(content)
    (listed,) = list_runs()
    labels = listed.labels
    assert labels.problem
    assert listed.name
    assert len(listed.name) <= LONGEST_NAME
    assert len(labels.tags) <= MOST_TAGS
    assert len(labels.note) <= LONGEST_NOTE
    assert all(text.isprintable() for text in (listed.name, *labels.tags, labels.note))
    assert listed.label(name="mended").problem == ""
    assert Run.open("mended").id == run.id


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_is_no_file_is_not_waited_for(run):
    os.mkfifo(run.path / LABELS_FILE)
    assert run.labels.problem
    assert run.name == "first"


def test_people_who_label_at_once_lose_nothing(run):
    calls = [{"name": "n"}, {"tags": ["t"]}, {"note": "x"}] * 5
    threads = [threading.Thread(target=lambda one=one: Run(run.path).label(**one)) for one in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.labels == Labels("n", ("t",), "x")
    assert [p.name for p in run.path.iterdir() if "labels" in p.name] == [LABELS_FILE]


def test_a_step_is_called_as_its_run_and_only_the_run_is_labelled(tiny):
    run = finetune(config(tiny, steps=2, eval_every=1, keep_adapters=True))
    run.label(name="kept")
    assert run.at(1).name == "kept at step 1"
    with pytest.raises(UserError, match="is a step of a run"):
        run.at(1).label(name="x")


def test_a_run_that_is_gone_cannot_be_labelled(run):
    with pytest.raises(UserError, match="is not there any more"):
        Run(run.path.with_name("nothing")).label(name="x")


def test_an_unreadable_run_has_its_name_too(run):
    run.label(name="old one")
    (run.path / "config.json").write_text('{"format": 99, "config": {}}')
    assert [one.name for one in list_runs()] == ["old one"]


def test_rows_in_memory_do_not_make_a_list_slow_or_differ(run):
    first, second = (list_runs()[0].config for _ in range(2))
    assert first.stages[0].data.rows == tuple(ROWS)
    assert first is second  # read once for both
