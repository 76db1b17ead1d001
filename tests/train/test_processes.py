"""Several processes of torchrun learn what one process learns from the same window of batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import REPOSITORY
from tests.helpers import ROWS
from tunelab import finetune, list_runs
from tunelab.run.events import Finished

SCRIPT = """
import json, sys
import torch
from tests.helpers import ROWS
from tunelab import FullFineTuning, ModelSpec, TrainConfig, load
from tunelab.data.encode import encode_all
from tunelab.data.split import read_data
from tunelab.fast import choose_loss
from tunelab.spec import DataSpec
from tunelab.train.loop import StageData, Trainer

folder, accumulation, processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
technique = FullFineTuning()
base = load(ModelSpec(repo_id=folder, dtype="float32"))
rows, _ = encode_all(read_data(DataSpec(rows=ROWS, heldout=4)).train, base.tokenizer, 512)
training = TrainConfig(steps=4, batch_size=2, gradient_accumulation_steps=accumulation, warmup_steps=0)
torch.manual_seed(0)
model = technique.attach(base, rows)
trainer = Trainer(model, choose_loss(model, technique), StageData(rows, []), training, 1e-2, pad_id=2)
assert trainer.accelerator.num_processes == processes
losses = [[e.loss, e.gradient_norm, e.tokens] for e in trainer.train() if e.event == "StepDone"]
if trainer.accelerator.is_main_process:
    print(json.dumps(losses))
"""


def test_two_processes_train_every_weight_as_one_does_on_the_same_rows(tiny, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    def losses(launcher, accumulation, processes):
        result = subprocess.run(
            [sys.executable, *launcher, str(script), tiny, str(accumulation), str(processes)],
            env=os.environ | environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-3000:]
        return json.loads(result.stdout.strip().splitlines()[-1])

    one = losses([], 2, 1)
    # `accelerate launch` would run each of them alone without a word
    two = losses(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"], 1, 2)
    for alone, together in zip(one, two, strict=True):
        assert together[:2] == pytest.approx(alone[:2], rel=1e-4)
        assert together[2] == alone[2]


def torchrun(*arguments, folder):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TUNELAB_HOME": str(folder)}
    return subprocess.run(
        [*command, "-m", "tunelab.cli", *arguments], env=environment, capture_output=True, text=True, timeout=240
    )


def test_on_the_command_line_they_make_one_run_that_learns_what_one_process_does(tiny, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in ROWS))
    settings = ["--steps", "5", "--eval-every", "2", "--checkpoint-every", "2", "--dtype", "float32"]
    asked = ["train", "--data", str(rows), "--heldout", "4", "--model", tiny, *settings, "--learning-rate", "0.01"]

    together = torchrun(*asked, "--batch-size", "2", folder=tmp_path / "two")
    assert together.returncode == 0, together.stderr[-3000:]
    assert together.stdout.count("run 20") == 1
    (two,) = list_runs(tmp_path / "two" / "runs")
    assert two.status == "finished"
    assert sum(isinstance(event, Finished) for event in two.events()) == 1

    one = finetune(two.config.model_copy(update={"stages": (in_batches_of(4, two.config.stages[0]),)}), root=tmp_path)
    for ours, alone in ((two.progress(), one.progress()),):
        assert [s.loss for s in ours.steps] == pytest.approx([s.loss for s in alone.steps], rel=1e-4)
        assert [s.tokens for s in ours.steps] == [s.tokens for s in alone.steps]
        losses = [e.heldout_loss for e in alone.evaluations]
        assert [e.heldout_loss for e in ours.evaluations] == pytest.approx(losses, rel=1e-4)
    there, here = (load_file(run.adapter_path / "adapter_model.safetensors") for run in (two, one))
    assert there.keys() == here.keys()
    assert all(torch.allclose(there[name], here[name], atol=1e-4) for name in here)


def test_a_mistake_is_told_once_and_ends_all_of_them(tiny, tmp_path):
    result = torchrun("train", "--data", str(tmp_path / "none.csv"), "--model", tiny, folder=tmp_path)
    assert result.returncode != 0
    assert (result.stdout + result.stderr).count("There is no file") == 1


def in_batches_of(size, stage):
    return stage.model_copy(update={"training": stage.training.model_copy(update={"batch_size": size})})
