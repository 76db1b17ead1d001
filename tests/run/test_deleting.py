"""Deleted runs: out of every list, and back as they were; nothing that others need is lost."""

from __future__ import annotations

import os
import time

import pytest

from tests.train.test_loop import config
from tunelab import Run, UserError, finetune, heldout_examples, list_runs
from tunelab.run.deleting import delete_run, deleted_runs, empty_deleted, restore_run, run_bytes, runs_from
from tunelab.run.events import Stopped
from tunelab.run.heartbeat import Beating
from tunelab.run.run import DELETED
from tunelab.run.trained import known_rows


@pytest.fixture
def run() -> Run:
    return Run.create(config("starter").model_copy(update={"name": "mine"}))


def files_of(run):
    return {
        str(file.relative_to(run.path)): file.read_bytes() for file in sorted(run.path.rglob("*")) if file.is_file()
    }


def age(run, seconds):
    moment = time.time() - seconds
    os.utime(run.path / "deleted", (moment, moment))


def test_a_deleted_run_is_in_no_list_and_comes_back_as_it_was(run):
    run.label(tags=["good"])
    (run.path / "adapter").mkdir()
    (run.path / "adapter" / "weights").write_bytes(b"x" * 5000)
    before, size = files_of(run), run_bytes(run)
    gone = delete_run(run)
    assert list_runs() == []
    assert gone.bytes == size == sum(map(len, before.values()))
    assert [one.run.id for one in deleted_runs()] == [run.id]
    with pytest.raises(UserError, match=f"is deleted. Bring it back with `tunelab restore {run.id}`"):
        Run.open(run.id)
    with pytest.raises(UserError, match="not there any more"):
        Run(run.path).check_result()
    back = restore_run("mine")
    assert (back.id, back.labels.tags) == (run.id, ("good",))
    assert files_of(back) == before
    assert deleted_runs() == []


def test_what_trains_is_refused_and_what_waits_leaves_the_queue(run):
    run.queue()
    run.beat()
    with pytest.raises(UserError, match=f"is training. Stop it first .`tunelab stop {run.id}`"):
        delete_run(run)
    assert run.status == "running"
    run.end_beat()
    measured = Beating(run.path / "measuring")
    measured.path.mkdir()
    measured.beat()
    with pytest.raises(UserError, match=r"is being measured. Stop that"):
        delete_run(run)
    measured.end_beat()
    delete_run(run)
    assert not (restore_run(run.id).path / "queued").exists()


def test_a_process_that_begins_at_that_moment_keeps_its_run(run, monkeypatch):
    answers = iter([False, True])
    monkeypatch.setattr(Run, "is_alive", property(lambda _self: next(answers, True)))
    with pytest.raises(UserError, match="is training"):
        delete_run(run)
    assert [one.id for one in list_runs()] == [run.id]
    assert not deleted_runs()


def test_what_an_unfinished_run_started_from_stays(run):
    other = Run.create(config("starter").model_copy(update={"start_from": run.id}))
    other.append(Stopped(step=1, reason="as asked", adapter=None))
    assert [one.id for one in runs_from(run)] == [other.id]
    with pytest.raises(UserError, match=f"{other.id} started from it and still needs its result"):
        delete_run(run)
    delete_run(other)
    delete_run(run)
    assert [one.run.id for one in deleted_runs()] == [run.id, other.id]  # the last one first


@pytest.fixture
def family(tiny):
    """A finished run, and one that started from its result, each on rows of its own."""
    rows = [[{"prompt": f"{who} {n}", "completion": f"{who} is {n}"} for n in range(12)] for who in ("first", "second")]
    parent = finetune(_on(config(tiny, steps=2), rows[0]))
    child = finetune(_on(config(tiny, steps=2), rows[1]).model_copy(update={"start_from": parent.id}))
    return parent, child


def _on(made, rows):
    stage = made.stages[0]
    data = stage.data.model_copy(update={"rows": tuple(rows)})
    return made.model_copy(update={"stages": (stage.model_copy(update={"data": data}),)})


@pytest.mark.parametrize("emptied", [False, True])
def test_what_others_learned_from_a_deleted_run_stays_known(family, emptied):
    parent, child = family
    known, _notes = known_rows(child)
    delete_run(parent)
    if emptied:
        assert empty_deleted() > 0
        assert deleted_runs() == []
        assert not (parent.root / DELETED / parent.id / "adapter").exists()
        with pytest.raises(UserError, match="was emptied: its result is gone for good"):
            restore_run(parent.id)
    child = Run.open(child.id)
    assert child.lineage == [parent.id]
    again, notes = known_rows(child)
    assert (again, notes) == (known, [])
    assert heldout_examples(child, 2)
    with pytest.raises(UserError, match="is deleted"):
        finetune(child.config.model_copy(update={"name": "third"}))
    if emptied:  # nobody needs to know of it any more
        delete_run(child)
        empty_deleted()
        assert list((parent.root / DELETED).iterdir()) == []


def test_emptying_takes_what_is_old_enough_and_tells_its_bytes(run):
    other = Run.create(config("starter"))
    sizes = {}
    for one in (run, other):
        (one.path / "adapter").mkdir()
        (one.path / "adapter" / "weights").write_bytes(b"x" * 1000)
        sizes[one.id] = run_bytes(one)
    old, young = delete_run(run).run, delete_run(other).run
    age(old, 3600)
    assert empty_deleted(older_than_seconds=60) == sizes[run.id]
    assert [one.run.id for one in deleted_runs()] == [young.id]
    with pytest.raises(UserError, match=r"No deleted run is called .* Can be restored: " + young.id):
        restore_run(run.id)


def test_a_deleted_run_is_not_put_in_the_place_of_another(run):
    delete_run(run)
    run.path.mkdir()
    with pytest.raises(UserError, match="another one of this id"):
        restore_run(run.id)
    run.path.rmdir()
    assert restore_run(run.id).id == run.id


def test_what_is_gone_already_is_not_deleted_twice(run):
    gone = delete_run(run).run
    for one in (run, gone):
        with pytest.raises(UserError, match="nothing to delete"):
            delete_run(one)
