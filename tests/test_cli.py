"""The command line as people type it: what it prints, what it leaves behind, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import ROWS
from tunelab import Run, list_runs
from tunelab.cli import main

CLI = [sys.executable, "-m", "tunelab.cli"]
FAST = ["--steps", "4", "--batch-size", "4", "--r", "4", "--dtype", "float32", "--eval-every", "2"]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    return str(path)


def tunelab(*arguments, **options):
    return subprocess.run([*CLI, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_train_then_list_then_compare(tiny, rows, capsys, tmp_path):
    assert main(["train", "--data", rows, "--heldout", "4", "--model", tiny, "--name", "words", *FAST]) == 0
    printed = capsys.readouterr().out
    assert "12 rows to train on, 4 held out" in printed
    assert "step 4: held-out loss" in printed
    (run,) = list_runs()
    assert run.status == "finished"
    assert f"tunelab compare {run.id}" in printed

    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "finished"

    assert main(["compare", "words", "--prompt", "say red", "--max-new-tokens", "3"]) == 0
    printed = capsys.readouterr().out
    assert "[base]" in printed
    assert "adapter off" in printed
    assert "[words]" in printed

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("say red\n\nsay blue\n")
    assert main(["compare", "latest", "--prompts", str(prompts), "--json", "--max-new-tokens", "3"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [a["prompt"] for a in answers] == ["say red", "say blue"]
    assert all(len(a["answers"]) == 2 and a["done"] for a in answers)


def test_prompts_that_cannot_be_read_are_explained(tiny, rows, tmp_path, capsys):
    assert main(["train", "--data", rows, "--heldout", "4", "--model", tiny, *FAST]) == 0
    prompts = tmp_path / "prompts.txt"
    for content, message in ((b"", "is empty"), (b"\xff\xfe", "not UTF-8"), (None, "no such file")):
        prompts.write_bytes(content) if content is not None else prompts.unlink()
        assert main(["compare", "latest", "--prompts", str(prompts)]) == 2
        assert message in capsys.readouterr().err


def test_a_config_file_describes_the_same_run(tiny, rows, capsys, tmp_path):
    main(["train", "--data", rows, "--heldout", "4", "--model", tiny, *FAST])
    (first,) = list_runs()
    for name, text in (("run.yaml", first.config.to_yaml()), ("run.json", first.config.model_dump_json())):
        (tmp_path / name).write_text(text)
        assert main(["train", str(tmp_path / name)]) == 0
    losses = [[e.loss for e in run.progress().steps] for run in list_runs()]
    assert losses[0] == losses[1] == losses[2]


FILE = """
name: from the file
model: {repo_id: MODEL, dtype: float32, quantization: nf4}
technique: {kind: lora, r: 4, lora_alpha: 8}
stages:
  - data: {source: ROWS, heldout: 4, system: Be brief.}
    training: {steps: 60, batch_size: 4, learning_rate: 0.001}
"""
SECOND = """
  - name: again
    data: {source: ROWS, heldout: 4}
    training: {steps: 20}
