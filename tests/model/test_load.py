"""A model is loaded as it can be computed."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config

from tests.helpers import VOCABULARY, byte_tokenizer
from tunelab import ModelSpec, load

SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64}
CONFIGS = {
    "gemma2": Gemma2Config(
        **SIZES, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16
    ),
    "bloom": BloomConfig(**SIZES, n_layer=2, n_head=4),
}


@pytest.mark.parametrize("family", CONFIGS)
def test_a_model_without_fused_attention_is_computed_without_it_whatever_is_faster(family, tmp_path, monkeypatch):
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(CONFIGS[family], attn_implementation="eager").eval()
    plain.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr("tunelab.machine.hardware.best_cpu_attention", lambda dtype: "sdpa")
    ids = torch.tensor([[5, 6, 7, 8]])
    for asked in (None, "sdpa"):
        model = load(ModelSpec(repo_id=str(tmp_path), dtype="float32"), attention=asked).model
        assert model.config._attn_implementation == "eager"
        with torch.no_grad():
            assert torch.allclose(model(ids).logits, plain(ids).logits, atol=1e-5)


def test_a_model_with_it_is_computed_with_it_where_it_is_faster(tiny, monkeypatch):
    monkeypatch.setattr("tunelab.machine.hardware.best_cpu_attention", lambda dtype: "sdpa")
    assert load(ModelSpec(repo_id=tiny, dtype="float32")).model.config._attn_implementation == "sdpa"
