"""Several processes of torchrun learn what one process learns from the same window of batches."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

SCRIPT = """
import json, sys
import torch
from tests.helpers import ROWS
from tunelab import BottleneckAdapter, FullFineTuning, LoRA, ModelSpec, TrainConfig, load
from tunelab.data.encode import encode_all
from tunelab.data.split import read_data
from tunelab.fast import choose_loss
from tunelab.spec import DataSpec
from tunelab.train.loop import StageData, Trainer

folder, kind, accumulation, processes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
technique = {"lora": LoRA(r=4), "full": FullFineTuning(), "bottleneck": BottleneckAdapter(size=8)}[kind]
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


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_two_processes_learn_what_one_does_from_the_same_rows(tiny, tmp_path, kind):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    def losses(launcher, accumulation, processes):
        import os

        result = subprocess.run(
            [sys.executable, *launcher, str(script), tiny, kind, str(accumulation), str(processes)],
            env=os.environ | environment, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-3000:]
        return json.loads(result.stdout.strip().splitlines()[-1])

    one = losses([], 2, 1)
    # `accelerate launch` would run each of them alone without a word
    two = losses(["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29531"], 1, 2)
    for alone, together in zip(one, two, strict=True):
        assert together[:2] == pytest.approx(alone[:2], rel=1e-4)
        assert together[2] == alone[2]
