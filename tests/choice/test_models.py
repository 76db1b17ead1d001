"""Which model suits the rows: what lies here is found, measured alike whatever its tokenizer, and recommended with a
reason that follows from the figures."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from tests.architectures import tiny_model
from tests.helpers import ROWS, tiny_llama
from tunelab import DataSpec, ModelSpec, Stage, UserError, load, models_for
from tunelab.choice import ahead, models
from tunelab.choice.advice import recommendation
from tunelab.choice.ahead import Ahead
from tunelab.choice.at_hand import at_hand
from tunelab.choice.measuring import Knows, Split, known_by, learned_bytes, split_by
from tunelab.choice.published import published, published_as
from tunelab.choice.suited import Suited
from tunelab.cli import main
from tunelab.data import Encoded, Example, Message, read_data
from tunelab.model import starter as starter_module
from tunelab.model.load import load_tokenizer
from tunelab.train.memory import forecast

HELD = ModelSpec(repo_id="starter", dtype="float32")
DATA = DataSpec(rows=tuple(ROWS), heldout_rows=tuple(ROWS[:8]))


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
    """A machine without any model."""
    monkeypatch.setattr("tunelab.choice.at_hand.cache_root", lambda: tmp_path / "cache")
    monkeypatch.setattr(starter_module, "cached_path", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def short_table(monkeypatch):
    """The two smallest of the table: the others take longer to count, and no other way."""
    two = published()[:2]
    monkeypatch.setattr(models, "published", lambda: two)
    return two


def in_hub_cache(tmp_path: Path, folder: Path, repo_id: str) -> Path:
    """The folder as huggingface_hub keeps it."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = tmp_path / "hub" / f"models--{repo_id.replace('/', '--')}"
    shutil.copytree(folder, root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    return root / "snapshots" / commit


@pytest.mark.parametrize("model", published(), ids=lambda one: one.id)
def test_the_shapes_of_the_table_have_as_many_weights_as_their_makers_say(model):
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(model.config())
    count = sum(weight.numel() for weight in made.parameters()) / 1e6
    assert count == pytest.approx(model.parameters, rel=0.01)
    assert 0 < model.parameters <= 8200
    assert model.kind in ("instruct", "base")
    assert model.context >= 2048
    assert model.languages
    assert model.licence


def test_the_table_names_every_model_once_and_finds_it_by_its_id():
    ids = [one.id for one in published()]
    assert len(set(ids)) == len(ids) >= 20
    assert [one.parameters for one in published()] == sorted(one.parameters for one in published())
    assert published_as("qwen/qwen3-0.6b") == published_as("Qwen/Qwen3-0.6B") is not None
    assert published_as("someone/else") is None


def test_bits_a_byte_are_those_worked_out_from_the_model_s_own_logits(tiny):
    examples = [Example((Message("user", "say red"), Message("assistant", "röt it is"))), Example(text="plain text")]
    spec = HELD.model_copy(update={"repo_id": tiny})
    split = split_by(spec, examples)
    sizes = [learned_bytes(example) for example in examples]
    assert sizes == [len("röt it is".encode()), len("plain text")]
    knows = known_by(spec, split.rows, sizes)
    base = load(spec)
    for (row,), bits in zip(split.rows, knows.bits, strict=True):
        ids = torch.tensor([row.input_ids])
        with torch.no_grad():
            log_p = base.model(ids).logits[0].float().log_softmax(-1)
        expected = -sum(
            float(log_p[place - 1, token]) for place, token in enumerate(row.input_ids) if row.scored[place]
        )
        assert bits == pytest.approx(expected / math.log(2), rel=1e-4)
    assert knows.bits_per_byte == pytest.approx(sum(knows.bits) / sum(sizes))


def test_what_a_row_is_split_into_and_whether_it_fits_is_told(tiny):
    rows = [Encoded([1] * length, [False] + [True] * (length - 1)) for length in (4, 8, 20)]
    split = Split([[rows[0]], [rows[1], rows[0]], [rows[2]], []], limit=10)
    assert split.tokens_per_row == (4 + 12 + 20) / 4
    assert split.fitting == {0, 1}
    assert split.share_fitting == 0.5


def test_a_probe_learns_the_rows_and_leaves_the_first_measurement_as_it_was(tiny):
    split = read_data(DATA)
    spec = HELD.model_copy(update={"repo_id": tiny})
    rows = split_by(spec, split.heldout).rows
    train = [row for one in split_by(spec, split.train).rows for row in one]
    sizes = [learned_bytes(example) for example in split.heldout]
    plain, probed = known_by(spec, rows, sizes), known_by(spec, rows, sizes, train)
    assert probed.bits == pytest.approx(plain.bits)
    assert plain.probed_bits_per_byte is None
    assert probed.probed_bits_per_byte < plain.bits_per_byte * 0.9


def test_what_lies_here_is_found_and_what_is_no_model_is_said(tmp_path):
    assert at_hand() == ([], [])
    whole = tiny_llama(tmp_path / "a")
    in_hub_cache(tmp_path, whole, "someone/a-model")
    part = in_hub_cache(tmp_path, whole, "someone/a-part")
    (part / "model.safetensors").unlink()
    encoder = in_hub_cache(tmp_path, whole, "someone/an-encoder")
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    found, notes = at_hand([str(whole)])
    assert [(one.name, one.origin) for one in found] == [("someone/a-model", "Hub cache"), ("a", "folder")]
    assert len(notes) == 1
    assert "does not go on with a text" in notes[0]
    with pytest.raises(UserError, match="is neither 'starter'"):
        at_hand([str(tmp_path / "not-there")])


def test_the_better_of_two_models_is_recommended_and_measured_on_the_same_rows(tmp_path, tiny, short_table):
    other = tiny_model("gpt2", tmp_path / "gpt2")
    found = models_for(DATA, model=HELD, also=[tiny, other], rows=6)
    here = [one for one in found.models if one.origin]
    assert {one.repo_id for one in here} == {tiny, other}
    bits = [one.knows.bits_per_byte for one in here]
    assert found.measured_rows == 6
    assert all(len(one.knows.bits) == 6 for one in here)
    named = next(one for one in here if f"Begin with {one.name}" in found.recommendation)
    assert found.best == named.repo_id == here[0].repo_id
    assert named.knows.bits_per_byte == min(bits) or "could be chance" in found.recommendation
    assert [one.repo_id for one in found.models if not one.origin] == [one.id for one in short_table]
    assert all(one.ahead.memory_bytes and one.parameters is not None for one in found.models)
    assert json.loads(json.dumps(found.as_json()))["models"][0]["bits_per_byte"] == here[0].knows.bits_per_byte


def test_rows_that_one_model_can_not_take_whole_are_measured_for_none_and_it_is_said(tmp_path, tiny, short_table):
    short = tiny_model("gpt2", tmp_path / "gpt2", n_positions=128)
    long = {"prompt": "say red", "completion": "red " * 30}
    data = DataSpec(rows=tuple(ROWS), heldout_rows=(*ROWS[:1], long))
    found = models_for(data, model=HELD, also=[tiny, short])
    fits = {one.repo_id: one.split.share_fitting for one in found.models if one.split}
    assert fits[tiny] == 1.0
    assert fits[short] < 1.0
    assert found.measured_rows == 1
    assert any("not every model takes them whole" in note for note in found.notes)


def test_without_rows_nothing_is_measured_and_without_models_that_is_the_advice(tiny, short_table):
    found = models_for(Stage(data=DATA), model=HELD)
    assert found.best is None
    assert "No model is on this machine yet" in found.recommendation
    assert not found.measured_rows
    with pytest.raises(UserError, match=r"rows = 0.*at least 1 row"):
        models_for(DATA, rows=0)
    with pytest.raises(UserError, match="models_for takes rows"):
        models_for(3)


def suited(name: str, bits: list[float], probed: list[float] = (), seconds: float = 60.0, **more) -> Suited:
    split = Split([[Encoded([1, 2], [False, True])]] * len(bits), 10)
    knows = Knows(list(bits), [1] * len(bits), list(probed))
    forecast = Ahead(int(1e9), seconds, True)
    known = Suited(name, name, "folder", 100, "instruct", "", "", 512, False, forecast, split, knows)
    return replace(known, **more)


GOOD, BAD, WORSE = [1.0, 1.1, 0.9, 1.0], [2.0, 2.1, 1.9, 2.2], [3.0, 3.1, 2.9, 3.3]


def test_the_one_that_knows_the_rows_best_is_named_first_with_both_figures():
    order, said = recommendation([suited("b", BAD), suited("a", GOOD), suited("c", WORSE)], [], 4, False)
    assert [one.name for one in order] == ["a", "b", "c"]
    assert said.startswith("Begin with a: it knows your answers best of the 3 at hand (1.00 bits a byte; next b, 2.05")


def test_the_model_that_starts_best_is_not_always_the_one_that_learns_best():
    order, said = recommendation([suited("a", GOOD, BAD), suited("b", BAD, GOOD)], [], 4, True)
    assert order[0].name == "b"
    assert "a starts better, and learns less" in said


def test_of_two_that_can_not_be_told_apart_the_faster_is_taken():
    slow, fast = suited("a", [1.0, 2.0, 1.0], seconds=90.0), suited("b", [2.0, 1.0, 1.3], seconds=30.0)
    order, said = recommendation([slow, fast], [], 3, False)
    assert order[0].name == "b"
    assert "the difference could be chance" in said


def test_the_only_one_at_hand_is_said_to_be_that_and_a_larger_one_is_named_only_if_it_can_be_trained():
    away = [
        suited("gated", [], gated=True, parameters=200, origin=None, knows=None),
        suited("too large", [], parameters=300, origin=None, ahead=Ahead(int(9e11), 10.0, False, fits=False)),
        suited("slow", [], seconds=9e5, parameters=400, origin=None),
        suited("next", [], parameters=500, origin=None),
        suited("smaller", [], parameters=50, origin=None),
    ]
    order, said = recommendation([suited("starter", GOOD)], away, 4, False)
    assert order[0].name == "starter"
    assert "it is the only one at hand (1.00 bits a byte)" in said
    assert "With a network, next is the next larger one" in said
    assert "With a network" not in recommendation([suited("starter", GOOD)], away[:3], 4, False)[1]


def test_seconds_of_models_that_are_away_grow_with_their_operations(tiny):
    spec = HELD.model_copy(update={"repo_id": tiny})
    train = [row for one in split_by(spec, read_data(DATA).train).rows for row in one]
    training = models.PACES["quick"].training
    here, known = ahead.ahead_at_hand(ahead.outline_of(spec), train, training)
    assert here.exact
    assert known
    small, large = (published_as(f"HuggingFaceTB/SmolLM2-{size}-Instruct") for size in ("135M", "360M"))
    found = [ahead.ahead_of(one, HELD, train, training, known, load(spec).tokenizer) for one in (small, large)]
    assert found[0].seconds < found[1].seconds
    assert found[0].memory_bytes < found[1].memory_bytes
    assert not found[0].exact


@pytest.mark.parametrize("repo_id", ["HuggingFaceTB/SmolLM2-135M-Instruct", "google/gemma-3-270m-it"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_what_is_counted_on_a_few_layers_is_what_the_whole_model_takes(tiny, tmp_path, repo_id, quantization):
    model, training = published_as(repo_id), models.PACES["quick"].training
    tokenizer = load_tokenizer(ModelSpec(repo_id=tiny))
    train = [row for one in split_by(ModelSpec(repo_id=tiny), read_data(DATA).train).rows for row in one]
    model.config().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    spec = ModelSpec(repo_id=str(tmp_path), dtype="bfloat16", quantization=quantization, keep_dequantized=False)
    base = ahead._outline(spec, tmp_path, tokenizer)
    whole = forecast(ahead._config(spec, training), base, [(train, [])], folder=tmp_path)
    found, operations = ahead._counted(model, spec, train, training, tokenizer)
    for name in ahead.SIZES:
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-3), name
    assert operations == pytest.approx(ahead._operations(base.model, train, training), rel=1e-3)


def test_the_command_prints_a_line_for_each_model_and_the_advice_at_its_end(tiny, tmp_path, short_table, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    command = ["models", "--data", str(file), "--also", tiny, "--quantization", "none", "--dtype", "float32"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].split()[:3] == ["model", "at", "hand"]
    assert lines[1].startswith(Path(tiny).name)
    assert "it is the only one at hand" in lines[-1]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["repo_id"] == tiny
    assert main(["models", "--data", str(tmp_path / "away.csv")]) == 2


def test_the_starter_is_listed_as_what_it_is(starter, monkeypatch):
    monkeypatch.setattr(starter_module, "cached_path", lambda: Path(starter))
    (one,), _notes = at_hand()
    assert (one.name, one.origin) == ("starter", "built in")
    assert one.published.parameters == 135
