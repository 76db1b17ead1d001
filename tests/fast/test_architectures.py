"""Decoders of other families than Llama, on the fast path: what the plain path and `generate` of transformers compute,
whichever parts they have; and what the fast path does not know is left to the plain one, with the reason.
"""

from __future__ import annotations

import copy
import random

import pytest
import torch

from tests.architectures import GROUPED, INITIALIZER_RANGE
from tests.fast.test_fast import loss_and_gradients, rows
from tests.helpers import VOCABULARY
from tunelab import LoRA, TrainConfig
from tunelab.answer.generation import padded_left
from tunelab.data.batches import collate
from tunelab.fast import choose_loss
from tunelab.fast.changes import Unsupported
from tunelab.fast.decode import FastDecoder
from tunelab.fast.llama import FastLlama, FastLoss
from tunelab.losses import Objective, PlainLoss

LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0 + 0.1 * n for n in range(8)],
    "long_factor": [2.0 + n for n in range(8)], "factor": 8.0, "original_max_position_embeddings": 28,
}  # fmt: skip
PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
# heads of their own: tied ones, behind embeddings so large, say the last token again whatever attention adds
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 24, "sliding_window": 7, "tie_word_embeddings": False}
# name -> transformers' prefix, and settings beside the tiny sizes; each has what tells its family from Llama
FAMILIES = {
    "llama": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral, window": ("Mistral", {"sliding_window": 9}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2, window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 9, "layer_types": ["full_attention", "sliding_attention"]},
    ),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
    "olmo2": ("Olmo2", {}),
    "phi3": ("Phi3", {}),
    "phi3, partial": ("Phi3", {"rope_parameters": PARTIAL}),
    "phi3, longrope": ("Phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 28}),
    "granite": (
        "Granite",
        {"embedding_multiplier": 12.0, "residual_multiplier": 0.4, "attention_multiplier": 0.2, "logits_scaling": 2.0},
    ),
    "gemma": ("Gemma", {"head_dim": 32}),
    "gemma2": ("Gemma2", GEMMA | {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0}),
    "gemma3": (
        "Gemma3Text",
        GEMMA | {"layer_types": ["sliding_attention", "full_attention"],
                 "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6},
                                     "sliding_attention": {"rope_type": "default", "rope_theta": 1e3}}},
    ),
}  # fmt: skip
every_family = pytest.mark.parametrize("name", FAMILIES)
BATCH = collate(rows(30, 21, 25, common=12), pad_id=2)
PROMPTS = [rows(length, seed=length)[0].input_ids for length in (3, 8, 13, 20)]
NEW_TOKENS = 12


def tiny(name, dtype=torch.float32, seed=0, spread=INITIALIZER_RANGE, **changes):
    """A random model of a family, frozen; wide enough that attention decides what comes next, no norm all ones."""
    import transformers

    kind, settings = FAMILIES[name]
    special = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": None}
    config = getattr(transformers, f"{kind}Config")(**special | GROUPED | settings | changes)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config)
    for parameter in model.parameters():
        with torch.no_grad():
            if parameter.ndim > 1:
                parameter.normal_(0, spread)
            else:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.to(dtype).requires_grad_(False).eval()


def adapted(model, seed=1, **settings):
    """With adapters that are not zero on all of its linear layers."""
    from peft import LoraConfig, get_peft_model

    asked = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | settings
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **asked), autocast_adapter_dtype=False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in trained(tuned):
        parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return tuned


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def factors_of(model):
    """What a decoder needs of an adapted model."""
    return LoRA(r=4, lora_alpha=8).factors_of(model)


def close(ours, theirs, error):
    return float((ours.float() - theirs.float()).norm()) <= error * float(theirs.float().norm())


