"""Which models take the fast path: those whose parts it knows and of which a small copy is computed as their own code
computes it. Others go the plain way, with the reason.
"""

from __future__ import annotations

import pytest
import torch

from tests.architectures import GROUPED
from tests.fast.test_architectures import adapted, every_family, tiny
from tunelab import LoRA, TrainConfig
from tunelab.fast import choose_loss, probe, reading
from tunelab.fast.blocks import AttentionPart
from tunelab.fast.changes import Unsupported
from tunelab.fast.llama import FastLoss
from tunelab.fast.reading import read
from tunelab.losses import PlainLoss


@every_family
def test_the_probe_agrees_with_every_family(name):
    model = adapted(tiny(name)).get_base_model()
    assert probe.difference(type(model), probe.small_config(model.config, read(model))) == ""


def broken_scale(monkeypatch):
    """Scores that are not divided by what the model's are."""
    heads = reading._heads
    monkeypatch.setattr(reading, "_heads", lambda *of: heads(*of).__class__(**vars(heads(*of)) | {"scaling": 0.25}))


def broken_norms(monkeypatch):
    """Queries and keys that are not normed."""
    monkeypatch.setattr(reading, "_head_norms", lambda *of: None)


def broken_window(monkeypatch):
    """Queries that see everything before them."""
    monkeypatch.setattr(reading, "_window", lambda *of: None)


def broken_weights(monkeypatch):
    """Norms whose weight is not what the model's code makes of it."""
    monkeypatch.setattr(reading, "_convention", lambda kind: (False, False))


def broken_backward(monkeypatch):
    """The right losses and wrong gradients."""
    monkeypatch.setattr(AttentionPart, "turned_backward_", lambda self, d_qkv, qkv, gradients: d_qkv)


def broken_decoder(monkeypatch):
    """Right training, and answers that know no positions."""
    monkeypatch.setattr("tunelab.fast.decode.rotate_", lambda x, cos, sin: x)


def broken_cap(monkeypatch):
    """Logits as they come from the head."""
    monkeypatch.setattr(reading, "_finish", lambda config: None)


BROKEN = [
    ("qwen3", broken_norms, "losses"),
    ("qwen3", broken_scale, "losses"),
    ("qwen3", broken_backward, "gradients"),
    ("qwen3", broken_decoder, "decoder"),
    ("gemma3", broken_window, "losses"),
    ("gemma3", broken_weights, "losses"),
    ("gemma2", broken_cap, "losses"),
    ("granite", broken_cap, "losses"),
]


@pytest.mark.parametrize(("name", "broken", "where"), BROKEN, ids=[f"{name} {b.__name__}" for name, b, _ in BROKEN])
def test_what_computes_something_else_goes_the_plain_way_and_says_where(name, broken, where, monkeypatch):
    model = adapted(tiny(name))
    monkeypatch.setattr(probe, "measured", lambda _name, _key, measure, _valid: measure())
    assert isinstance(choose_loss(model, LoRA()), FastLoss)
    broken(monkeypatch)
    loss = choose_loss(model, LoRA())
    assert isinstance(loss, PlainLoss)
    assert where in loss.why_plain
    assert type(model.get_base_model()).__name__ in loss.why_plain


def test_an_architecture_is_probed_once_and_a_proven_one_never(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("tunelab.machine.measured.cache_root", lambda: tmp_path)
    monkeypatch.setattr(probe, "difference", lambda *of: asked.append(of) or "")
    for name in ("qwen3", "qwen3", "llama", "gemma"):
        choose_loss(adapted(tiny(name)), LoRA())
    assert [kind.__name__ for kind, _config in asked] == ["Qwen3ForCausalLM", "GemmaForCausalLM"]


@pytest.mark.parametrize("kind", ["Helium", "Ernie4_5"])
def test_parts_of_llama_that_other_code_calls_go_the_plain_way(kind):
    """Both turn neighbours where Llama turns halves, which their modules don't show."""
    import transformers

    sizes = GROUPED | {"vocab_size": 300, "head_dim": 16, "pad_token_id": None}
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, f"{kind}Config")(**sizes))
    loss = choose_loss(model.requires_grad_(False), LoRA())
    assert read(model)
    assert isinstance(loss, PlainLoss)
    assert f"{kind}ForCausalLM: on a small copy, losses" in loss.why_plain


def test_a_window_that_only_the_configuration_knows_is_not_taken_for_one():
    model = adapted(tiny("llama", sliding_window=9))
    loss = choose_loss(model, LoRA())
    assert isinstance(loss, PlainLoss)
    assert "LlamaForCausalLM: on a small copy, losses" in loss.why_plain


def test_a_probe_draws_no_random_numbers_that_training_would_miss():
    model = adapted(tiny("qwen3", seed=7, rope_parameters={"rope_type": "default", "rope_theta": 777.0}))
    torch.manual_seed(3)
    expected = torch.randn(3)
    torch.manual_seed(3)
    choose_loss(model, LoRA())
    assert torch.equal(torch.randn(3), expected)


REFUSED = ("gpt2", "opt", "falcon", "gpt_neox", "qwen2_moe", "mixtral", "lfm2")


@pytest.mark.parametrize("name", REFUSED)
def test_models_of_other_parts_go_the_plain_way_with_the_reason(name):
    from transformers import AutoModelForCausalLM

    from tests.architectures import config_of

    model = AutoModelForCausalLM.from_config(config_of(name)).requires_grad_(False)
    with pytest.raises(Unsupported, match=r"(has|does not say) "):
        read(model)
    loss = choose_loss(model, LoRA())
    assert isinstance(loss, PlainLoss)
    assert loss.why_plain


def test_settings_that_the_fast_path_does_not_compute_are_named():
    model = tiny("qwen2")
    reasons = [
        choose_loss(model, technique, training).why_plain
        for technique, training in (
            (LoRA(), TrainConfig(fast=False)),
            (LoRA(), TrainConfig(neftune_alpha=5.0)),
            (LoRA(), TrainConfig(gradient_checkpointing=True)),
        )
    ]
    wanted = ["fast = false", "neftune_alpha = 5", "gradient_checkpointing = true"]
    assert all(word in reason for word, reason in zip(wanted, reasons, strict=True)), reasons
    assert choose_loss(model, LoRA()).why_plain == ""
