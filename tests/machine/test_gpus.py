"""What is decided and told by the card, with fakes of its properties."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tunelab import ModelSpec
from tunelab.machine import gpus, processes
from tunelab.model import quantization
from tunelab.model.load import choose_dtype

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def cards(monkeypatch):
    """A way to put so many cards of a capability into the machine."""

    def put(count, *capability):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA T4")
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (10**10, 16 * 10**9))

    return put


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_half_precision_is_the_one_a_card_has_instructions_for(cards, quantization):
    spec = ModelSpec(repo_id="any", quantization=quantization)
    for capability, dtype in (((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((12, 0), torch.bfloat16)):
        cards(1, *capability)
        assert choose_dtype(spec, CUDA) == dtype
    assert choose_dtype(spec.model_copy(update={"dtype": "float32"}), CUDA) == torch.float32


def test_emulated_precision_and_cards_that_rest_are_told(cards):
    cards(1, 7, 5)
    (slow,) = gpus.notes_on(CUDA, torch.bfloat16)
    assert "emulated" in slow
    assert "7.5" in slow
    assert not gpus.notes_on(CUDA, torch.float16)
    assert not gpus.notes_on(CPU, torch.bfloat16)
    cards(4, 9, 0)
    (rest,) = gpus.notes_on(CUDA, torch.bfloat16)
    assert "4 GPUs" in rest
    assert "CUDA_VISIBLE_DEVICES" in rest
    assert not gpus.notes_on(CUDA, torch.bfloat16, processes=4)
    described = gpus.described()
    assert list(described) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert described["cuda:3"] == "NVIDIA T4 (compute capability 9.0), 10.0 GB free of 16 GB, bfloat16"


def test_of_several_cards_the_fullest_decides(monkeypatch):
    spec, asked = ModelSpec(repo_id="any", quantization="nf4"), []
    monkeypatch.setattr("tunelab.machine.hardware.affords", lambda count, device: asked.append(device) or True)
    assert quantization.should_dequantize(spec, 10, torch.bfloat16, CUDA)
    monkeypatch.setattr(processes, "gathered", lambda mine: [*mine, False])  # the card of another process
    assert not quantization.should_dequantize(spec, 10, torch.bfloat16, CUDA)
    assert asked == [CUDA, CUDA]
    monkeypatch.setattr(processes, "gathered", lambda mine: [*mine, 3, 9])
    assert processes.smallest(lambda: 7) == 3


@pytest.mark.parametrize(
    ("fast", "attention", "said"),
    [
        (True, "grouped", "prefix tuning on the fast path"),
        (False, "eager", "this model"),
        (True, "sdpa", None),
        (False, "sdpa", None),
    ],
)
def test_a_run_says_where_a_gpu_makes_a_score_of_every_token_with_every_other(monkeypatch, fast, attention, said):
    from tunelab.chain import _Chain

    monkeypatch.setattr(gpus, "notes_on", lambda *_: [])
    base = SimpleNamespace(device=CUDA, dtype=torch.bfloat16)
    chain = SimpleNamespace(base=base, loss=SimpleNamespace(fast=fast, attention=attention))
    notes = _Chain._notes_on_device(chain)
    assert len(notes) == (said is not None)
    assert not said or notes[0].startswith(f"{said} has no fused attention")
