"""Every decision by memory asks for the device that its tensors are on: a GPU's memory where there is one, told by
fakes here, and never the machine's in its place."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.helpers import ROWS
from tunelab import DataSpec, LoRA, ModelSpec, RunConfig, Stage, TrainConfig, compare, evaluate, finetune, load
from tunelab.data.encode import encode_all
from tunelab.data.split import read_data
from tunelab.fast.decode import FastDecoder
from tunelab.fast.llama import FastLlama
from tunelab.fast.weights import Plain, Unpacking
from tunelab.machine import hardware
from tunelab.model import quantization
from tunelab.model.load import skeleton
from tunelab.train import memory

GB = 10**9
CUDA, MPS, CPU = (torch.device(name) for name in ("cuda", "mps", "cpu"))


@pytest.fixture
def machine(monkeypatch):
    """A machine with 64 GB free, and a GPU of 16 GB of which 6 are free and PyTorch keeps 3 for 2 of tensors."""
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: SimpleNamespace(total=80 * GB, available=64 * GB))
    monkeypatch.setattr(hardware.containers, "free_memory_bytes", lambda: None)
    monkeypatch.setattr(hardware, "resident_bytes", lambda: 5 * GB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (6 * GB, 16 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device=None: 3 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device=None: 2 * GB)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 * GB)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 4 * GB)


def test_what_is_free_is_what_the_device_has_free(machine):
    assert hardware.available_memory_bytes() == hardware.available_memory_bytes(CPU) == 64 * GB
    assert hardware.available_memory_bytes(CUDA) == 7 * GB  # what PyTorch keeps and nobody uses is free as well
    assert hardware.available_memory_bytes(MPS) == 8 * GB
    assert [hardware.reachable_memory_bytes(d) for d in (CPU, CUDA, MPS)] == [69 * GB, 9 * GB, 12 * GB]


def test_a_quantised_base_is_unpacked_where_its_device_affords_it(machine):
    spec = ModelSpec(repo_id="any", quantization="nf4")
    assert hardware.affords(8 * GB, CPU)
    assert not hardware.affords(8 * GB, CUDA)
    for weights, on_cpu, on_cuda in ((4 * GB, True, False), (GB // 2, True, True), (20 * GB, False, False)):
        assert quantization.should_dequantize(spec, weights, torch.bfloat16, CPU) is on_cpu
        assert quantization.should_dequantize(spec, weights, torch.bfloat16, CUDA) is on_cuda
    assert not quantization.should_dequantize(spec, 5 * GB, torch.float32, CPU)  # 4 bytes each
    kept = spec.model_copy(update={"keep_dequantized": True})
    assert quantization.should_dequantize(kept, 20 * GB, torch.bfloat16, CUDA)


def one_stage(tiny, technique=None, optimizer="adamw", fast=True, **model):
    return RunConfig(
        model=ModelSpec(repo_id=tiny, **{"dtype": "float32"} | model),
        technique=technique or LoRA(r=4),
        stages=[
            Stage(
                data=DataSpec(rows=ROWS, heldout=4),
                training=TrainConfig(steps=2, eval_rows=4, optimizer=optimizer, fast=fast),
            )
        ],
    )


def test_no_decision_is_made_without_naming_the_device(tiny, monkeypatch):
    asked = []

    def available(device=None):
        asked.append(device)
        return 10**12

    monkeypatch.setattr(hardware, "available_memory_bytes", available)
    # adapters in the upper layer: the lower one's results are kept in a cache
    for config in (one_stage(tiny, quantization="nf4"), one_stage(tiny, LoRA(r=4, layers=(1,)))):
        run = finetune(config)
        trained = len(asked)
        assert trained >= 2
        compare(run, "say red", max_new_tokens=2)
        evaluate(run, rows=2, max_new_tokens=2, questions=0, instructions=4)
        assert len(asked) > trained
    assert asked == [CPU] * len(asked)


def logits_of(llama):
    ids = torch.tensor([[5, 9, 200, 31]]).repeat(2, 1)
    return FastDecoder(llama, [None, None], 8)(ids)


def test_where_memory_is_short_a_quantised_base_answers_the_same_and_is_unpacked_a_stack_at_a_time(tiny, monkeypatch):
    base = load(ModelSpec(repo_id=tiny, dtype="float32", quantization="nf4", keep_dequantized=False))
    llama = FastLlama(base.model)
    right = logits_of(llama)
    assert all(isinstance(weight, Plain) for weights in llama.weights() for weight in weights)

    monkeypatch.setattr(hardware, "available_memory_bytes", lambda device: 3 * llama.unpacked_bytes)
    assert all(isinstance(weight, Unpacking) for weights in llama.weights() for weight in weights)
    held, most, unpack = 0, 0, quantization.dequantize_weight

    def counted(layer, dtype):
        nonlocal held, most
        weight = unpack(layer, dtype)
        size = weight.nbytes
        held, most = held + size, max(most, held + size)

        def freed():
            nonlocal held
            held -= size

        import weakref

        weakref.finalize(weight, freed)
        return weight

    monkeypatch.setattr(quantization, "dequantize_weight", counted)
    assert torch.equal(logits_of(llama), right)
    stacks = [sum(w * p.inputs for w in p.widths) * 4 for layer in llama.layers for p in layer.linears]
    assert most == max(stacks)
    assert sum(stacks) == llama.unpacked_bytes


def test_weights_are_packed_for_answering_only_if_unpacking_them_is_affordable(tiny, monkeypatch):
    base = load(ModelSpec(repo_id=tiny, dtype="bfloat16", quantization="nf4", keep_dequantized=False))
    monkeypatch.setattr(hardware, "available_memory_bytes", lambda device: 0)
    assert not FastLlama(base.model, packed=True).packed


def test_the_cache_of_frozen_layers_asks_where_its_tensors_are(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(hardware, "affords", lambda count, device: asked.append((count > 0, device)))
    finetune(one_stage(tiny, LoRA(r=4, layers=(1,))))
    assert set(asked) == {(True, CPU)}


def forecast_on(device, config, tiny):
    base = replace(skeleton(config.model), device=device)
    split = read_data(config.stages[0].data)
    rows = [encode_all(part, base.tokenizer, 512)[0] for part in (split.train, split.heldout)]
    return memory.timed(memory.forecast(config, base, [tuple(rows)]), config, base, [tuple(rows)])


def test_on_a_gpu_trained_weights_of_the_base_are_counted_once_and_moments_by_their_bits(tiny, machine):
    from tunelab import FullFineTuning

    def bytes_of_a_weight(dtype, device, optimizer="adamw"):
        ahead = forecast_on(device, one_stage(tiny, FullFineTuning(), optimizer, dtype=dtype), tiny)
        return (ahead.weights + ahead.trained) / (ahead.weights / (4 if dtype == "float32" else 2))

    # the weight, two moments, and on the CPU the file beside it and the best so far
    assert bytes_of_a_weight("float32", CPU) == 4 + 4 + 8 + 4
    assert bytes_of_a_weight("float32", CUDA) == 4 + 8
    assert bytes_of_a_weight("bfloat16", CUDA) == 2 + 4 + 8
    assert bytes_of_a_weight("bfloat16", CUDA, "adamw_8bit") == 2 + 4 + 2


def test_on_a_gpu_the_forecast_is_of_its_memory_and_of_the_attention_that_runs_there(tiny, machine, monkeypatch):
    from tunelab import IA3

    monkeypatch.setattr("tunelab.model.load.hardware.best_cpu_attention", lambda dtype: "eager")
    config = one_stage(tiny, IA3(), fast=False)
    here, there = forecast_on(CPU, config, tiny), forecast_on(CUDA, config, tiny)
    assert there.kept < here.kept  # no attention weights
    assert there.weights == here.weights
    assert there.trained == here.trained * 3 // 4  # the best so far lie in the machine's memory
    assert there.total < there.libraries < here.total  # the libraries lie in the machine's memory
    assert "GB on cuda at most" in there.note(10**12)
    assert "Time: no forecast" in there.note(10**12)  # there is no GPU here to be timed
