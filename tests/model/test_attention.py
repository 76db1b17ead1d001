"""How the plain path attends on a GPU: no (T, T) scores and no mask of that size, and what it computes stays the same.
The properties of a card are told by fakes; the kernels themselves are compared on the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.fast.test_fast import loss_and_gradients, rows
from tests.helpers import VOCABULARY
from tunelab import ModelSpec, load
from tunelab.data.batches import collate
from tunelab.losses import PlainLoss
from tunelab.model import attention
from tunelab.model.load import empty_model, find
from tunelab.techniques import LoRA, PrefixTuning, PromptTuning
from tunelab.train import memory

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
BATCH = collate(rows(30, 21, 25), pad_id=2)
TECHNIQUES = {
    "lora": LoRA(r=4),
    "prefix": PrefixTuning(num_virtual_tokens=6, init_text="red"),
    "prompt": PromptTuning(num_virtual_tokens=6, init_text="red"),
}


@pytest.fixture
def card(monkeypatch):
    """A way to put a card of such a capability into the machine."""
    return lambda *capability: monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)


@pytest.mark.parametrize(
    ("capability", "dtype", "chosen"),
    [
        ((8, 0), torch.bfloat16, "sdpa"),
        ((9, 0), torch.float16, "sdpa"),
        ((9, 0), torch.float32, attention.REPEATED),  # flash attention knows half precision alone
        ((7, 5), torch.float16, attention.REPEATED),  # and no card before Ampere
    ],
)
def test_keys_are_repeated_where_no_kernel_shares_them(tiny, card, capability, dtype, chosen):
    card(*capability)
    folder = find(ModelSpec(repo_id=tiny))
    for asked in (None, "sdpa"):
        assert attention.choose_attention(folder, CUDA, dtype, asked) == chosen
    assert attention.choose_attention(folder, CUDA, dtype, "eager") == "eager"


def test_a_model_with_a_key_for_each_query_needs_none_repeated(tmp_path, card):
    from transformers import LlamaConfig

    card(7, 5)
    LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=4, num_key_value_heads=4).save_pretrained(tmp_path)
    assert attention.choose_attention(tmp_path, CUDA, torch.float16) == "sdpa"


@pytest.mark.parametrize("name", TECHNIQUES)
def test_without_a_mask_and_with_keys_repeated_losses_and_gradients_are_those_of_plain_products(
    tiny, name, monkeypatch
):
    def computed(way):
        base = load(ModelSpec(repo_id=tiny, dtype="float32"), attention=way)
        torch.manual_seed(0)
        model = TECHNIQUES[name].attach(base)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.05 * torch.randn_like(parameter))
        return loss_and_gradients(PlainLoss(model), model, BATCH)

    expected, gradients = computed("eager")
    seen = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, attn_mask=None, **given):
        assert not given.get("enable_gqa")
        assert key.shape[1] == query.shape[1]
        seen.append(None if attn_mask is None else attn_mask.stride()[0])
        return kernel(query, key, value, attn_mask=attn_mask, **given)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    monkeypatch.setattr("tunelab.losses.needs_mask", lambda way, device: attention.needs_mask(way, CUDA))
    loss, got = computed(attention.register())
    assert loss == pytest.approx(expected, rel=1e-5)
    for ours, theirs in zip(got, gradients, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-7
    # a prefix stands before the text, which a causal mask alone can't tell: its mask is one for all rows
    assert set(seen[-2:]) == ({0} if name == "prefix" else {None})


def test_cudnn_is_left_out_on_a_gpu_alone():
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        attention.prepare(CPU)
        assert torch.backends.cuda.cudnn_sdp_enabled()
        attention.prepare(CUDA)
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_a_mask_is_left_out_on_a_gpu_alone_and_only_by_fused_attention():
    assert [attention.needs_mask(way, CUDA) for way in ("eager", *attention.FUSED)] == [True, False, False]
    assert attention.needs_mask("sdpa", CPU)


@pytest.mark.parametrize("length", [64, 256])
def test_what_a_gpu_keeps_of_a_batch_grows_with_its_rows_and_not_with_their_square(tiny, length):
    batch = collate(rows(length, length - 3), 2)

    def kept(masked):
        folder = find(ModelSpec(repo_id=tiny))
        with torch.device("meta"):
            model = empty_model(folder, torch.float32, memory._counted("sdpa", masked))
            model.get_input_embeddings().weight.requires_grad_(True)
            return memory._saved(model, batch, checkpointing=False)[0]

    layers, masks = 2, 4 * 2 * length * length  # of two rows, in fp32
    assert kept(True) - kept(False) == layers * masks


def test_a_base_is_loaded_with_repeated_keys_and_answers_as_without(tiny, monkeypatch):
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    plain = load(ModelSpec(repo_id=tiny, dtype="float32"), attention="eager").model
    model = load(ModelSpec(repo_id=tiny, dtype="float32"), attention=attention.register()).model
    assert model.config._attn_implementation == attention.REPEATED
    padding = torch.tensor([[0, 0, 1, 1, 1]])
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, plain(ids).logits, atol=1e-5)
        both = [one(ids, attention_mask=padding).logits[:, -1] for one in (model, plain)]
    assert torch.allclose(*both, atol=1e-5)
