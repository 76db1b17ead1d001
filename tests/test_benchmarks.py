"""What the benchmarks report with; their figures are measured by `make bench`, not here."""

from __future__ import annotations

import argparse
import base64
import json
from collections import Counter
from types import SimpleNamespace

import numpy
import pytest
import torch

from benchmarks import __main__ as results
from benchmarks import forgetting, shapes, switches, train_speed, trl_side, verdict
from benchmarks.data import write_rows
from benchmarks.generation import Int8, bytes_per_token
from benchmarks.memory import SHAPES, config_of
from benchmarks.report import Figure
from benchmarks.sides import lengthened, one_card
from benchmarks.switches import SWITCHES
from tunelab import LoRA, ModelSpec, TrainConfig, examine, load
from tunelab.errors import EXIT_USER_ERROR
from tunelab.measure.ladder import RUNGS
from tunelab.measure.metrics import ExactMatch
from tunelab.measure.statistics import judge_all
from tunelab.techniques import TECHNIQUES


def test_a_figure_is_the_median_with_its_range():
    assert Figure.of("x", "s", [3.0, 1.0, 2.0]) == Figure("x", 2.0, "s", 1.0, 3.0, 3)


def test_measuring_one_benchmark_anew_keeps_the_sections_of_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    elsewhere = {"speed on another machine": "read there"}
    results._write({"startup": "Machine: a\n\n| 1 |", "memory": "Machine: a\n\n| 2 |"} | elsewhere)
    sections = results._sections()
    sections["memory"] = "Machine: b\n\n| 3 |"
    results._write(sections)
    assert results._sections() == {"startup": "Machine: a\n\n| 1 |", "memory": "Machine: b\n\n| 3 |"} | elsewhere
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.index("## startup") < text.index("## memory") < text.index("## Tried and left out")


@pytest.mark.parametrize("name", ["votes", "evaluation"])
def test_help_is_that_of_the_benchmark_that_is_named(name, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["benchmarks", name, "--help"])
    assert results.main() == 0
    assert f"usage: python -m benchmarks.{name} " in capfd.readouterr().out


def test_help_without_a_name_says_which_benchmarks_there_are(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "--help"])
    assert results.main() == 0
    said = capsys.readouterr().out
    assert all(name in said for name in (*results.NAMES, *results.ON_FILES))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["gpu"], "There is no benchmark 'gpu' that writes into RESULTS.md. There are startup, "),
        (["startup", "../data", "--help"], "There is no benchmark '../data'"),
        (["--rounds", "2"], "--rounds is a flag of one benchmark, and none is named. Name one before it: startup, "),
        (["startup", "votes", "--rounds", "2"], "--rounds is a flag of one benchmark, and 2 are named."),
    ],
)
def test_what_can_not_be_measured_is_refused_in_a_sentence(given, said, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["benchmarks", *given])
    assert results.main() == EXIT_USER_ERROR
    assert capfd.readouterr().err.startswith(said)


