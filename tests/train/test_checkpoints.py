"""Checkpoints: the newest by its step is kept and found, and those of earlier versions still load."""

from __future__ import annotations

import hashlib
import json

import torch

from tunelab.train.checkpoints import Checkpoint, Position, newest_checkpoint, save_checkpoint


def save(folder, step):
    checkpoint = Checkpoint(
        Position(step=step, stage_step=step), {"w": torch.tensor([float(step)])}, {"m": torch.ones(1)}
    )
    return save_checkpoint(folder, checkpoint)


def test_the_newest_is_the_one_of_the_latest_step_at_any_number_of_digits(tmp_path):
    for step in (9, 10, 999_999, 1_000_000, 1_000_001):
        save(tmp_path, step)
        assert newest_checkpoint(tmp_path).position.step == step
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1000000", "step-1000001"]


def test_a_checkpoint_with_facts_that_are_no_longer_kept_goes_on_where_it_was(tmp_path):
    path = save(tmp_path, 20)
    state = json.loads((path / "state.json").read_text()) | {"tokens": 1234}
    (path / "state.json").write_text(json.dumps(state))
    sums = json.loads((path / "manifest.json").read_text())
    sums["state.json"] = hashlib.sha256((path / "state.json").read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(sums))
    found = newest_checkpoint(tmp_path)
    assert found.position == Position(step=20, stage_step=20)
    assert found.parameters["w"].item() == 20


def test_a_damaged_one_is_passed_over(tmp_path):
    save(tmp_path, 999_999)
    newest = save(tmp_path, 1_000_000)
    (newest / "parameters.safetensors").write_bytes(b"torn")
    assert newest_checkpoint(tmp_path).position.step == 999_999
