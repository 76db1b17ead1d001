"""Every technique on the fast path: what the plain path computes, in every family, on four bits too; switched off it is
the base; and twenty steps learn the same.
"""

from __future__ import annotations

import copy

import pytest
import torch

from tests.fast.test_architectures import BATCH, FAMILIES, PROMPTS, close, tiny, trained, twenty_losses
from tests.fast.test_fast import loss_and_gradients, rows
from tests.helpers import byte_tokenizer
from tunelab import (
    IA3,
    BottleneckAdapter,
    FullFineTuning,
    LoRA,
    ModelSpec,
    PrefixTuning,
    PromptTuning,
    TrainConfig,
)
from tunelab.data.batches import collate
from tunelab.fast import choose_loss
from tunelab.fast.llama import FastLoss
from tunelab.losses import PlainLoss
from tunelab.model import quantization
from tunelab.model.load import Base

TECHNIQUES = {
    "dora": LoRA(r=4, use_dora=True),
    "ia3": IA3(),
    "full": FullFineTuning(),
    "full, one layer": FullFineTuning(layers=(1,)),
    "prefix": PrefixTuning(num_virtual_tokens=6),
    "prompt": PromptTuning(num_virtual_tokens=6),
    "houlsby": BottleneckAdapter(size=8),
    "pfeiffer": BottleneckAdapter(size=8, placement="pfeiffer", activation="gelu"),
}
every_technique = pytest.mark.parametrize("kind", TECHNIQUES)
# layers of one stack of which only some are changed, and factors where IA³ has none by itself
SOME = {
    "dora": {"target_modules": ("v_proj", "up_proj", "down_proj")},
    "ia3": {"scaled_modules": ("q_proj", "o_proj"), "scaled_inputs": ("down_proj",)},
}
RATES = {"ia3": 0.1, "prefix": 0.1, "prompt": 0.03}  # of the twenty steps


def base_of(model, dtype=torch.float32):
    spec = ModelSpec(repo_id="starter", dtype=str(dtype).removeprefix("torch."))
    return Base(spec, model, byte_tokenizer(), dtype, model.device, sha256="", published_name="", note="")


def in_four_bits(model, unpacked):
    """The model with NF4 layers, or with plain ones of their values."""
    quantization.quantize_linears(model, ModelSpec(repo_id="starter", quantization="nf4"), torch.float32)
    if unpacked:
        quantization.dequantize_linears(model, torch.float32)
    return model


def attached(model, technique, dtype=torch.float32, spread=0.1):
    """The model with a technique whose parameters are not those it starts with."""
    torch.manual_seed(3)
    made = technique.attach(base_of(model, dtype), rows(20, 30))
    generator = torch.Generator().manual_seed(1)
    for parameter in trained(made):
        size = spread * (0.1 if technique.kind == "full" else 1.0)
        parameter.data.add_((size * torch.randn(parameter.shape, generator=generator)).to(parameter))
    return made


def fast_loss(model, technique):
    loss = choose_loss(model, technique)
    assert isinstance(loss, FastLoss), loss.why_plain
    return loss


def check_parity(model, technique, batch=BATCH):
    plain, expected = loss_and_gradients(PlainLoss(model), model, batch)
    fast, got = loss_and_gradients(fast_loss(model, technique), model, batch)
    assert fast == pytest.approx(plain, rel=1e-5)
    assert len(got) == len(expected) > 0
    for ours, theirs in zip(got, expected, strict=True):
        assert theirs.norm() > 0
        assert close(ours, theirs, 1e-4)


@pytest.mark.parametrize("name", FAMILIES)
@every_technique
def test_loss_and_gradients_are_those_of_the_plain_path(name, kind):
    check_parity(attached(tiny(name), TECHNIQUES[kind]), TECHNIQUES[kind])


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_the_embedding_of_the_padding_token_learns_nothing_where_it_is_read(name):
    model = attached(tiny(name), FullFineTuning())
    table = model.get_input_embeddings()
    table.padding_idx = int(BATCH.input_ids[0, BATCH.input_ids.shape[1] // 2])  # it ends a turn as well
    check_parity(model, FullFineTuning())


def test_a_trained_head_is_given_no_gradient_where_none_is_asked_for(monkeypatch):
    from tunelab.fast import head

    scales, losses = [], head._losses
    monkeypatch.setattr(head, "_losses", lambda *given: (scales.append(given[3]), losses(*given))[1])
    loss = fast_loss(attached(tiny("llama"), FullFineTuning()), FullFineTuning())
    trained_with = float(loss(BATCH))
    with torch.no_grad():
        assert float(loss(BATCH)) == trained_with
    assert scales == [1.0, None]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "olmo2"])
@pytest.mark.parametrize("kind", SOME)
def test_some_layers_of_a_stack_can_be_changed_and_others_not(name, kind):
    technique = TECHNIQUES[kind].model_copy(update=SOME[kind])
    check_parity(attached(tiny(name), technique), technique)