@every_family
@pytest.mark.parametrize("targets", ["all-linear", "some"])
def test_loss_and_gradients_are_those_of_the_plain_path(name, targets):
    fused = name.startswith("phi3")
    some = ["qkv_proj", "down_proj"] if fused else ["q_proj", "up_proj"]
    model = adapted(tiny(name), target_modules=some if targets == "some" else targets)
    plain, expected = loss_and_gradients(PlainLoss(model), model, BATCH)
    fast, got = loss_and_gradients(FastLoss(model), model, BATCH)
    assert fast == pytest.approx(plain, rel=1e-5)
    for ours, theirs in zip(got, expected, strict=True):
        assert theirs.norm() > 0
        assert close(ours, theirs, 1e-4)


@every_family
def test_as_a_gpu_attends_losses_gradients_and_what_is_kept_are_the_same(name, monkeypatch):
    from tests.train.test_memory import kept_by

    monkeypatch.setattr("tunelab.fast.llama.is_fused", lambda device: True)
    model = adapted(tiny(name))
    plain, expected = loss_and_gradients(PlainLoss(model), model, BATCH)
    loss = FastLoss(model)
    assert loss.attention == "sdpa"
    fast, got = loss_and_gradients(loss, model, BATCH)
    assert fast == pytest.approx(plain, rel=1e-5)
    assert all(close(ours, theirs, 1e-4) for ours, theirs in zip(got, expected, strict=True))
    copies = [t for a in loss.llama.adapters for t in (a.a, a.b)]
    measured = kept_by(lambda: loss.hidden(BATCH), torch.nn.ParameterList(copies))
    assert loss.kept_bytes(BATCH, BATCH.input_ids.device)[0] == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "granite"])
def test_what_regularises_a_step_is_that_of_the_plain_path(name):
    model, training = adapted(tiny(name)), TrainConfig(label_smoothing=0.2, kl_weight=0.5)

    def objective(way):
        made = Objective(way(model), training, lambda: LoRA(r=4).off(model))
        return loss_and_gradients(lambda batch: made(batch)[0], model, BATCH)

    plain, expected = objective(PlainLoss)
    fast, got = objective(FastLoss)
    assert fast == pytest.approx(plain, rel=1e-5)
    assert all(close(ours, theirs, 1e-4) for ours, theirs in zip(got, expected, strict=True))


def twenty_losses(model, loss, rate):
    """The loss per token at each of twenty steps of plain descent, the weights kept in fp32."""
    masters = [parameter.detach().float().clone() for parameter in trained(model)]
    optimizer, found = torch.optim.SGD(masters, lr=rate), []
    batch = BATCH.to(model.device)
    for _ in range(20):
        model.zero_grad()
        nll = loss(batch) / BATCH.scored_tokens
        nll.backward()
        found.append(float(nll))
        for master, parameter in zip(masters, trained(model), strict=True):
            master.grad = parameter.grad.float()
        optimizer.step()
        for master, parameter in zip(masters, trained(model), strict=True):
            parameter.data.copy_(master)
    return torch.tensor(found)


@every_family
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-3)], ids=["fp32", "bf16"])
def test_twenty_steps_learn_the_same(name, dtype, error):
    def losses(way):
        model = adapted(tiny(name, dtype, spread=0.08))  # wider ones would make much of what bf16 rounds away
        return twenty_losses(model, way(model), 0.01)

    plain, fast = losses(PlainLoss), losses(FastLoss)
    assert plain[-1] < plain[0]
    assert float(((fast - plain) / plain).abs().mean()) <= error


decoding = [name for name in FAMILIES if name != "phi3, longrope"]


@pytest.mark.parametrize("name", decoding)
def test_greedy_answers_are_those_of_generate_side_by_side_with_other_adapters_and_lengths(name):
    bare = tiny(name)
    adapters = [None] + [factors_of(adapted(copy.deepcopy(bare), seed=seed)) for seed in (1, 2)]
    expected = [
        [greedy(bare if seed is None else adapted(copy.deepcopy(bare), seed=seed), prompt) for prompt in PROMPTS]
        for seed in (None, 1, 2)
    ]
    assert expected[0] != expected[1] != expected[2]
    prompts = [(prompt, adapter) for adapter in adapters for prompt in PROMPTS]
    assert answers(FastLlama(bare), prompts) == [answer for of_adapter in expected for answer in of_adapter]


