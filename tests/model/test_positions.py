"""How long a row may be: what the configuration of each family says; training, measuring and answering keep to it."""

from __future__ import annotations

import pytest
import torch

from tests.architectures import POSITIONS, config_of, tiny_model
from tests.helpers import ROWS
from tunelab import (
    DataSpec,
    LoRA,
    ModelSpec,
    PrefixTuning,
    PromptTuning,
    RunConfig,
    Stage,
    TrainConfig,
    UserError,
    compare,
    evaluate,
    finetune,
    load,
    preview,
)
from tunelab.answer.comparison import Comparer
from tunelab.data import Message, encode_prompt
from tunelab.model.positions import positions
from tunelab.run.report_words import in_words
from tunelab.train.memory import read_and_forecast

LONG = [row | {"completion": "yes " * 200} for row in ROWS]


def scaled(**rope):
    return config_of("llama", rope_parameters={"rope_theta": 10_000.0, **rope})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (lambda: config_of("gpt2"), 256),
        (lambda: config_of("opt"), 256),
        (lambda: config_of("gptj"), 256),
        (lambda: config_of("gpt_neox"), 256),
        (lambda: config_of("mpt"), 256),
        (lambda: config_of("falcon"), 256),
        (lambda: config_of("falcon", alibi=True), None),
        (lambda: config_of("bloom"), None),
        (lambda: config_of("mamba"), None),
        (lambda: config_of("mistral"), 256),  # a window is no end
        (lambda: config_of("gemma3"), 256),
        (lambda: config_of("llama", max_position_embeddings=-1), None),
        (lambda: scaled(rope_type="default"), 256),
        (lambda: scaled(rope_type="linear", factor=4.0), 1024),
        (lambda: scaled(rope_type="dynamic", factor=2.0), 512),
        (lambda: scaled(rope_type="yarn", factor=4.0), 1024),
        (lambda: scaled(rope_type="yarn", factor=4.0, original_max_position_embeddings=64), 256),
        (lambda: scaled(rope_type="llama3", factor=8.0, original_max_position_embeddings=64, low_freq_factor=1.0,
                        high_freq_factor=4.0), 256),
    ],
)  # fmt: skip
def test_positions_are_what_the_configuration_means(config, expected):
    assert positions(config()) == expected


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tiny_model(name, tmp_path_factory.mktemp(name)) for name in ("gpt2", "opt", "llama", "bloom")}


def config(folder, technique=None, rows=ROWS, max_length=512, **training):
    settings = {"steps": 1, "batch_size": 4, "eval_every": 1, "eval_rows": 2, **training}
    stage = Stage(data=DataSpec(rows=rows, heldout=4), training=TrainConfig(**settings))
    model = ModelSpec(repo_id=folder, dtype="float32", max_length=max_length)
    return RunConfig(model=model, technique=technique or LoRA(r=4), stages=(stage,))


def one_by_one(model, ids, count):
    """The `count` tokens that a plain transformers model makes of a prompt, without a cache."""
    made = []
    with torch.no_grad():
        for _ in range(count):
            made.append(int(model(torch.tensor([ids + made])).logits[0, -1].argmax()))
    return made


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_rows_beyond_the_positions_are_cut_counted_and_said_everywhere(folders, name):
    run = finetune(config(folders[name], rows=LONG))
    notes = run.progress().started.notes
    assert f"max_length = {POSITIONS}, not 512: the model has {POSITIONS} positions" in notes
    assert (
        f"training rows: 12 cut at max_length = {POSITIONS} tokens; these do not teach the model where to stop" in notes
    )
    shown, told = preview(run.config.stages[0], run.config.model)
    assert [row.tokens for row in shown] == [POSITIONS] * len(shown)
    assert any("positions" in note for note in told)
    assert (
        read_and_forecast(run.config).kept == read_and_forecast(config(folders[name], rows=LONG, max_length=256)).kept
    )
    report = evaluate(run, rows=4, max_new_tokens=2, questions=0, instructions=4)
    assert report.rows == 4


