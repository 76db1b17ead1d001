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
        ("broken.jsonl", "\n".join([json.dumps(ROWS[0])] * 16 + ['{"prompt": }']), "line 17: not valid JSON"),
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
