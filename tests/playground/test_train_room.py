"""The Train room without a browser: its form says what a configuration says, and gives it back as it was."""

from __future__ import annotations

import gradio as gr
import pytest

from playground import run_form
from playground.jobs import Jobs
from playground.material import Material
from playground.rooms.train import seconds_of
from playground.views import training
from tests.helpers import ROWS
from tunelab import (
    IA3,
    DataSpec,
    FullFineTuning,
    LoRA,
    ModelSpec,
    PrefixTuning,
    PromptTuning,
    RunConfig,
    Stage,
    TrainConfig,
)
from tunelab.machine import hardware
from tunelab.train.forecast import Forecast

TEXT = "Answer briefly, politely: 42 'x' <b>"
TRAINING = TrainConfig(
    steps=7, learning_rate=3e-5, warmup_steps=2, gradient_checkpointing=True, early_stopping_patience=3, metric="chrf",
    choose_by="metric", replay_share=0.25, length_buckets=False, seed=9,
)  # fmt: skip
STAGE = Stage(data=DataSpec(source="python-docs"), training=TRAINING)
PLAIN = Stage(data=DataSpec(source="python-docs"))
REPLAYED = Stage(
    data=DataSpec(rows=ROWS, heldout=4), learn="text", name="reads", replay=DataSpec(source="general", limit=50),
    training=TRAINING,
)  # fmt: skip
MODEL = ModelSpec(repo_id="a/b", revision="12e4567", max_length=99, keep_dequantized=False, dtype="float32")
CONFIGS = {
    "every kind of number": RunConfig(name=TEXT, model=MODEL, technique=LoRA(r=3, layers=(1,)), stages=(STAGE,)),
    "lists": RunConfig(
        model=MODEL, technique=LoRA(target_modules=("q_proj", "v_proj"), layers=(0, 1)), stages=(STAGE,)
    ),
    "one module": RunConfig(model=MODEL, technique=LoRA(target_modules=("q_proj",)), stages=(STAGE,)),
    "nothing in a list": RunConfig(
        model=MODEL, technique=IA3(scaled_modules=("k_proj",), scaled_inputs=()), stages=(STAGE,)
    ),
    "a text with commas": RunConfig(model=MODEL, technique=PromptTuning(init_text=TEXT), stages=(STAGE,)),
    "a text that is a number": RunConfig(model=MODEL, technique=PrefixTuning(init_text="42"), stages=(PLAIN,)),
    "another run": RunConfig(
        model=MODEL, technique=FullFineTuning(layers=(2,)), stages=(STAGE,), start_from="20260101-000000-gone-0000"
    ),
    "stages": RunConfig(model=MODEL, technique=LoRA(), stages=(REPLAYED, STAGE, REPLAYED)),
}


@pytest.fixture(scope="module")
def choices(tmp_path_factory):
    with gr.Blocks():
        return run_form.lay_out(Jobs(tmp_path_factory.mktemp("runs")))


@pytest.mark.parametrize("given", CONFIGS.values(), ids=CONFIGS)
def test_a_run_that_is_trained_again_unchanged_is_the_same_configuration(choices, given):
    updates = run_form.fill(choices, given)
    values = {name: widget.value for name, widget in choices.widgets.items()}
    # as the page hands them on
    values |= {name: w.preprocess(updates[w]) for name, w in choices.widgets.items() if w in updates}
    *before, last = given.stages
    assert run_form.config(values, Material.of(last), tuple(before)) == given


def test_the_forecast_that_those_who_wait_are_told_is_the_one_of_this_run():
    given = CONFIGS["lists"]
    named = given.model_copy(update={"name": "written while it was worked out"})
    assert seconds_of(named, (given, 40.0)) == 40
    assert seconds_of(given, (CONFIGS["stages"], 40.0)) is None
    assert seconds_of(given, (given, None)) is None
    assert seconds_of(given, None) is None


def test_a_forecast_is_worked_out_once_until_something_it_follows_from_changes(tmp_path, monkeypatch):
    known, asked = Forecast(1, 1, 1, 1, 1, 1, 1, untimed="later"), []
    memory = [10_000_000_000]
    monkeypatch.setattr(training, "read_and_forecast", lambda config, time: asked.append((config, time)) or known)
    monkeypatch.setattr(hardware, "available_memory_bytes", lambda device=None: memory[0])
    rows = tmp_path / "rows.csv"
    rows.write_text("prompt,completion\na,b\n")
    config = CONFIGS["stages"]
    stage = config.stages[-1].model_copy(update={"data": DataSpec(source=str(rows))})
    config = config.model_copy(update={"stages": (stage,)})

    def times_asked(config, time=False):
        training.forecast_of(config, time=time)
        return len(asked)

    assert [times_asked(config), times_asked(config)] == [1, 1]
    assert times_asked(config.model_copy(update={"name": "other"})) == 1
    assert times_asked(config, time=True) == 2
    memory[0] //= 2
    assert times_asked(config) == 3
    rows.write_text("prompt,completion\na,b\nc,d\n")
    assert [times_asked(config), times_asked(config)] == [4, 4]
    other = stage.training.model_copy(update={"steps": 99})
    assert times_asked(config.model_copy(update={"stages": (stage.model_copy(update={"training": other}),)})) == 5
