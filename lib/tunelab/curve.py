"""How much more rows would help: a quick adapter is trained on a quarter, a half and all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence

from tunelab.chain import finetune
from tunelab.config import RunConfig
from tunelab.data import read_data
from tunelab.data.doctor import LearningCurve, learning_curve
from tunelab.data.examples import Example
from tunelab.errors import UserError
from tunelab.run.events import Finished
from tunelab.spec import DataSpec, ModelSpec, Stage, TrainConfig
from tunelab.techniques import LoRA

ROWS = 480  # to train on, at most: as many as a quick adapter sees
HELDOUT = 64  # rows that the loss is measured on, at most
BATCH = 8
LEAST = 4 * BATCH  # a quarter makes one step


def curve_of(
    data: DataSpec, model: ModelSpec, learn: str = "instructions", say: Callable[[str], None] = lambda message: None
) -> tuple[LearningCurve, list[str]]:
    """The held-out loss after one pass over a quarter, a half and all of the rows, and notes on what was left out.
    Takes minutes: three adapters are trained, LoRA of rank 16 each, on rows that are drawn by the data's seed.

    Raises:
        UserError: there are fewer than 32 rows to train on.
    """
    split = read_data(data, learn)
    split.check()
    train, heldout = split.train[:ROWS], list(split.heldout[:HELDOUT])
    if len(train) < LEAST:
        raise UserError(f"{split.name} has {len(train)} rows to train on; a learning curve needs at least {LEAST}.")

    def loss_after(rows: Sequence[Example]) -> float:
        say(f"training on {len(rows)} rows of {len(train)}")
        stage = Stage(
            learn=learn,
            data=DataSpec(rows=_as_rows(rows), heldout_rows=_as_rows(heldout), seed=data.seed),
            training=TrainConfig(steps=max(1, len(rows) // BATCH), batch_size=BATCH, eval_rows=HELDOUT),
        )
        config = RunConfig(name=f"{len(rows)} rows", model=model, technique=LoRA(), stages=(stage,))
        with tempfile.TemporaryDirectory() as folder:
            ending = finetune(config, root=folder).progress().ending
        assert isinstance(ending, Finished)
        assert ending.heldout_loss is not None
        return ending.heldout_loss

    notes = []
    if len(train) < len(split.train):
        notes.append(
            f"the curve is of {len(train):,} rows of {len(split.train):,}, and of {len(heldout)} held-out rows"
        )
    return learning_curve(train, loss_after, data.seed), notes


def _as_rows(examples: Sequence[Example]) -> tuple[dict[str, object], ...]:
    return tuple(example.as_row for example in examples)