def test_a_flag_that_a_benchmark_does_not_have_measures_nothing_and_is_named(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(results, "machine", lambda: "this one")
    monkeypatch.setattr("sys.argv", ["benchmarks", "votes", "--rouns", "2"])
    assert results.main() == EXIT_USER_ERROR
    assert "unrecognized arguments: --rouns 2" in capfd.readouterr().err
    assert not results.RESULTS.exists()


def test_eight_bit_weights_multiply_nearly_as_the_weights_they_are_of():
    torch.manual_seed(0)
    weight, x = torch.randn(64, 128).bfloat16(), torch.randn(2, 1, 128).bfloat16()
    got, expected = Int8(weight).times(x), x @ weight.T
    assert got.shape == expected.shape
    assert (got - expected).norm() < 0.02 * expected.norm()


def test_a_decoding_step_reads_every_weight_and_the_context_once(tiny):
    model = load(ModelSpec(repo_id=tiny, dtype="float32")).model
    weights = sum(p.numel() for p in model.parameters()) * 4  # its embedding is its head, and is read once
    config = model.config
    head = config.hidden_size // config.num_attention_heads
    assert bytes_per_token(model, 0) == weights
    assert (
        bytes_per_token(model, 10) - weights
        == 10 * 2 * config.num_hidden_layers * config.num_key_value_heads * head * 4
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_every_technique_has_a_run_in_every_shape(shape):
    for name in RUNGS:
        assert config_of(name, shape).technique == RUNGS[name][0]


def test_lengthened_rows_have_the_length_asked_for():
    train, held = lengthened(words=50, count=3)
    assert [len(row.answer.split()) for row in (*train, *held)] == [50] * 6


def test_switches_are_settings_that_exist():
    for settings in SWITCHES.values():
        ModelSpec(repo_id="starter", quantization="nf4", **settings.get("model", {}))
        LoRA(**settings.get("technique", {}))
        TrainConfig(**settings.get("training", {}))


# as their publishers count them, in billions
PUBLISHED = {
    "qwen2.5-0.5b": 0.494,
    "qwen3-0.6b": 0.596,
    "llama-3.2-1b": 1.236,
    "llama-3.1-8b": 8.030,
    "gemma-3-270m": 0.268,
}


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_random_models_have_as_many_weights_as_the_models_whose_shape_they_are_of(name):
    import transformers

    shape = shapes.SHAPES[name]
    with torch.device("meta"):
        config = getattr(transformers, f"{shape.kind}Config")(**shape.settings)
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(PUBLISHED[name], rel=0.002)


def test_what_a_token_needs_at_least_is_counted_alike_by_all_benchmarks():
    import transformers

    settings = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings, **heads))
    assert shapes.flops_per_token(model) == pytest.approx(train_speed.flops_per_token(), rel=0.001)


def test_without_a_gpu_its_comparison_ends_with_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for flags, said in (
        ("--device cuda --json", "No CUDA GPU is here"),
        ("--shape llama-3.2-1b --json", "--device cuda"),
    ):
        monkeypatch.setattr("sys.argv", ["train_speed", *flags.split()])
        with pytest.raises(SystemExit, match=said):
            train_speed.main()
    assert not capsys.readouterr().out


def test_trl_is_given_on_each_device_what_its_side_is_named_for(monkeypatch):
    def given(name, device, dtype="bfloat16", extras=()):
        monkeypatch.setattr(trl_side, "installed", lambda module: module in extras)
        options = SimpleNamespace(name=name, device=device, dtype=dtype, quantization="nf4")
        spec = ModelSpec(repo_id="starter", quantization="nf4")
        return trl_side.loading(options, spec), trl_side.settings(options, [60, 100, 50], batch=8)

    loading, settings = given("trl-tuned", "cuda")
    assert loading["device_map"] == {"": "cuda"}
    assert "attn_implementation" not in loading
    assert (settings["packing"], settings["max_length"]) == (True, 576)  # 8 · 70 tokens, in steps of 64
    assert (settings["bf16"], settings["gradient_checkpointing"], settings["use_liger_kernel"]) == (False, False, False)
    loading, settings = given("trl-tuned", "cuda", "float16", extras=("liger_kernel", "flash_attn"))
    assert loading["attn_implementation"] == "flash_attention_2"
    assert (settings["fp16"], settings["use_liger_kernel"]) == (True, True)
    assert given("trl-default", "cuda")[1] == {"per_device_train_batch_size": 8, "max_length": 1024}
    loading, settings = given("trl-tuned", "cpu")
    assert loading["attn_implementation"] == "eager"
    assert settings["train_sampling_strategy"] == "group_by_length"
    assert "packing" not in settings


def test_a_side_sees_one_card():
    assert one_card({})["CUDA_VISIBLE_DEVICES"] == "0"
    assert one_card({"CUDA_VISIBLE_DEVICES": "3,1", "HOME": "/"}) == {"CUDA_VISIBLE_DEVICES": "3", "HOME": "/"}


def test_the_fast_path_is_measured_with_every_kind_of_technique():
    kinds = {settings.get("kind", "lora") for settings in switches.TECHNIQUES.values()}
    assert kinds == set(TECHNIQUES)
    for settings in switches.TECHNIQUES.values():
        TECHNIQUES[settings.get("kind", "lora")](**settings)


