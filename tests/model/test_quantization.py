"""Four and eight bits: our reference against bitsandbytes, and what is kept of a quantised base."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.architectures import tiny_model
from tests.conftest import REPOSITORY
from tests.train.test_loop import config
from tunelab import ModelSpec, UserError, finetune, import_adapter, load
from tunelab.model.quantization import count_parameters, dequantize_nf4, quantize_nf4


def test_the_reference_equals_bitsandbytes():
    import bitsandbytes.functional as bnb

    torch.manual_seed(0)
    weight = torch.randn(64, 128)
    codes, scale = quantize_nf4(weight)
    ours = dequantize_nf4(codes, scale, weight.shape)
    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=False)
    theirs = bnb.dequantize_4bit(packed, state)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert 0.05 < (ours - weight).norm() / weight.norm() < 0.15
    assert codes.max() == 15
    assert codes.min() == 0


def test_every_level_of_nf4_stays_what_it_is():
    from tunelab.model.quantization import NF4_LEVELS

    block = torch.tensor(NF4_LEVELS).repeat(4)
    codes, scale = quantize_nf4(block)
    assert torch.equal(dequantize_nf4(codes, scale, block.shape), block)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_kept_dequantised_the_base_computes_the_same(tiny, quantization):
    ids = torch.arange(3, 40)[None]
    logits = []
    for keep in (True, False):
        spec = ModelSpec(repo_id=tiny, quantization=quantization, dtype="float32", keep_dequantized=keep)
        model = load(spec).model
        with torch.no_grad():
            logits.append(model(ids).logits)
    # int8 also rounds its activations (LLM.int8()), which the dequantised base need not
    tolerance = 1e-5 if quantization == "nf4" else 0.05
    assert (logits[0] - logits[1]).abs().max() < tolerance * logits[1].abs().max()
    exact = load(ModelSpec(repo_id=tiny, dtype="float32")).model
    with torch.no_grad():
        assert (exact(ids).logits - logits[0]).abs().max() > 1e-3


def test_a_quantised_base_holds_no_trainable_parameter_and_keeps_its_bytes(tiny):
    base = load(ModelSpec(repo_id=tiny, quantization="nf4", keep_dequantized=False))
    before = [p.detach().clone() for p in base.model.parameters()]
    with torch.no_grad():
        base.model.eval()(torch.arange(3, 40)[None])
    assert not any(p.requires_grad for p in base.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, base.model.parameters(), strict=True))


def test_a_machine_without_bitsandbytes_is_told_what_to_choose(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match="Choose quantization 'none'"):
        load(ModelSpec(repo_id=tiny, quantization="nf4"))


WITHOUT_BITSANDBYTES = """
import sys
sys.modules["bitsandbytes"] = None
from tests.train.test_loop import config
from tunelab import BottleneckAdapter, LoRA, compare, evaluate, export_merged, finetune
for technique in (LoRA(), BottleneckAdapter()):
    run = finetune(config(sys.argv[1]).model_copy(update={"technique": technique}))
    assert compare(run, "say red", max_new_tokens=3).answers[1].tokens
    if technique == LoRA():
        evaluate(run, rows=2, max_new_tokens=2, questions=0, instructions=4)
        export_merged(run, sys.argv[2])
"""


@pytest.mark.slow
def test_on_a_machine_without_bitsandbytes_plain_models_are_trained_asked_measured_and_merged(tiny, tmp_path):
    command = [sys.executable, "-c", WITHOUT_BITSANDBYTES, tiny, str(tmp_path / "merged")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "merged" / "model.safetensors").is_file()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_the_numbers_of_a_model_are_counted_and_not_its_bytes(tiny, quantization, keep):
    plain = load(ModelSpec(repo_id=tiny, dtype="float32")).model
    spec = ModelSpec(repo_id=tiny, dtype="float32", quantization=quantization, keep_dequantized=keep)
    assert count_parameters(load(spec).model) == sum(p.numel() for p in plain.parameters())


def test_a_run_and_an_import_count_alike(tiny):
    spec = ModelSpec(repo_id=tiny, dtype="float32", quantization="nf4", keep_dequantized=False)
    run = finetune(config(tiny).model_copy(update={"model": spec}))
    started = run.progress().started
    plain = load(ModelSpec(repo_id=tiny, dtype="float32")).model
    assert started.total_parameters == sum(p.numel() for p in plain.parameters()) + started.trainable_parameters
    assert import_adapter(run.adapter_path, spec).progress().started.total_parameters == started.total_parameters


def test_experts_that_quantisation_does_not_reach_are_told_of(tmp_path):
    folder = tiny_model("mixtral", tmp_path / "model")
    assert not load(ModelSpec(repo_id=folder, dtype="float32")).notes
    (note,) = load(ModelSpec(repo_id=folder, dtype="float32", quantization="nf4")).notes
    model = load(ModelSpec(repo_id=folder, dtype="float32")).model
    experts = sum(p.numel() for name, p in model.named_parameters() if "experts" in name)
    assert f"{experts / count_parameters(model):.0%} of the weights" in note
    assert "quantization = 'nf4' does not reach them" in note


@pytest.mark.parametrize(
    ("repo_id", "message"),
    [
        ("someone/some-model", "can't be reached.*starter"),
        ("no such thing", "neither 'starter', nor a folder"),
    ],
)
def test_a_model_that_cannot_be_had_is_explained(repo_id, message):
    with pytest.raises(UserError, match=message):
        load(ModelSpec(repo_id=repo_id))


def test_a_folder_with_pickled_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(UserError, match=r"no safetensors weights.*\.bin weights are refused"):
        load(ModelSpec(repo_id=str(tmp_path)))