@pytest.mark.parametrize("name", ["llama", "qwen2, window", "gemma2", "gemma3"])
def test_a_prompt_that_is_read_in_parts_is_answered_as_one_that_is_not(name, monkeypatch):
    llama, prompts = FastLlama(tiny(name)), [(prompt, None) for prompt in PROMPTS]
    expected, read = answers(llama, prompts), []
    monkeypatch.setattr("tunelab.fast.decode.READ_AT_ONCE", 6)
    blocks = FastDecoder._blocks
    monkeypatch.setattr(
        FastDecoder, "_blocks", lambda self, ids, *rest: read.append(ids.shape[1]) or blocks(self, ids, *rest)
    )
    assert answers(llama, prompts) == expected
    assert read == [6, 6, 6, 2] + [1] * NEW_TOKENS


def greedy(model, prompt):
    ids = torch.tensor([prompt], device=model.device)
    asked = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **asked)[0, len(prompt) :].tolist()


def answers(llama, prompts):
    """Greedy answers in one batch, each prompt padded on the left."""
    longest = max(len(prompt) for prompt, _adapter in prompts)
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt, _adapter in prompts])
    padding = torch.tensor([longest - len(prompt) for prompt, _adapter in prompts])
    decoder = FastDecoder(llama, [adapter for _prompt, adapter in prompts], 16)
    made, logits = [], decoder(ids, padding)
    for _ in range(NEW_TOKENS):
        made.append(logits.argmax(-1))
        logits = decoder(made[-1][:, None])
    return torch.stack(made, 1).tolist()


@pytest.mark.parametrize("name", decoding)
def test_a_tree_of_continuations_has_their_log_probabilities(name):
    from tunelab.fast.tree import Tree

    model, prompt = tiny(name), PROMPTS[2]
    tree = Tree.of([[5, 9, 11, 30], [5, 9, 12], [7]])
    decoder = FastDecoder(FastLlama(model), [None], 40)
    decoder(torch.tensor([prompt]))
    (found,) = tree.sums(decoder.tree_log_p(tree))
    for ours, ids in zip(found, tree.continuations, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        theirs = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum()
        assert float(ours) == pytest.approx(float(theirs), rel=1e-4)


@pytest.mark.parametrize("name", decoding)
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS[:3]], ids=["one", "padded"])
def test_branches_have_the_log_probabilities_of_the_whole_tree_in_whatever_order_rows_ask_for_them(name, prompts):
    from tunelab.fast.branches import Branches
    from tunelab.fast.tree import ROOT, Tree

    llama, draw = FastLlama(tiny(name)), random.Random(0)
    tree = Tree.of([[draw.randrange(3, 8) for _ in range(draw.randrange(1, 7))] for _ in range(12)])
    made = [FastDecoder(llama, [None] * len(prompts), 4) for _ in range(2)]
    for decoder in made:
        decoder(*padded_left(prompts))
    whole, branches = made[0].tree_log_p(tree), Branches(made[1], tree)
    found = torch.full_like(whole, torch.nan)
    found[:, tree.after[ROOT]] = torch.stack(branches.begin())
    open_nodes = [[node for node, parent in enumerate(tree.parents) if parent == ROOT] for _ in prompts]
    while any(open_nodes):
        wanted = [draw.sample(nodes, draw.randint(1, len(nodes)) if nodes else 0) for nodes in open_nodes]
        for row, (nodes, log_p) in enumerate(zip(wanted, branches.follow(wanted), strict=True)):
            found[row, [edge for node in nodes for edge in tree.after[node]]] = log_p
            children = [node for node, parent in enumerate(tree.parents) if parent in nodes]
            open_nodes[row] = [node for node in open_nodes[row] if node not in nodes] + children
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gemma3", "phi3"])
@pytest.mark.parametrize("unpacked", [False, True])
def test_four_bit_weights_train_as_on_the_plain_path_unpacked_or_not(name, unpacked):
    from tunelab import ModelSpec
    from tunelab.model import quantization

    base = tiny(name, hidden_size=128)
    quantization.quantize_linears(base, ModelSpec(repo_id="starter", quantization="nf4"), torch.float32)
    if unpacked:
        quantization.dequantize_linears(base, torch.float32)
    model = adapted(base)
    plain, expected = loss_and_gradients(PlainLoss(model), model, BATCH)
    fast, got = loss_and_gradients(FastLoss(model), model, BATCH)
    assert fast == pytest.approx(plain, rel=1e-5)
    assert all(close(ours, theirs, 1e-4) for ours, theirs in zip(got, expected, strict=True))


