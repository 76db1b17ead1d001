"""In what runs differ, and a run once more with other settings."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tests.helpers import ROWS
from tests.train.test_loop import config
from tunelab import IA3, DataSpec, LoRA, ModelSpec, Run, RunConfig, Stage, TrainConfig, UserError
from tunelab.run.settings import ABSENT, Difference, again, config_diff


def made(technique=None, *, model=None, **training) -> RunConfig:
    return RunConfig(
        model=model or ModelSpec(repo_id="starter"),
        technique=technique or LoRA(),
        stages=(Stage(data=DataSpec(source="python-docs"), training=TrainConfig(**training)),),
    )


def test_equal_configurations_differ_in_nothing():
    assert config_diff(made(steps=5), made(steps=5)) == []


def test_only_what_differs_is_told_as_the_flags_call_it():
    other = made(LoRA(r=32), model=ModelSpec(repo_id="org/other", quantization="nf4"), steps=9)
    assert config_diff(made(), other) == [
        Difference("model", ("starter", "org/other")),
        Difference("quantization", ("none", "nf4")),
        Difference("r", ("16", "32")),
        Difference("steps", ("60", "9")),
        Difference("warmup_steps", ("3 (auto)", "0 (auto)")),
    ]


def test_every_field_is_looked_at():
    """Whatever single field changes, it is told, and nothing else but what follows from it."""
    values = {"steps": 61, "batch_size": 9, "seed": 3, "schedule": "constant", "keep_adapters": True, "metric": "chrf"}
    for name, value in values.items():
        names = {one.field for one in config_diff(made(), made(**{name: value}))}
        assert name in names
        assert names <= {name, "warmup_steps"}
    data = DataSpec(source="python-docs", seed=7, limit=50)
    (stage,) = made().stages
    other = made().model_copy(update={"stages": (stage.model_copy(update={"data": data}),)})
    assert {one.field for one in config_diff(made(), other)} == {"limit", "split_seed"}


def test_auto_is_the_same_as_what_it_comes_to():
    rate = LoRA().default_learning_rate
    assert config_diff(made(), made(learning_rate=rate)) == []
    (found,) = config_diff(made(), made(learning_rate=rate * 2))
    assert (found.field, found.a, found.b) == ("learning_rate", f"{rate:g} (auto)", f"{rate * 2:g}")


def test_another_technique_has_other_fields():
    found = {one.field: one.values for one in config_diff(made(LoRA()), made(IA3()), made(LoRA(r=4)))}
    assert found["technique"] == ("lora", "ia3", "lora")
    assert found["r"] == ("16", ABSENT, "4")


def test_stages_are_told_apart():
    two = made().model_copy(update={"stages": (*made().stages, *made(steps=9).stages)})
    found = {one.field: one.values for one in config_diff(made(), two)}
    assert "stage 1: steps" not in found
    assert found["stage 2: steps"] == (ABSENT, "9")


def test_rows_in_memory_are_counted_and_compared_by_what_they_say():
    def on(rows):
        return made().model_copy(update={"stages": (Stage(data=DataSpec(rows=rows, heldout=4)),)})

    assert config_diff(on(ROWS), on(ROWS)) == []
    assert config_diff(on(ROWS), on([*ROWS[1:], ROWS[0]])) == [Difference("rows", ("16 rows in memory",) * 2)]


def test_a_run_again_has_the_changes_and_nothing_else():
    run = Run.create(made(LoRA(r=4), steps=5))
    assert again(run) == run.config
    changed = again(run, steps=7, r=8, name="longer", max_length=128, model="org/other")
    assert {one.field: one.b for one in config_diff(run.config, changed)} == {
        "name": "longer",
        "model": "org/other",
        "max_length": "128",
        "r": "8",
        "steps": "7",
    }
    for other in ("ia3", IA3()):
        assert again(run, technique=other).technique == IA3()
    rows = Run.create(config("starter"))
    assert again(rows, data="python-docs").stages[0].data.rows is None


def test_a_setting_that_is_not_there_or_is_wrong_is_told():
    run = Run.create(made(LoRA(r=4), steps=5))
    with pytest.raises(UserError, match="rnk: LoRA has no such setting"):
        again(run, rnk=3)
    with pytest.raises(UserError, match="r: IA³ has no such setting"):
        again(run, technique="ia3", r=3)
    with pytest.raises(ValidationError):
        again(run, steps=0)
    imported = Run.create(made(), imported_from="adapter.zip")
    with pytest.raises(UserError, match="made elsewhere"):
        again(imported, steps=3)


def test_rows_of_one_stage_are_not_put_in_the_place_of_all():
    run = Run.create(made().model_copy(update={"stages": (*made().stages, *made().stages)}))
    with pytest.raises(UserError, match="has 2 stages"):
        again(run, data="general")
    assert [stage.training.steps for stage in again(run, steps=3).stages] == [3, 3]