"""


@pytest.fixture
def configured(tiny, rows, tmp_path, monkeypatch):
    """The configuration that `tunelab train run.yaml …` makes a run of, and what is printed; nothing is trained."""
    made = []
    monkeypatch.setattr("tunelab.cli._follow", lambda run: made.append(run) or 0)

    def configured(*flags, capsys, stages=1, text=FILE):
        path = tmp_path / "run.yaml"
        path.write_text((text + SECOND * (stages - 1)).replace("MODEL", tiny).replace("ROWS", rows))
        code = main(["train", str(path), *flags])
        out, err = capsys.readouterr()
        return (made[-1].config if code == 0 else None), out + err

    return configured


def test_without_flags_a_file_means_what_it_says_whatever_the_defaults_of_flags_are(configured, capsys):
    config, printed = configured(capsys=capsys, text=FILE.replace("lora, r: 4, lora_alpha: 8", "ia3"))
    assert config.technique.kind == "ia3"
    assert config.model.repo_id != "starter"
    assert "(flag)" not in printed


def test_flags_override_a_file_and_what_they_override_is_printed(configured, capsys, tiny, tmp_path, rows):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(ROWS[0]))
    flags = {
        "--steps": ("5", "steps: 60 → 5 (flag)"),
        "--learning-rate": ("2e-4", "learning_rate: 0.001 → 0.0002 (flag)"),
        "--gradient-accumulation-steps": ("2", "gradient_accumulation_steps: 1 → 2 (flag)"),
        "--name": ("mine", "name: from the file → mine (flag)"),
        "--model": ("starter", f"model: {tiny} → starter (flag)"),
        "--quantization": ("none", "quantization: nf4 → none (flag)"),
        "--max-length": ("64", "max_length: 512 → 64 (flag)"),
        "--r": ("16", "r: 4 → 16 (flag)"),
        "--target-modules": ("q_proj,v_proj", "target_modules: "),
        "--heldout": ("0.25", "heldout: 4.0 → 0.25 (flag)"),
        "--limit": ("9", "limit: none → 9 (flag)"),
        "--template": ("Say {prompt}", "template: none → Say {prompt} (flag)"),
        "--columns": ("prompt=prompt", "columns: none → prompt=prompt (flag)"),
        "--data": (str(other), f"data: {rows} → {other} (flag)"),
        "--replay": (rows, f"replay: none → {rows.rpartition('/')[2]} (flag)"),
        "--learn": ("text", "learn: instructions → text (flag)"),
    }
    config, printed = configured(*(part for flag, (value, _) in flags.items() for part in (flag, value)), capsys=capsys)
    for _value, line in flags.values():
        assert line in printed
    assert printed.count("(flag)") == len(flags)
    assert "as in the file: system" in printed
    (stage,) = config.stages
    assert (config.name, config.model.repo_id, config.model.quantization) == ("mine", "starter", "none")
    assert (config.model.dtype, config.model.max_length) == ("float32", 64)
    assert (config.technique.r, config.technique.lora_alpha) == (16, 8)
    assert config.technique.target_modules == ("q_proj", "v_proj")
    assert (stage.training.steps, stage.training.batch_size, stage.training.learning_rate) == (5, 4, 2e-4)
    assert (stage.data.source, stage.data.heldout, stage.data.limit) == (str(other), 0.25, 9)
    assert (stage.data.system, stage.data.columns) == ("Be brief.", {"prompt": "prompt"})
    assert (stage.learn, stage.replay.source) == ("text", rows)


def test_another_technique_begins_at_its_own_defaults_and_says_what_is_gone(configured, capsys):
    config, printed = configured("--technique", "bottleneck", "--size", "8", capsys=capsys)
    assert (config.technique.kind, config.technique.size) == ("bottleneck", 8)
    assert "technique: lora → bottleneck size 8; r, lora_alpha of lora no longer apply (flag)" in printed
    config, printed = configured("--technique", "lora", capsys=capsys)  # as in the file
    assert config.technique.r == 4
    assert "(flag)" not in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--technique", "ia3", "--r", "8"], "technique.ia3.r = 8: there is no such setting here"),
        (["--size", "8"], "technique.lora.size = 8: there is no such setting here"),
        (["--steps", "0"], "training.steps = 0"),
        (["--technique", "full"], "can't train a base quantised to nf4"),
        (["--start-from", "nobody"], "There is no run 'nobody'"),
    ],
)
def test_a_flag_that_does_not_fit_the_file_is_refused(configured, capsys, flags, message):
    config, printed = configured(*flags, capsys=capsys)
    assert config is None
    assert message in printed
    assert not list_runs()


def test_flags_of_the_training_go_to_every_stage_and_say_so(configured, capsys):
    config, printed = configured("--steps", "7", "--replay-share", "0.1", "--limit", "5", capsys=capsys, stages=2)
    assert [stage.training.steps for stage in config.stages] == [7, 7]
    assert [stage.training.batch_size for stage in config.stages] == [4, 8]
    assert [stage.data.limit for stage in config.stages] == [5, 5]
    assert "steps: 60, 20 → 7 in all 2 stages (flag)" in printed


@pytest.mark.parametrize(
    "flags",
    [
        ["--data", "other.csv"],
        ["--columns", "prompt=a"],
        ["--heldout", "held.csv"],
        ["--template", "Say {a}"],
        ["--learn", "text"],
    ],
    ids=lambda flags: flags[0],
)
def test_flags_about_one_set_of_rows_are_refused_where_there_are_several(configured, capsys, flags):
    config, printed = configured(*flags, capsys=capsys, stages=2)
    assert config is None
    assert printed.startswith(f"tunelab: {flags[0]}")
    assert "has 2 stages (rows.jsonl, again)" in printed
    assert len(printed) < 400


def test_rows_in_a_file_give_way_to_the_data_a_flag_names(configured, capsys, rows):
    inside = "{rows: [{prompt: a, completion: b}], heldout_rows: [{prompt: c, completion: d}]}"
    text = FILE.replace("{source: ROWS, heldout: 4, system: Be brief.}", inside)
    config, printed = configured("--data", rows, "--heldout", "3", capsys=capsys, text=text)
    data = config.stages[0].data
    assert (data.source, data.rows, data.heldout, data.heldout_rows) == (rows, None, 3, None)
    assert f"data: none → {rows} (flag)" in printed
    assert "rows: 1 rows in memory → none (flag)" in printed


def test_a_file_of_its_own_is_held_out(tiny, rows, tmp_path):
    held = tmp_path / "held.csv"
    held.write_text("prompt,completion\nsay violet,violet it is\n")
    assert main(["train", "--data", rows, "--heldout", str(held), "--model", tiny, *FAST]) == 0
    assert list_runs()[0].progress().started.heldout_rows == (1,)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "", "empty.csv is empty"),
        ("columns.csv", "a,b\n1,2\n", "no columns to learn from were recognised"),
        ("broken.jsonl", "\n".join([json.dumps(ROWS[0])] + ['{"prompt": }'] * 16), "line 2: not valid JSON"),
        ("nothing.csv", "prompt,completion\nx,\n", "row 1: there is nothing to learn from"),
        ("missing.csv", None, "There is no file"),
    ],
)
def test_wrong_data_ends_with_2_and_one_message(tiny, tmp_path, capsys, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    assert main(["train", "--data", str(path), "--model", tiny, *FAST]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tunelab: ")
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "python-docs", "--model", "someone/some-model"], "Hub can't be reached"),
        (["train", "--data", "python-docs", "--steps", "0"], "training.steps = 0"),
        (["train", "--data", "python-docs", "--learning-rate", "fast"], "learning_rate"),
        (["train", "--data", "python-docs", "--learning-rate", "[1"], "learning_rate = '[1'"),
        (["train"], "--data"),
        (["train", "nothing.yaml"], "nothing.yaml"),
        (["compare", "nobody", "--prompt", "x"], "There is no run 'nobody'"),
        (["resume", "nobody"], "There is no run 'nobody'"),
        (["stop", "nobody"], "There is no run 'nobody'"),
    ],
)
def test_wrong_arguments_end_with_2_and_one_message(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_full_disk_and_a_file_in_the_way_end_with_2_and_one_message(tiny, rows, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "config.json")

    with monkeypatch.context() as patched:
        patched.setattr("tunelab.run.run.write_atomically", full)
        assert main(["train", "--data", rows, "--model", tiny]) == 2
    assert "The disk is full" in capsys.readouterr().err
    assert main(["train", "--data", rows, "--model", tiny, "--runs", rows]) == 2
    error = capsys.readouterr().err
    assert "a file stands where a directory is needed" in error
    assert "Traceback" not in error


def test_a_run_of_another_version_is_named_and_the_others_are_listed(tiny, rows, capsys):
    main(["train", "--data", rows, "--heldout", "4", "--model", tiny, *FAST])
    (run,) = list_runs()
    other = Run(run.root / "20200101-000000-old")
    other.path.mkdir()
    (other.path / "config.json").write_text('{"format": 99, "config": {}}')
    capsys.readouterr()
    assert main(["runs"]) == 0
    printed = capsys.readouterr().out
    assert "format 99; this version of tunelab reads format 1" in printed
    assert run.id in printed
    for command in (["compare", other.id, "--prompt", "x"], ["resume", other.id], ["stop", other.id]):
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(f"tunelab: Run {other.id} has format 99; this version")


@pytest.mark.slow
def test_ctrl_c_stops_at_the_next_step_keeps_the_adapter_and_resume_goes_on(tiny, rows):
    command = [*CLI, "train", "--data", rows, "--model", tiny, "--steps", "100000"]
    process = subprocess.Popen(
        [*command, "--r", "4", "--dtype", "float32", "--heldout", "4"], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("step 3:"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    (run,) = list_runs()
    assert f"tunelab resume {run.id}" in rest
    assert run.status == "stopped"
    assert run.has_adapter

    step = run.progress().step
    process = subprocess.Popen([*CLI, "resume", run.id], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith(f"step {step + 3}:"):
            break
    stop = tunelab("stop", run.id)
    assert stop.returncode == 0
    assert "stopped at step" in stop.stdout
    process.communicate(timeout=60)
    assert run.progress().step >= step + 3
    assert [e.step for e in run.progress().steps] == list(range(1, run.progress().step + 1))


@pytest.mark.slow
def test_a_second_training_waits_and_says_for_what(tiny, rows, tmp_path):
    base = [
        sys.executable,
        "-m",
        "tunelab.cli",
        "train",
        "--data",
        rows,
        "--model",
        tiny,
        "--dtype",
        "float32",
        "--r",
        "4",
    ]
    first = subprocess.Popen([*base, "--steps", "100000", "--heldout", "4"], stdout=subprocess.PIPE, text=True)
    for line in first.stdout:
        if line.startswith("step 2:"):
            break
    (running,) = list_runs()
    second = subprocess.Popen([*base, "--steps", "2", "--heldout", "4"], stdout=subprocess.PIPE, text=True)
    for line in second.stdout:
        if line.startswith("waiting"):
            break
    assert running.id in line
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert "Adapter:" in second.communicate(timeout=60)[0]


@pytest.mark.slow
def test_a_killed_run_is_lost_and_can_be_resumed(tiny, rows, monkeypatch):
    command = [*CLI, "train", "--data", rows, "--model", tiny, "--steps", "100000"]
    process = subprocess.Popen(
        [*command, "--r", "4", "--dtype", "float32", "--heldout", "4"], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("step 2:"):
            process.kill()
            break
    process.communicate()
    (run,) = list_runs()
    assert run.status == "running"  # nobody can know yet
    old = time.time() - 60
    os.utime(run.path / "heartbeat", (old, old))
    assert run.status == "lost"
    assert run.can_resume


def test_output_in_a_pipe_that_closes_is_no_error(tiny, rows):
    command = f"{sys.executable} -m tunelab.cli train --help | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr


def test_doctor_says_what_it_measured_and_concludes(capsys, starter):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sections"]["processor"]["fp32 GFLOP/s"] > 0
    assert report["sections"]["processor"]["fastest dtype"] in ("float32", "bfloat16")
    assert report["sections"]["models"]["starter"] == starter
    assert set(report["sections"]["packages"]) >= {"torch", "transformers", "peft", "gradio"}
    assert report["conclusions"]["dtype"]
    assert main(["doctor"]) == 0
    assert "conclusions" in capsys.readouterr().out
