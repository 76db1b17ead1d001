"""What the fast path computes on a CUDA GPU, where attention, quantisation and rounding are other code.

`pytest tests/fast/test_on_a_gpu.py`. Most other tests choose their device as a run does: on a machine with a GPU they
are tests of it too.
"""

from __future__ import annotations

import copy

import pytest
import torch

from tests.fast.test_architectures import (
    BATCH,
    FAMILIES,
    NEW_TOKENS,
    adapted,
    close,
    decoding,
    factors_of,
    greedy,
    tiny,
    trained,
    twenty_losses,
)
from tests.fast.test_fast import loss_and_gradients, rows
from tests.fast.test_techniques import RATES, TECHNIQUES, attached, check_parity, fast_loss, in_four_bits
from tunelab import LoRA
from tunelab.data.batches import collate
from tunelab.fast.decode import FastDecoder
from tunelab.fast.llama import FastLlama
from tunelab.losses import PlainLoss
from tunelab.model import quantization

CUDA = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
ALL = {"lora": LoRA(r=4)} | TECHNIQUES
PROMPTS = [rows(3 + length, seed=length)[0].input_ids for length in range(20)]
every_technique = pytest.mark.parametrize("kind", ALL)


def on_gpu(name, dtype=torch.float32, **settings):
    return tiny(name, dtype, **settings).to(CUDA)


@every_technique
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients_are_those_of_the_models_own_forward(name, kind):
    check_parity(attached(on_gpu(name), ALL[kind]), ALL[kind])


@every_technique
@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize(
    "batch",
    [rows(20, 31, 25), rows(20, 31, 25, common=3), rows(40, common=30), rows(80, 95, 90, common=8)],
    ids=["nothing shared", "little", "alone", "long"],
)
def test_it_does_not_depend_on_what_the_rows_of_a_batch_have_in_common(name, kind, batch):
    check_parity(attached(on_gpu(name), ALL[kind]), ALL[kind], collate(batch, 2))


@every_technique
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_is_as_near_to_the_truth_as_the_models_own_forward(name, kind, dtype):
    technique = ALL[kind]
    model = attached(on_gpu(name, dtype, spread=0.08), technique, dtype, spread=0.02)
    # copied first: on the fast path weights lie side by side
    truth = copy.deepcopy(model).float()
    _, plain = loss_and_gradients(PlainLoss(model), model, BATCH)
    _, fast = loss_and_gradients(fast_loss(model, technique), model, BATCH)
    _, exact = loss_and_gradients(PlainLoss(truth), truth, BATCH)

    def error(gradients):
        return torch.cat([(g.float() - t).flatten() for g, t in zip(gradients, exact, strict=True)]).norm()

    assert error(fast) <= 2 * error(plain)


@every_technique
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 3e-5), (torch.bfloat16, 3e-3)], ids=["fp32", "bf16"])
def test_twenty_steps_learn_the_same(name, kind, dtype, most):
    technique = ALL[kind]

    def losses(way):
        model = attached(on_gpu(name, dtype, spread=0.08), technique, dtype, spread=0.02)
        return twenty_losses(model, way(model), (RATES | {"lora": 0.003}).get(kind, 0.01))

    plain, fast = losses(PlainLoss), losses(lambda model: fast_loss(model, technique))
    assert plain[-1] < plain[0]
    assert float(((fast - plain) / plain).abs().mean()) <= most


@pytest.mark.parametrize("name", ["llama", "phi3"])
@pytest.mark.parametrize("unpacked", [False, True], ids=["packed", "unpacked"])
@pytest.mark.parametrize("kind", [kind for kind, technique in ALL.items() if technique.kind != "full"])
def test_four_bit_weights_train_as_on_the_models_own_forward(name, unpacked, kind):
    model = in_four_bits(on_gpu(name, hidden_size=128), unpacked)
    check_parity(attached(model, ALL[kind]), ALL[kind])


def test_a_gpu_rounds_to_four_bits_as_the_reference_does():
    import bitsandbytes

    torch.manual_seed(0)
    weight = torch.randn(128, 192)
    codes, scale = quantization.quantize_nf4(weight)
    expected = quantization.dequantize_nf4(codes, scale, weight.shape)
    packed, state = bitsandbytes.functional.quantize_4bit(weight.to(CUDA), quant_type="nf4")
    got = bitsandbytes.functional.dequantize_4bit(packed, state).cpu()
    assert float(((got - expected).abs() < 1e-6).float().mean()) > 0.999  # a value between two levels may go either way