def test_large_data_holds_as_many_repeats_conflicts_and_empty_answers_as_it_says(tmp_path):
    put = write_rows(tmp_path / "rows.jsonl", 4000)
    assert min(put.values()) > 5
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4000
    whole, answers = Counter(map(str, rows)), {}
    for row in rows:
        answers.setdefault(row["instruction"], set()).add(row["output"])
    assert sum(count - 1 for count in whole.values()) == put["duplicates"]
    assert sum(not row["output"] for row in rows) == put["empty"]
    assert sum(len(several) - 1 for several in answers.values()) == put["conflicts"]
    found = {finding.kind: finding.count for finding in examine(str(tmp_path / "rows.jsonl"), sample=10).findings}
    assert found == {kind: count for kind, count in put.items() if kind != "empty"}


def test_sides_are_swapped_row_by_row_and_a_planted_gain_is_as_large_as_it_says():
    right = numpy.tile([100.0, 1.0], (400, 1))
    one, other = right.copy(), right.copy()
    one[:300, 0], other[100:, 0] = 0, 0
    pool = verdict.Pool(ExactMatch(), one, other, right)
    random = numpy.random.default_rng(0)
    base, tuned = pool.opposed(400, random)
    assert sorted(base[:, 0] + tuned[:, 0]) == sorted(one[:, 0] + other[:, 0])
    assert 0 < (base != tuned).any(axis=1).sum() < 400
    gains, differing = [], []
    for _ in range(100):
        base, tuned = verdict.with_gain(pool, 300, random)
        gains.append((tuned - base)[:, 0].mean())
        differing.append((tuned != base).any(axis=1).mean())
    assert numpy.mean(gains) == pytest.approx(verdict.PLANTED, abs=1)
    assert numpy.mean(differing) == pytest.approx(verdict.DISCORDANT, abs=0.01)


def test_with_nothing_changed_few_verdicts_are_reached():
    random = numpy.random.default_rng(1)
    sides = [numpy.stack([100.0 * (random.random(80) < p), numpy.ones(80)], axis=1) for p in (0.3, 0.6, 1.1)]
    pool = verdict.Pool(ExactMatch(), *sides)
    made = [judge_all([pool.measured(*pool.opposed(60, random))], draws=300) for _ in range(150)]
    assert sum(map(verdict.called, made)) <= 15  # 9 are 6 %
    ladders = [judge_all(verdict.rungs(pool, 60, random), draws=300) for _ in range(30)]
    assert sum(map(verdict.called, ladders)) <= 5


def test_runs_that_are_measured_are_not_made_again_and_are_compared_seed_by_seed(tmp_path, monkeypatch):
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text(name)
    made, known = [], tmp_path / "measured.jsonl"
    right = {
        ("plain", 0): [1, 1, 1, 0],
        ("replay", 0): [1, 0, 1, 0],
        ("plain", 1): [1, 1, 0, 0],
        ("kl", 1): [1, 1, 1, 0],
    }

    def trained(options, name, settings, seed, data):
        made.append((name, seed))
        bits = base64.b64encode(numpy.packbits(numpy.array(right[name, seed], dtype=bool)).tobytes()).decode()
        share = 25.0 * sum(right[name, seed])
        return forgetting.Measured(name, settings, seed, 250, 4, data, "here", 1.0 + seed, 0.5, share, 4, bits)

    monkeypatch.setattr(forgetting, "_measured", trained)
    files = {"data": str(tmp_path / "train.csv"), "heldout": str(tmp_path / "test.csv")}
    given = {"steps": 250, "rows": 4, "replay": 0.2, "kl": 0.1, "measured": known, "out": tmp_path, **files}

    def figures(seeds, train):
        options = argparse.Namespace(seeds=seeds, train=train, **given)
        return {one.figure: one for one in forgetting.measure(options)}

    assert figures(1, ["plain", "replay"])["replay less plain:exact match"].value == -25
    assert made == [("plain", 0), ("replay", 0)]
    right |= {("replay", 1): [0, 0, 0, 0], ("kl", 0): [1, 1, 1, 1]}
    found = figures(2, ["plain", "replay", "kl"])
    assert made[2:] == [("kl", 0), ("plain", 1), ("replay", 1), ("kl", 1)]
    assert found["plain:forgetting"].value == 1.5
    assert found["replay less plain:exact match"].value == (-25 - 50) / 2
    assert found["kl less plain:exact match"].value == 25
    given["kl"] = 0.3
    assert "kl:forgetting" not in figures(2, [])
