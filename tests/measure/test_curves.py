"""What a run measured over its steps, as lines: the train loss of a longer run is smoothed beside what it was."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tests.helpers import ROWS
from tunelab import DataSpec, LoRA, ModelSpec, Progress, RunConfig, Stage, TrainConfig
from tunelab.measure.charts import loss_chart
from tunelab.measure.curves import losses, smoothed
from tunelab.run.events import StepDone

HALF_LIFE = 3.0


def a_line(steps, seed=0):
    noise = np.random.default_rng(seed).normal(size=steps)
    return [(float(step), 2 + float(value)) for step, value in enumerate(noise, 1)]


def reference(line):
    return pd.Series([value for _step, value in line]).ewm(halflife=HALF_LIFE).mean()


def test_a_smoothed_line_is_the_weighted_mean_of_pandas():
    line = a_line(50)
    assert smoothed(line, HALF_LIFE) == [
        (step, pytest.approx(mean)) for (step, _), mean in zip(line, reference(line), strict=True)
    ]


def test_values_that_are_not_finite_are_left_out_and_keep_their_place():
    line = [(step, math.nan if step in (3, 20) else value) for step, value in a_line(30)]
    found = dict(smoothed(line, HALF_LIFE))
    assert set(found) == {step for step, _ in line} - {3, 20}
    means = dict(zip([step for step, _ in line], reference(line), strict=True))
    assert found == pytest.approx({step: means[step] for step in found})


def test_every_stage_is_smoothed_by_itself():
    line = a_line(40)
    both = smoothed(line, HALF_LIFE, [0, 25])
    assert both == smoothed(line[:25], HALF_LIFE) + smoothed(line[25:], HALF_LIFE)


def progress_of(steps, total):
    done = [
        StepDone(
            step=int(step), stage=0, loss=loss, scored_tokens=9, tokens=9, seconds=1, gradient_norm=1, learning_rate=1
        )
        for step, loss in a_line(steps)
    ]
    return Progress("running", "", steps_total=total, steps=done)


def test_a_longer_run_shows_what_each_step_measured_and_the_smoothed_line():
    progress = progress_of(30, 120)
    assert losses(progress).series["train"] == [(done.step, done.loss) for done in progress.steps]
    assert loss_chart(progress).count("<polyline") == 2
    assert ">smoothed<" in loss_chart(progress)
    assert ">train<" not in loss_chart(progress)


def test_a_smoothed_line_stays_as_it_was_while_a_run_grows():
    early, late = (losses(progress_of(steps, 120)).series["smoothed"] for steps in (30, 90))
    assert late[:30] == early


def test_of_a_very_long_run_a_picture_gets_what_it_can_show():
    progress = progress_of(2000, 2000)
    line = losses(progress).series["smoothed"]
    assert len(line) == 401
    assert line[-1][0] == 2000
    assert set(line) <= set(smoothed(losses(progress).series["train"], 50))


def test_a_short_run_is_shown_as_it_is():
    assert list(losses(progress_of(20, 20)).series) == ["train", "held-out"]


def test_a_run_of_stages_smooths_each():
    stages = tuple(Stage(data=DataSpec(rows=ROWS), training=TrainConfig(steps=steps)) for steps in (25, 35))
    asked = RunConfig(model=ModelSpec(repo_id="starter"), technique=LoRA(), stages=stages)
    progress = progress_of(60, 60)
    assert losses(progress, asked).series["smoothed"][25] == (26, pytest.approx(progress.steps[25].loss))