@pytest.mark.parametrize("name", decoding)
def test_greedy_answers_are_those_of_generate(name):
    bare = on_gpu(name)
    tuned = adapted(copy.deepcopy(bare))
    adapters = [None, factors_of(tuned)]
    expected = [[greedy(model, prompt) for prompt in PROMPTS] for model in (bare, tuned)]
    assert expected[0] != expected[1]
    prompts = [(prompt, adapter) for adapter in adapters for prompt in PROMPTS]
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt, _adapter in prompts])
    padding = torch.tensor([longest - len(prompt) for prompt, _adapter in prompts])
    decoder = FastDecoder(FastLlama(bare), [adapter for _prompt, adapter in prompts], 16)
    made, logits = [], decoder(ids, padding)
    for _ in range(NEW_TOKENS):
        made.append(logits.argmax(-1))
        logits = decoder(made[-1][:, None])
    assert torch.stack(made, 1).tolist() == [*expected[0], *expected[1]]


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "prefix"])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_no_scores_of_every_token_with_every_other_are_kept(name, kind):
    """Memory of four times as long rows grows by four, and not by sixteen. Prefix tuning has no fused attention."""

    def peak(length):
        model = attached(on_gpu(name, torch.bfloat16), ALL[kind], torch.bfloat16)
        loss, batch = fast_loss(model, ALL[kind]), collate(rows(length, length - 1), 2)
        loss_and_gradients(loss, model, batch)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss_and_gradients(loss, model, batch)
        return torch.cuda.max_memory_allocated() - before

    assert peak(8192) < 6 * peak(2048)


@pytest.mark.parametrize("kind", [kind for kind, technique in ALL.items() if technique.kind != "full"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize(
    ("dtype", "most"),
    [(torch.float32, 1e-4), (torch.bfloat16, 0.02), (torch.float16, 0.02)],
    ids=["fp32", "bf16", "fp16"],
)
def test_what_is_replayed_is_what_is_computed_without(monkeypatch, name, kind, dtype, most):
    monkeypatch.setattr("tunelab.fast.replay.SMALL", 2.0)
    technique = ALL[kind]
    model = attached(on_gpu(name, dtype, spread=0.08), technique, dtype, spread=0.02)
    batches = [
        collate(rows(*lengths, common=9, seed=sum(lengths)), 2)
        for lengths in ((30, 21, 25), (28, 24, 27), (60, 58, 40))
    ]
    loss = fast_loss(model, technique)
    alone = []
    with torch.no_grad():
        losses = [float(loss(batch.to(CUDA))) for batch in batches]
    loss.replays, replays = None, loss.replays
    for batch in batches:
        alone.append(loss_and_gradients(loss, model, batch)[1])
    loss.replays = replays
    for _turn in range(3):
        for batch, expected, value in zip(batches, alone, losses, strict=True):
            scaled = 512.0 / batch.scored_tokens if dtype == torch.float16 else 1.0
            model.zero_grad()
            got = loss(batch.to(CUDA))
            (got * scaled).backward()
            assert float(got) == pytest.approx(value, rel=1e-5)
            del got  # nothing is recorded while it is held
            gradients = [p.grad / scaled for p in trained(model)]
            assert all(close(ours, theirs, most) for ours, theirs in zip(gradients, expected, strict=True))
    assert len(replays.made) == 2


@pytest.mark.parametrize("unpacked", [False, True], ids=["packed", "unpacked"])
def test_four_bit_weights_are_replayed_as_they_are_computed(unpacked):
    model = attached(in_four_bits(on_gpu("llama", hidden_size=128), unpacked), LoRA(r=4))
    loss = fast_loss(model, LoRA(r=4))
    _, expected = loss_and_gradients(PlainLoss(model), model, BATCH)
    for _turn in range(4):
        _, got = loss_and_gradients(loss, model, BATCH)
        assert all(close(ours, theirs, 1e-4) for ours, theirs in zip(got, expected, strict=True))
    assert len(loss.replays.made) == 1


def test_what_is_trained_is_on_the_gpu():
    assert {p.device.type for p in trained(attached(on_gpu("llama"), LoRA(r=4)))} == {"cuda"}