def test_a_model_without_a_limit_takes_rows_of_any_length(folders):
    run = finetune(config(folders["bloom"], rows=LONG, max_length=1200))
    notes = run.progress().started.notes
    assert not any("positions" in note or "cut at" in note for note in notes)
    assert compare(run, "x" * 600, max_new_tokens=4).answers[1].tokens <= 4


@pytest.mark.parametrize("technique", [PrefixTuning(num_virtual_tokens=16), PromptTuning(num_virtual_tokens=16)],
                         ids=lambda technique: technique.kind)  # fmt: skip
def test_virtual_tokens_take_their_part_of_the_positions(folders, technique):
    run = finetune(config(folders["gpt2"], technique, rows=LONG))
    left = POSITIONS - 16
    assert any(f"max_length = {left}" in note and "virtual tokens take 16" in note
               for note in run.progress().started.notes)  # fmt: skip
    assert preview(run.config.stages[0], run.config.model, positions_taken=16)[0][0].tokens == left
    base = load(run.config.model)
    fits = "x" * (left - 3 - len(encode_prompt([Message("user", "")], base.tokenizer)))
    answers = compare(run, fits, max_new_tokens=40).answers
    assert all(answer.tokens <= 3 for answer in answers)
    with pytest.raises(UserError, match=r"256 positions \(16 of them taken by virtual tokens\)"):
        compare(run, fits + "xxx")


def test_more_virtual_tokens_than_positions_are_refused_with_how_many_there_may_be(folders):
    with pytest.raises(UserError, match=r"num_virtual_tokens = 250: the model has 256 positions.*at most 128"):
        finetune(config(folders["gpt2"], PrefixTuning(num_virtual_tokens=250)))


@pytest.fixture(scope="module")
def runs(folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {name: finetune(config(folder), root=root) for name, folder in folders.items()}


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_a_longer_prompt_is_refused_with_its_length_and_the_limit(runs, name):
    base = load(runs[name].config.model)
    prompt = "x" * (POSITIONS + 9)
    length = len(encode_prompt([Message("user", prompt)], base.tokenizer))
    for ask in (lambda: compare(runs[name], prompt), lambda: _answers(runs[name], prompt)):
        with pytest.raises(UserError) as error:
            ask()
        assert f"The prompt has {length} tokens; the model has {POSITIONS} positions" in str(error.value)
        assert len(str(error.value)) <= 400


def _answers(run, *prompts):
    with Comparer(run.root) as comparer:
        return comparer.answers([run], [[Message("user", prompt)] for prompt in prompts], max_new_tokens=60)


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_an_answer_ends_at_the_last_position_and_says_that_its_length_ended_it(runs, name):
    base = load(runs[name].config.model)
    prompt = "x" * 150
    ids = encode_prompt([Message("user", prompt)], base.tokenizer)
    comparison = compare(runs[name], prompt, max_new_tokens=400)
    for answer in comparison.answers:
        assert len(ids) + answer.tokens == POSITIONS
        assert answer.stop_reason == "length"
    assert f"An answer ends after {POSITIONS - len(ids)} tokens" in comparison.note
    expected = base.tokenizer.decode(one_by_one(base.model, ids, POSITIONS - len(ids)), skip_special_tokens=True)
    assert comparison.answers[0].text == expected.rstrip("\ufffd")


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_beside_a_prompt_that_ends_early_others_are_answered_as_alone(runs, name):
    prompts = ["x" * 165, "say red", "x" * 40]
    together = _answers(runs[name], *prompts)
    assert together == [_answers(runs[name], prompt)[0] for prompt in prompts]


def test_measuring_leaves_out_and_counts_rows_whose_prompt_fills_the_positions(folders):
    rows = [{"prompt": f"{n} " + "x" * 300 if n % 3 == 0 else f"say {n}", "completion": f"{n}"} for n in range(28)]
    settings = config(folders["gpt2"])
    data = DataSpec(rows=rows[:16], heldout_rows=rows[16:])
    stage = settings.stages[0].model_copy(update={"data": data})
    run = finetune(settings.model_copy(update={"stages": (stage,)}))
    report = evaluate(run, rows=12, max_new_tokens=2, questions=0, instructions=4)
    assert (report.rows, report.too_long) == (8, 4)
    assert "4 rows were left out: their prompt fills all positions of the model" in in_words(report)
