"""A run as Python, as a notebook and as a command: each of them is exactly that run."""

from __future__ import annotations

import shlex
import subprocess

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as some
from nbclient import NotebookClient

import tunelab
from tests.helpers import ROWS
from tests.train.test_memory import one_stage
from tunelab import DataSpec, LoRA, ModelSpec, Run, RunConfig, Stage, TrainConfig, finetune
from tunelab.cli import _config, build_parser
from tunelab.techniques import TECHNIQUES

DOCS = DataSpec(source="python-docs")
HOSTILE = "a 'b' \"c\" \\ {text} $HOME `id` \n\t é 🙂, END_OF_RUN"
TECHNIQUE = {
    "lora": {"target_modules": ["q_proj", "v_proj"], "lora_alpha": 7.5},
    "prefix": {"init_text": HOSTILE},
    "prompt": {"num_virtual_tokens": 3},
}
STAGES = {
    "plain": Stage(data=DOCS),
    "settings": Stage(
        data=DOCS,
        training=TrainConfig(
            steps=7, learning_rate=1e-5, seed=3, length_buckets=False, metric="chrf", max_grad_norm=0.5
        ),
    ),
    "columns": Stage(
        data=DataSpec(
            source="my file.csv",
            columns={"prompt": "a b", "completion": "{x}: {y.z}"},
            labels={"0": "ham", "1": "spam = bad"},
            heldout=0.25,
            limit=12,
            template=HOSTILE,
            system="--dashes first",
            header="none",
            fixes=("drop-duplicates", "mask-personal-data"),
        ),
    ),
    "held-out file": Stage(data=DataSpec(source="a.csv", heldout="b.csv")),
    "another split": Stage(data=DataSpec(source="a.csv", seed=5)),
    "rows": Stage(data=DataSpec(rows=[{"prompt": HOSTILE, "completion": "1"}, *ROWS], heldout_rows=ROWS[:2])),
    "replay": Stage(
        data=DOCS, learn="text", name="reads", replay=DataSpec(source="general", limit=5),
        training=TrainConfig(replay_share=0.3),
    ),
    "general replay": Stage(data=DOCS, replay=DataSpec(source="more.jsonl"), training=TrainConfig(replay_share=0.3)),
}  # fmt: skip
STARTER, NF4 = ModelSpec(repo_id="starter"), ModelSpec(repo_id="starter", quantization="nf4")


def of(*stages, model=STARTER, technique=None, name=None):
    return RunConfig(model=model, technique=technique or LoRA(r=4), stages=stages, name=name)


CONFIGS = {
    **{kind: of(Stage(data=DOCS), technique=one(**TECHNIQUE.get(kind, {}))) for kind, one in TECHNIQUES.items()},
    **{name: of(stage, model=NF4, name=name) for name, stage in STAGES.items()},
    "two stages": of(STAGES["rows"], STAGES["settings"], model=ModelSpec(repo_id="starter", max_length=64)),
    "revision": of(Stage(data=DOCS), model=ModelSpec(repo_id="a/b", revision="abc", dtype="float32")),
}


def read_back(config):
    return eval(tunelab.as_python(config), {name: getattr(tunelab, name) for name in tunelab.__all__})


def trained_by(command, folder):
    """The configuration that a shell's command trains."""
    spoken = f'tunelab() {{ for word in "$@"; do printf "%s\\0" "$word"; done; }}\n{command}'
    words = subprocess.run(["sh", "-c", spoken], cwd=folder, capture_output=True, check=True).stdout
    arguments = words.decode().split("\0")[:-1]
    places = [str(folder / word) if word == "run.yaml" else word for word in arguments]
    return _config(build_parser().parse_args(places))[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_python_is_the_configuration(name):
    assert read_back(CONFIGS[name]) == CONFIGS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_trains_the_configuration(name, tmp_path):
    run = Run.create(CONFIGS[name])
    assert trained_by(tunelab.as_command(run), tmp_path) == run.config  # whose files have absolute paths


@given(some.text(some.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_whatever_stands_in_a_text_it_is_the_same_text(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("text")
    data = DataSpec(source="python-docs", system=text, columns={"prompt": text or "a", "completion": "b"})
    config = CONFIGS["plain"].model_copy(update={"stages": (Stage(data=data),), "name": text})
    assert read_back(config) == config
    run = Run.create(config, folder / "runs")
    assert trained_by(tunelab.as_command(run), folder) == run.config


def test_flags_are_used_where_they_can_say_it():
    assert tunelab.as_command(Run.create(CONFIGS["settings"])) == (
        "tunelab train --data python-docs --model starter --technique lora --name settings --quantization nf4 --r 4 "
        "--steps 7 --learning-rate 1.0e-05 --max-grad-norm 0.5 --metric chrf --length-buckets false --seed 3"
    )
    assert "run.yaml" in tunelab.as_command(Run.create(CONFIGS["two stages"]))


def test_a_run_that_lives_elsewhere_is_trained_there(tmp_path):
    run = Run.create(CONFIGS["plain"], tmp_path / "my runs")
    assert shlex.split(tunelab.as_command(run))[-2:] == ["--runs", str(tmp_path / "my runs")]


def test_many_rows_stay_in_the_run_that_has_them(tmp_path, monkeypatch):
    rows = [{"prompt": f"{n} " + "long " * 40, "completion": "x"} for n in range(600)]
    run = Run.create(CONFIGS["plain"].model_copy(update={"stages": (Stage(data=DataSpec(rows=rows)),)}))
    monkeypatch.setattr(RunConfig, "to_yaml", None)  # which would take seconds
    command = tunelab.as_command(run)
    assert len(command) < 200
    assert trained_by(command, tmp_path) == run.config
    assert len(tunelab.as_notebook(run)) < 10_000


@pytest.mark.slow
@pytest.mark.parametrize("many", [False, True])
def test_the_notebook_trains_to_the_same_losses(tiny, tmp_path, many, monkeypatch):
    if many:
        monkeypatch.setattr("tunelab.as_code.ROWS_IN_CODE", 100)
    first = finetune(one_stage(tiny))
    assert ("stored.stages" in tunelab.as_notebook(first)) == many
    notebook = nbformat.reads(tunelab.as_notebook(first), as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    second, same = tunelab.list_runs()
    assert same.id == first.id
    assert second.status == "finished"
    assert [step.loss for step in second.progress().steps] == [step.loss for step in first.progress().steps]
    printed = [out["text"] for cell in notebook.cells for out in cell.get("outputs", []) if out.output_type == "stream"]
    assert any("reference:" in text for text in printed)
    assert any("rows" in text for text in printed)  # the verdict


def test_settings_can_be_taken_from_a_run_and_changed(tiny, capsys):
    from tunelab.cli import main

    first = finetune(one_stage(tiny))
    assert main(["train", "--again", first.id, "--steps", "3", "--name", "again"]) == 0
    assert "(flag)" in capsys.readouterr().out
    second = Run.open("again")
    assert second.config.stages[0].training.steps == 3
    assert second.config.stages[0].data == first.config.stages[0].data
    assert main(["train", "run.yaml", "--again", first.id]) == 2
    assert "Give one of them" in capsys.readouterr().err