@pytest.mark.parametrize(
    "batch",
    [rows(20, 31, 25), rows(20, 31, 25, common=3), rows(40, common=30), rows(80, 95, 90, common=8)],
    ids=["nothing shared", "little", "alone", "long"],
)
@pytest.mark.parametrize("kind", ["dora", "ia3", "prefix", "prompt"])
def test_it_does_not_depend_on_what_the_rows_of_a_batch_have_in_common(kind, batch):
    check_parity(attached(tiny("llama"), TECHNIQUES[kind]), TECHNIQUES[kind], collate(batch, 2))


@pytest.mark.parametrize("name", ["qwen3", "phi3"])
@pytest.mark.parametrize("unpacked", [False, True], ids=["packed", "unpacked"])
@pytest.mark.parametrize("kind", [kind for kind, technique in TECHNIQUES.items() if technique.kind != "full"])
def test_four_bit_weights_train_as_on_the_plain_path(name, unpacked, kind):
    model = in_four_bits(tiny(name, hidden_size=128), unpacked)
    check_parity(attached(model, TECHNIQUES[kind]), TECHNIQUES[kind])


@every_technique
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_switched_off_it_is_the_base_and_switched_on_again_what_it_was(name, kind):
    technique, bare = TECHNIQUES[kind], tiny(name)
    with torch.no_grad():
        expected = float(FastLoss(copy.deepcopy(bare))(BATCH))
        model = attached(bare, technique)
        loss = fast_loss(model, technique)
        tuned = float(loss(BATCH))
        with technique.off(model):
            assert float(loss(BATCH)) == pytest.approx(expected, rel=1e-6)
        assert float(loss(BATCH)) == tuned != pytest.approx(expected, rel=1e-3)


@every_technique
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-3)], ids=["fp32", "bf16"])
def test_twenty_steps_learn_the_same(name, kind, dtype, error):
    technique = TECHNIQUES[kind]

    def losses(way):
        # wider ones would make much of what bf16 rounds away
        model = attached(tiny(name, dtype, spread=0.08), technique, dtype, spread=0.02)
        return twenty_losses(model, way(model), RATES.get(kind, 0.01))

    plain, fast = losses(PlainLoss), losses(lambda model: fast_loss(model, technique))
    assert plain[-1] < plain[0]
    assert float(((fast - plain) / plain).abs().mean()) <= error


@every_technique
@pytest.mark.parametrize("name", ["llama", "qwen3", "olmo2", "gemma3"])
def test_what_the_forward_keeps_is_what_its_formula_says(name, kind):
    from tests.train.test_memory import kept_by

    model = attached(tiny(name), TECHNIQUES[kind])
    loss = fast_loss(model, TECHNIQUES[kind])
    copies = [tensor for of_stack in loss.llama.adapters for tensor in (of_stack.a, of_stack.b)]
    own = torch.nn.ParameterList([*copies, *(p for p in model.parameters())])
    measured = kept_by(lambda: loss.hidden(BATCH), own)
    # besides: the angles of rotations, kept once for all layers, and the last norm
    assert loss.kept_bytes(BATCH, BATCH.input_ids.device)[0] == pytest.approx(measured, rel=0.1)


@every_technique
def test_answers_while_training_are_those_of_generate(kind):
    from tunelab.answer.decoders import while_training
    from tunelab.answer.generation import answer_many

    technique, bare = TECHNIQUES[kind], tiny("qwen3")
    expected = greedy(copy.deepcopy(bare))
    model = attached(bare, technique).eval()
    tuned = greedy(model)
    assert tuned != expected
    loss = fast_loss(model, technique)
    with torch.no_grad():
        loss(BATCH)
    for on, wanted in ((False, expected), (True, tuned)):
        one = while_training(model, technique, loss.llama, on)
        found = {}
        for places, answers in answer_many(
            PROMPTS, one.decoders, end_ids=frozenset(), max_new_tokens=[8] * len(PROMPTS), padded=one.padded, at_once=4
        ):
            found |= {place: columns[0] for place, columns in zip(places, answers, strict=True)}
        assert [found[place] for place in range(len(PROMPTS))] == wanted


def greedy(model):
    found = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt], device=model.device)
        asked = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
        with torch.no_grad():
            made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **asked)[0].tolist()
        found.append(made[-8:])
    return found


def test_what_is_added_in_a_way_not_known_here_goes_the_plain_way_and_says_so():
    reasons = {}
    for name, technique in {
        "dropout": LoRA(r=4, use_dora=True, lora_dropout=0.1),
        "dropout behind": BottleneckAdapter(size=8, dropout=0.1),
        "inputs of some": IA3(scaled_modules=("v_proj",), scaled_inputs=("q_proj",)),
        "head": FullFineTuning(),
    }.items():
        model = attached(tiny("llama"), technique)
        if name == "head":
            model.register_parameter("own", torch.nn.Parameter(torch.zeros(3)))
        loss = choose_loss(model, technique, TrainConfig())
        assert isinstance(loss, PlainLoss)
        reasons[name] = loss.why_plain
    assert reasons == {
        "dropout": "dropout of the adapter",
        "dropout behind": "dropout of the adapter",
        "inputs of some": "something before or behind one of several layers that read the same input",
        "head": "own is trained, which is no part known here",
    }
