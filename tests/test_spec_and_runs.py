"""What describes a run, what a run's directory says, and what may import what."""

from __future__ import annotations

import ast
import errno
import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from tests.conftest import REPOSITORY
from tests.helpers import ROWS
from tunelab import DataSpec, LoRA, ModelSpec, Run, RunConfig, Stage, TrainConfig, UserError, explain, list_runs
from tunelab.run.events import Finished, Preparing, Resumed, Started, StepDone, Stopped
from tunelab.run.run import runs_root
from tunelab.spec import base_differences

CONFIG = RunConfig(
    name="mine",
    model=ModelSpec(repo_id="starter", quantization="nf4"),
    technique=LoRA(r=8),
    stages=(Stage(data=DataSpec(rows=ROWS, heldout=4), training=TrainConfig(steps=9)),),
)


def test_a_configuration_goes_through_json_and_yaml_unchanged(tmp_path):
    for name, text in (("a.json", CONFIG.model_dump_json()), ("a.yaml", CONFIG.to_yaml())):
        (tmp_path / name).write_text(text)
        assert RunConfig.from_file(tmp_path / name) == CONFIG
    assert "learning_rate" not in CONFIG.to_yaml()


def test_qlora_is_lora_on_a_quantised_base():
    assert CONFIG.method == "QLoRA"
    assert CONFIG.model_copy(update={"model": ModelSpec(repo_id="starter")}).method == "LoRA"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainConfig(steps=0), "steps = 0: input should be greater than or equal to 1."),
        (lambda: TrainConfig(stepz=3), "stepz"),
        (lambda: ModelSpec(repo_id=""), "repo_id"),
        (lambda: ModelSpec(repo_id="starter", quantization="int3"), "quantization = 'int3'"),
        (lambda: DataSpec(), "source"),
        (lambda: DataSpec(rows=ROWS, heldout=1.5), "heldout = 1.5: allowed: a share between 0 and 1"),
        (lambda: DataSpec(rows=ROWS, heldout=float("nan")), "heldout = nan: allowed: a share between 0 and 1"),
        (lambda: DataSpec(rows=ROWS, heldout=float("inf")), "heldout = inf: allowed: a share between 0 and 1"),
        (lambda: DataSpec(rows=ROWS, heldout="nan"), "heldout = 'nan': allowed: a share between 0 and 1"),
        (lambda: DataSpec(rows=ROWS, heldout="-3"), "heldout = '-3': allowed: a share between 0 and 1"),
        (lambda: TrainConfig(weight_decay=float("nan")), "weight_decay = nan: input should be a finite number"),
        (lambda: TrainConfig(max_grad_norm=float("inf")), "max_grad_norm = inf: input should be a finite number"),
        (lambda: LoRA(lora_alpha=float("nan")), "lora_alpha = nan: input should be a finite number"),
        (lambda: DataSpec(rows=ROWS, columns={"quest": "a"}), "there is no role 'quest'"),
        (lambda: LoRA(r=0), "r = 0"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(make, message):
    with pytest.raises(ValidationError) as caught:
        make()
    assert message in explain(caught.value)


def test_a_wrong_field_of_several_types_gives_one_sentence():
    stages = [{"data": {"source": "a.csv"}, "training": {"learning_rate": "fast"}}]
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate({"model": {"repo_id": "starter"}, "technique": {"kind": "lora"}, "stages": stages})
    assert explain(caught.value) == (
        "stages.0.training.learning_rate = 'fast': input should be a valid number, or input should be 'auto'."
    )


def test_two_bases_are_the_same_where_their_answers_are():
    plain = ModelSpec(repo_id="a/b", dtype="bfloat16")

    def differences(one, **other):
        return base_differences(one, one.model_copy(update=other))

    assert differences(plain, max_length=64, device="cpu", keep_dequantized=False) == []
    for other in ({"repo_id": "a/c"}, {"quantization": "nf4"}, {"dtype": "float32"}):
        assert differences(plain, **other) == list(other)
    first, second = (plain.model_copy(update={"revision": revision}) for revision in ("x", "y"))
    for specs, found in (((first, second), ["revision"]), ((plain, first), []), ((plain, first, second), ["revision"])):
        assert base_differences(*specs) == found
    assert differences(plain.model_copy(update={"quantization": "nf4"}), keep_dequantized=True) == []
    # packed int8 rounds activations as well
    assert differences(plain.model_copy(update={"quantization": "int8"}), keep_dequantized=True) == ["keep_dequantized"]


def test_specs_do_not_change():
    with pytest.raises(ValidationError):
        CONFIG.model.repo_id = "other"


def started():
    return Started(
        device="cpu",
        dtype="float32",
        quantization="none",
        attention="eager",
        fast=True,
        threads=2,
        base_sha256="a",
        trainable_parameters=1,
        total_parameters=2,
        steps_total=9,
        learning_rates=(1e-3,),
        train_rows=(1,),
        heldout_rows=(1,),
        data_sha256=("x",),
    )


def step(number, loss=1.0):
    return StepDone(
        step=number,
        stage=0,
        loss=loss,
        learning_rate=1e-3,
        gradient_norm=1.0,
        tokens=10,
        scored_tokens=3,
        seconds=0.1,
    )


def test_the_status_follows_from_events_and_heartbeat():
    run = Run.create(CONFIG)
    assert run.status == "queued"
    run.beat()
    run.append(started())
    run.append(step(1))
    assert (run.status, run.progress().message) == ("running", "step 1")
    old = time.time() - 60
    os.utime(run.path / "heartbeat", (old, old))
    assert run.status == "lost"
    run.end_beat()
    run.append(Stopped(step=1, reason="as asked", adapter="adapter"))
    assert run.status == "stopped"
    run.append(Resumed(step=0))
    run.append(step(1, loss=5.0))
    run.append(Finished(step=1, seconds=1, heldout_loss=None, adapter="adapter", peak_memory_bytes=1))
    assert run.status == "finished"
    assert [e.loss for e in run.progress().steps] == [5.0]  # the resumed history counts


def test_a_run_lost_to_a_full_disk_says_so(monkeypatch):
    run = Run.create(CONFIG)
    run.append(Preparing(message="loading"))
    assert "the process that trained it is gone" in run.progress().message
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    assert run.status == "lost"
    assert "the disk is full: free some space, then resume it" in run.progress().message


def test_a_disk_that_is_full_at_the_start_leaves_no_half_made_run(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "config.json")

    monkeypatch.setattr("tunelab.run.run.write_atomically", full)
    with pytest.raises(OSError, match="No space left") as caught:
        Run.create(CONFIG)
    assert "The disk is full" in explain(caught.value)
    assert not list(runs_root().iterdir())


def test_a_line_torn_by_a_crash_spoils_nothing():
    run = Run.create(CONFIG)
    run.append(step(1))
    with open(run.events_path, "ab") as file:
        file.write(b'{"event": "StepDo')
    run.append(step(2))
    assert [e.step for e in run.events()] == [1, 2]


def test_a_run_without_a_name_is_called_what_it_is():
    assert Run.create(CONFIG).name == "mine"
    assert Run.create(CONFIG.model_copy(update={"name": None})).name == "QLoRA on 16 rows in memory"


def test_runs_are_found_by_id_name_and_latest():
    first, second = Run.create(CONFIG), Run.create(CONFIG.model_copy(update={"name": "other"}))
    assert Run.open("mine").id == first.id
    assert Run.open(second.id).id == second.id
    assert {r.id for r in list_runs()} == {first.id, second.id}
    Run.create(CONFIG)
    with pytest.raises(UserError, match="2 runs are called 'mine'"):
        Run.open("mine")
    with pytest.raises(UserError, match="There is no run 'nobody'"):
        Run.open("nobody")


@pytest.mark.parametrize("content", ['{"format": 99, "config": {}}', "{", '{"format": 1, "config": {"model": 3}}'])
def test_a_run_of_another_version_is_unreadable_and_says_why(content):
    run = Run.create(CONFIG)
    (run.path / "config.json").write_text(content)
    again = Run(run.path)
    assert again.status == "unreadable"
    assert "version" in again.progress().message or "damaged" in again.progress().message


def test_importing_tunelab_and_listing_runs_import_no_torch():
    Run.create(CONFIG)
    code = "import tunelab, sys; [r.progress() for r in tunelab.list_runs()]; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_imports_go_one_way():
    for path in (REPOSITORY / "lib").rglob("*.py"):
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {"gradio", "IPython", "matplotlib", "playground", "benchmarks"}, path
    without_gradio = ("jobs", "measurings", "exports", "owners", "sources", "live", "door", "front", "looking", "quick")
    files = [REPOSITORY / "playground" / f"{name}.py" for name in without_gradio]
    for path in (*files, *(REPOSITORY / "playground" / "views").glob("*.py")):
        assert "gradio" not in set(imports(path)), path
    for path in (REPOSITORY / "playground" / "rooms").glob("[!_]*.py"):
        assert not [name for name in imports(path) if name.startswith("playground.rooms")], path


@pytest.mark.slow
def test_every_module_can_be_imported():
    names = []
    for package, folder in (("tunelab", REPOSITORY / "lib"), ("playground", REPOSITORY)):
        for path in (folder / package).rglob("*.py"):
            names.append(".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"))
    code = f"import importlib; [importlib.import_module(n) for n in {sorted(names)!r}]"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr


def test_no_module_hides_a_public_name():
    import tunelab

    modules = {path.stem for path in (REPOSITORY / "lib" / "tunelab").iterdir()}
    assert not modules & set(tunelab.__all__)


def test_public_names_exist():
    import tunelab

    assert all(getattr(tunelab, name) is not None for name in tunelab.__all__)
    with pytest.raises(AttributeError):
        _ = tunelab.nothing
    assert json.dumps(sorted(dir(tunelab)))