@every_family
def test_what_the_forward_keeps_is_what_its_formula_says(name):
    from tests.train.test_memory import kept_by

    model = adapted(tiny(name))
    loss = FastLoss(model)
    copies = [t for a in loss.llama.adapters for t in (a.a, a.b)]
    measured = kept_by(lambda: loss.hidden(BATCH), torch.nn.ParameterList(copies))
    # besides: the angles of rotations, kept once for all layers, and the last norm
    assert loss.kept_bytes(BATCH, torch.device("cpu"))[0] == pytest.approx(measured, rel=0.1)


def places(model):
    """Where each parameter lies, and whether something lies beside it."""
    return {name: (p.data_ptr(), p.untyped_storage().nbytes() > p.nbytes) for name, p in model.named_parameters()}


@every_family
def test_weights_stay_where_they_are_until_they_are_joined_and_come_back_from_there(name):
    model = adapted(tiny(name))
    before, lay = copy.deepcopy(model.state_dict()), places(model)
    llama = FastLlama(model)
    FastDecoder(llama, [None], 8)(torch.tensor([PROMPTS[0]]))
    assert places(model) == lay
    llama.join()
    assert any(shared for _place, shared in places(model).values())
    llama.release()
    assert not any(shared for _place, shared in places(model).values())
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_was_joined_anew_is_not_taken_apart():
    model = tiny("qwen3")
    first, second = FastLlama(model).join(), FastLlama(model).join()
    joined = places(model)
    first.release()
    assert places(model) == joined
    ids = torch.tensor([PROMPTS[0]])
    assert close(FastDecoder(second, [None], 8)(ids), model(ids).logits[:, -1], 1e-4)


@pytest.mark.parametrize("name", ["llama", "olmo2", "phi3"])
def test_a_loss_computes_the_same_joined_or_not(name):
    model = adapted(tiny(name))
    loss = FastLoss(model)
    joined, expected = loss_and_gradients(loss, model, BATCH)
    loss.release()
    apart, got = loss_and_gradients(loss, model, BATCH)
    assert apart == pytest.approx(joined, rel=1e-6)
    assert all(close(ours, theirs, 1e-5) for ours, theirs in zip(got, expected, strict=True))


def test_reading_a_model_changes_nothing_also_where_it_is_refused():
    model = tiny("qwen3")
    model.model.layers[1].self_attn.is_causal = False
    before = places(model)
    with pytest.raises(Unsupported, match="see what comes after"):
        FastLlama(model)
    assert places(model) == before


@pytest.mark.parametrize(("name", "batched"), [("qwen3", True), ("phi3, longrope", False)])
def test_rotations_that_change_with_the_longest_row_are_answered_by_generate(name, batched, tmp_path):
    from tests.helpers import byte_tokenizer
    from tunelab import ModelSpec, load
    from tunelab.answer.decoders import Resident

    tiny(name).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    base = load(ModelSpec(repo_id=str(tmp_path), dtype="float32"))
    assert Resident(base).split([None]) == (([0], []) if batched else ([], [0]))
    assert isinstance(choose_loss(adapted(base.model), LoRA()), FastLoss)
