"""Techniques on many architectures: where they stand in each, that they start as the base, learn, come off again, and
are what PEFT and a merge make of them; or the one reason why not."""

from __future__ import annotations

import pytest
import torch

from tests.architectures import SETTINGS, config_of, tiny_model
from tests.helpers import byte_tokenizer
from tunelab import IA3, BottleneckAdapter, FullFineTuning, LoRA, ModelSpec, UserError, load
from tunelab.data.batches import collate
from tunelab.data.encode import Encoded
from tunelab.fast import choose_loss
from tunelab.model.load import Base
from tunelab.techniques import places
from tunelab.techniques.base import PeftTechnique
from tunelab.train.checkpoints import trained_parameters

pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
IDS = torch.tensor([[50, 60, 70, 80, 90, 55, 65]])
ROWS = [Encoded(ids, [False] + [True] * (len(ids) - 1)) for ids in ([50, 60, 70, 80, 90], [51, 61, 75])]


def empty(name, **changes) -> Base:
    """A base without weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(name, **changes))
    return Base(ModelSpec(repo_id=name), model, byte_tokenizer(), torch.float32, torch.device("cpu"), "", name, "")


# what makes keys and values, what ends attention, what ends the MLP; the names inside the second decoder layer
PLACES = {
    "llama": (["self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"], ["mlp.down_proj"]),
    "gemma3": (["self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"], ["mlp.down_proj"]),
    "phi3": (["self_attn.qkv_proj"], ["self_attn.o_proj"], ["mlp.down_proj"]),
    "olmo2": (["self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"], ["mlp.down_proj"]),
    "gpt2": (["attn.c_attn"], ["attn.c_proj"], ["mlp.c_proj"]),
    "gpt_bigcode": (["attn.c_attn"], ["attn.c_proj"], ["mlp.c_proj"]),
    "gptj": (["attn.k_proj", "attn.v_proj"], ["attn.out_proj"], ["mlp.fc_out"]),
    "opt": (["self_attn.k_proj", "self_attn.v_proj"], ["self_attn.out_proj"], ["fc2"]),
    "falcon": (["self_attention.query_key_value"], ["self_attention.dense"], ["mlp.dense_4h_to_h"]),
    "bloom": (["self_attention.query_key_value"], ["self_attention.dense"], ["mlp.dense_4h_to_h"]),
    "gpt_neox": (["attention.query_key_value"], ["attention.dense"], ["mlp.dense_4h_to_h"]),
    "mpt": (["attn.Wqkv"], ["attn.out_proj"], ["ffn.down_proj"]),
    "mixtral": (["self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"], []),
    "qwen2_moe": (["self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"], ["mlp.shared_expert.down_proj"]),
    "lfm2": (["self_attn.k_proj", "self_attn.v_proj"], ["self_attn.out_proj"], ["feed_forward.w2"]),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_places_of_an_architecture_are_found(name):
    model = empty(name).model
    every = places.linear_layers(model)
    found = []
    for which in (places.makers_of_keys_and_values, places.attention_ends, places.mlp_ends):
        second = [layer for layer in which(every) if places.block_of(layer) == 1]
        found.append(sorted(layer.partition(".1.")[2] for layer in second))
    assert tuple(found) == PLACES[name]


def test_adapters_stand_behind_a_mixture_and_not_behind_one_of_its_experts():
    base = empty("qwen2_moe")
    ends = BottleneckAdapter()._places(base)
    assert ends == {
        f"model.layers.{n}.{part}": 64 for part in ("self_attn.o_proj", "mlp") for n in range(2)
    }  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder_of(name):
        if name not in made:
            made[name] = tiny_model(name, tmp_path_factory.mktemp(name))
        return made[name]

    return folder_of


def spec_of(folder, **more):
    return ModelSpec(repo_id=folder, dtype="float32", **more)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS.to(model.device)).logits


def close(ours, theirs, tolerance=1e-5):
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


def trained(technique, base):
    """The technique on the base, after a few steps."""
    torch.manual_seed(0)
    model = technique.attach(base, ROWS)
    parameters = trained_parameters(model)
    loss, optimizer = choose_loss(model.train(), technique), torch.optim.Adam(parameters.values(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        loss(collate(ROWS, 0)).backward()
        assert not [name for name, p in parameters.items() if p.grad is None]
        optimizer.step()
    return model


TECHNIQUES = {
    "lora": LoRA(r=4),
    "dora": LoRA(r=4, use_dora=True),
    "pissa": LoRA(r=4, initialisation="pissa"),
    "olora": LoRA(r=4, initialisation="olora"),
    "eva": LoRA(r=4, initialisation="eva"),
    "one layer": LoRA(r=4, layers=(1,)),
    "ia3": IA3(),
    "bottleneck": BottleneckAdapter(size=8),
    "full": FullFineTuning(layers=(1,)),
}
CASES = [("gpt2", technique) for technique in TECHNIQUES] + [
    (name, technique)
    for name in ("opt", "falcon", "bloom", "gpt_neox", "phi3", "mixtral", "qwen2_moe", "deepseek_v3", "mamba")
    for technique in ("lora", "ia3", "bottleneck")
    if name != "mamba" or technique == "lora"
]


@pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{name} {kind}" for name, kind in CASES])
def test_it_starts_as_the_base_learns_comes_off_and_is_what_peft_and_a_merge_make_of_it(folders, tmp_path, name, kind):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    technique, folder = TECHNIQUES[kind], folders(name)
    expected = logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    start = technique.attach(load(spec_of(folder)), ROWS)
    assert close(logits(start), expected)
    base = load(spec_of(folder))
    model = trained(technique, base)
    tuned = logits(model)
    assert not close(tuned, expected, 1e-3)
    with technique.off(model):
        assert close(logits(model), expected, 1e-6)
    technique.save(model, tmp_path, base)
    again = technique.load(load(spec_of(folder)), tmp_path)
    assert torch.equal(logits(again), tuned)
    if isinstance(technique, PeftTechnique):
        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tmp_path)
        assert close(logits(theirs), tuned)
        assert close(logits(again.merge_and_unload(safe_merge=True)), tuned)


@pytest.mark.parametrize("kind", ["lora", "ia3", "bottleneck"])
def test_gpt2_is_adapted_in_four_bits_too(folders, kind):
    spec = spec_of(folders("gpt2"), quantization="nf4", keep_dequantized=False)
    expected = logits(load(spec).model)
    model = trained(TECHNIQUES[kind], load(spec))
    assert not close(logits(model), expected, 1e-3)
    with TECHNIQUES[kind].off(model):
        assert close(logits(model), expected, 1e-6)


@pytest.mark.parametrize("name", ["bloom", "gpt2", "opt", "gpt_neox"])
def test_an_adapter_stands_before_the_residual_is_added(folders, name):
    """An adapter that gives the same vector for every input is the same as that vector on the bias of its layer."""
    base, other = load(spec_of(folders(name))), load(spec_of(folders(name)))
    technique = BottleneckAdapter(size=8)
    model = technique.attach(base)
    for place in technique._places(other):
        vector = torch.randn(64).to(base.device)
        base.model.get_submodule(place).adapter["up"].bias.data = vector
        other.model.get_submodule(place).bias.data += vector
    assert close(logits(model), logits(other.model))


def test_layers_narrower_than_r_are_left_out_and_told_of_and_named_they_are_refused(folders):
    base = load(spec_of(folders("qwen2_moe")))
    narrow, experts = LoRA(r=4).notes(base)[::-1]
    assert narrow == "2 layers narrower than r = 4 are not adapted: shared_expert_gate (1 × 64)"
    assert experts.startswith("the experts (down_proj, gate_up_proj, in 2 layers) are no linear layers in this model")
    adapted = {name.partition(".lora_")[0] for name in trained_parameters(LoRA(r=4).attach(base))}
    assert len(adapted) == 2 * 7
    assert not any("shared_expert_gate" in name for name in adapted)
    named = LoRA(r=4, target_modules=("shared_expert_gate",))
    assert not named.notes(base)
    with pytest.raises(UserError, match=r"r = 4 is above the size of .*shared_expert_gate \(1 × 64\).*Choose r ≤ 1"):
        named.attach(load(spec_of(folders("qwen2_moe"))))


def test_notes_on_what_is_left_out_reach_the_run(folders):
    from tests.train.test_loop import config
    from tunelab import finetune

    settings = config(folders("qwen2_moe"))
    run = finetune(settings.model_copy(update={"technique": LoRA(r=4)}))
    assert set(LoRA(r=4).notes(empty("qwen2_moe"))) <= set(run.progress().started.notes)
    run = finetune(config(folders("gpt2")).model_copy(update={"technique": IA3()}))
    told = "IA³: c_attn makes queries, keys and values in one, so the queries are scaled as well"
    assert told in run.progress().started.notes


def test_layers_can_be_named_by_their_last_two_parts(folders):
    base = load(spec_of(folders("gpt2")))
    adapted = trained_parameters(LoRA(r=4, target_modules=("mlp.c_proj",)).attach(base))
    assert {name.split(".lora_")[0].split(".h.")[1] for name in adapted} == {"0.mlp.c_proj", "1.mlp.c_proj"}


def test_what_ia3_scales_can_still_be_named_as_before(folders):
    named = IA3(scaled_modules=("k_proj", "v_proj"), scaled_inputs=("down_proj",))
    one, two = (named.attach(empty("llama")), IA3().attach(empty("llama")))
    assert trained_parameters(one).keys() == trained_parameters(two).keys()
    assert IA3.model_validate(named.model_dump()) == named


@pytest.mark.parametrize(
    ("name", "left_out", "reason"),
    [
        ("deepseek_v3", {"gate_proj", "up_proj", "down_proj"}, "PEFT takes their names for the experts'"),
        ("mamba", {"dt_proj"}, "Mamba reads their weights past the layers"),
        ("mamba", {"out_proj"}, "PEFT refuses them"),
    ],
)
def test_layers_that_lora_would_miss_are_left_out_and_told_of_and_named_they_are_refused(name, left_out, reason):
    base = empty(name)
    assert any(f"not adapted ({', '.join(sorted(left_out))}): {reason}" in note for note in LoRA(r=2).notes(base))
    adapted = {name.split(".lora_")[0] for name in trained_parameters(LoRA(r=2).attach(base))}
    assert adapted
    assert not {places.last_name(layer) for layer in adapted} & left_out
    for target in left_out:
        with pytest.raises(UserError, match=f"{target}: LoRA can't adapt these layers.*{reason}. Choose from") as error:
            LoRA(r=2, target_modules=(target,)).attach(empty(name))
        offered = tuple(str(error.value).rpartition("Choose from ")[2].rstrip(".").split(", "))
        assert trained_parameters(LoRA(r=2, target_modules=offered).attach(empty(name)))


def places_or_refusal(technique, name):
    """What the technique trains on an architecture, or its refusal."""
    try:
        return trained_parameters(technique.attach(empty(name)))
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("technique", [IA3(), BottleneckAdapter()], ids=lambda technique: technique.kind)
def test_where_a_technique_has_no_place_the_advice_is_one_that_works(technique):
    refused = {}
    for name in SETTINGS:
        made = places_or_refusal(technique, name)
        assert made
        if isinstance(made, str):
            refused[name] = made
    assert refused.keys() == {"mamba"}
    for name, message in refused.items():
        assert message.endswith("hoose LoRA.")
        assert len(message) <= 400
        assert trained_parameters(LoRA().attach(empty(name)))
