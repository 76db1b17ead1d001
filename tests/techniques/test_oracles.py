"""Each technique against an independent oracle: PEFT's own, a formula written out, or the base with text before it."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional

from tests.techniques.test_invariants import batch_of, config, logits_of, rows_of, spec_of, trained
from tunelab import (
    IA3,
    BottleneckAdapter,
    FullFineTuning,
    LoRA,
    PrefixTuning,
    PromptTuning,
    TrainConfig,
    UserError,
    explain,
    finetune,
    load,
)
from tunelab.data.encode import tokens
from tunelab.fast import choose_loss
from tunelab.losses import PlainLoss, scored_logits
from tunelab.techniques.initialisation import input_directions
from tunelab.train.loop import StageData, Trainer

TEXT = "colours are red, green and blue"


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_starts_from_the_weights_learn_what_pefts_do_and_leave_the_base_alone(tiny, kind):
    import peft
    from transformers import AutoModelForCausalLM

    base = load(spec_of(tiny))
    rows = rows_of(base)
    training = TrainConfig(steps=6, batch_size=4, warmup_steps=0, schedule="constant", max_grad_norm=1e9)

    def losses(model, loss):
        events = Trainer(model, loss, StageData(rows, []), training, 1e-2, pad_id=2).train()
        return [event.loss for event in events if event.event == "StepDone"]

    technique = LoRA(r=4, initialisation=kind)
    model = technique.attach(base)
    ours = losses(model, choose_loss(model, technique))
    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    theirs_model = peft.get_peft_model(
        plain, peft.LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", init_lora_weights=kind)
    )
    theirs = losses(theirs_model, PlainLoss(theirs_model))
    assert ours == pytest.approx(theirs, rel=2e-3)
    assert ours[-1] < ours[0]


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_such_a_start_is_refused_on_a_quantised_base_and_together_with_dora(tiny, kind):
    with pytest.raises(ValueError, match="the base would no longer be the base") as caught:
        config(tiny, LoRA(r=4, initialisation=kind), "nf4")
    assert "Choose quantization 'none'" in explain(caught.value)
    with pytest.raises(ValueError, match="exclude each other"):
        LoRA(initialisation=kind, use_dora=True)


def test_eva_starts_at_the_right_singular_vectors_of_the_inputs(tiny):
    base = load(spec_of(tiny))
    rows = rows_of(base)
    name = "model.layers.0.mlp.down_proj"
    seen = []
    hook = base.model.get_submodule(name).register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        for row in rows:
            base.model(input_ids=torch.tensor([row.input_ids]).to(base.device))
    hook.remove()
    _u, _s, v = torch.linalg.svd(torch.cat(seen), full_matrices=False)
    directions = input_directions(base, [name], rows)[name]
    assert torch.allclose((directions[:4] * v[:4]).sum(-1).abs(), torch.ones(4).to(base.device), atol=1e-3)
    model = LoRA(r=4, initialisation="eva").attach(base, rows)
    assert torch.equal(model.get_base_model().get_submodule(name).lora_A["default"].weight, directions[:4])
    with pytest.raises(UserError, match="looks at training rows"):
        LoRA(initialisation="eva").attach(load(spec_of(tiny)))


def test_a_prefix_starts_as_the_base_with_that_text_before(tiny):
    base = load(spec_of(tiny))
    ids = tokens(base.tokenizer, TEXT)
    batch = batch_of(rows_of(base)[:1])
    with torch.no_grad():
        whole = base.model(input_ids=torch.cat((torch.tensor([ids]), batch.input_ids), 1)).logits[0, len(ids) :]
    expected = whole[:-1][batch.scored[0, 1:]]
    for technique in (
        PrefixTuning(num_virtual_tokens=len(ids), init_text=TEXT),
        PromptTuning(num_virtual_tokens=len(ids), init_text=TEXT),
    ):
        got = logits_of(technique.attach(load(spec_of(tiny))), technique, batch)
        assert torch.allclose(got, expected, atol=1e-4 * float(expected.abs().max())), technique.kind


def test_without_a_text_virtual_tokens_start_from_the_training_rows(tiny):
    base = load(spec_of(tiny))
    rows = rows_of(base)
    model = PromptTuning(num_virtual_tokens=5).attach(base, rows)
    start = model.prompt_encoder["default"].embedding.weight
    embeddings = base.model.get_input_embeddings().weight
    shared = next(i for i in range(99) if len({row.input_ids[i] for row in rows}) > 1)
    assert torch.equal(start, embeddings[rows[0].input_ids[shared : shared + 5]])
    with pytest.raises(UserError, match="neither init_text nor training rows"):
        PrefixTuning().attach(load(spec_of(tiny)))


def test_a_bottleneck_computes_its_formula_behind_attention_and_mlp(tiny):
    base = load(spec_of(tiny))
    model = BottleneckAdapter(size=8).attach(base)
    for place in ("self_attn.o_proj", "mlp.down_proj"):
        wrapper = model.model.layers[1].get_submodule(place)
        down, up = wrapper.adapter["down"], wrapper.adapter["up"]
        torch.nn.init.normal_(up.weight)
        x = torch.randn(3, wrapper.layer.in_features).to(base.device)
        y = x @ wrapper.layer.weight.T
        expected = y + torch.relu(y @ down.weight.T + down.bias) @ up.weight.T + up.bias
        assert torch.allclose(wrapper(x), expected, atol=1e-4)
    count = 2 * 2 * (64 * 8 + 8 + 8 * 64 + 64)  # layers, places, two matrices with their biases
    assert BottleneckAdapter(size=8).trainable_parameters(model) == count
    pfeiffer = BottleneckAdapter(size=8, placement="pfeiffer").attach(load(spec_of(tiny)))
    assert BottleneckAdapter(size=8).trainable_parameters(pfeiffer) == count // 2


def test_ia3_multiplies_keys_values_and_the_input_of_the_last_layer(tiny):
    base = load(spec_of(tiny))
    model = IA3().attach(base)
    layer = model.get_base_model().model.layers[0]
    for projection, feedforward in ((layer.self_attn.k_proj, False), (layer.mlp.down_proj, True)):
        factors = projection.ia3_l["default"]
        torch.nn.init.normal_(factors)
        weight = projection.get_base_layer().weight
        x = torch.randn(3, weight.shape[1])
        scale = factors.flatten()
        expected = (x * scale) @ weight.T if feedforward else (x @ weight.T) * scale
        assert torch.allclose(projection(x), expected, atol=1e-4)


def test_full_fine_tuning_equals_plain_adamw_on_every_weight(tiny):
    from transformers import AutoModelForCausalLM

    base = load(spec_of(tiny))
    rows = rows_of(base)
    tuned = trained(FullFineTuning(), base, rows, steps=3, rate=1e-3)
    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    decayed = [p for p in plain.parameters() if p.ndim >= 2]
    others = [p for p in plain.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": others}], lr=1e-3, weight_decay=0.0)
    from tunelab.data.batches import BatchOrder, collate

    order = BatchOrder([len(r.input_ids) for r in rows], 4, 0)
    for step in range(3):
        batch = collate([rows[row] for row in order.step(step)], 2)
        logits, targets = scored_logits(plain, batch)
        functional.cross_entropy(logits, targets).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    # AdamW moves a weight by its rate whatever the size of its gradient, so also by a gradient that is rounding alone
    expected = dict(plain.named_parameters())
    for name, weight in tuned.named_parameters():
        off = (weight.cpu() - expected[name]).abs()
        assert (off > 1e-5).float().mean() < 0.001, name


@pytest.mark.parametrize(
    ("technique", "message"),
    [
        (LoRA(r=100), "r = 100 is above the size of model.layers.0.self_attn.q_proj (64 × 64)"),
        (LoRA(target_modules=("query", "value")), "target_modules = query, value: this model has no such linear"),
        (LoRA(target_modules="query"), "It has down_proj, gate_proj, k_proj"),
        (LoRA(r=4, layers=(1, 2)), "layers = 2: this model has the layers 0 to 1"),
        (FullFineTuning(layers=7), "layers = 7: this model has the layers 0 to 1"),
        (IA3(scaled_modules=("key",)), "key: this model has no such linear layers. It has down_proj"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_named_with_what_does(tiny, technique, message):
    with pytest.raises(UserError) as caught:
        finetune(config(tiny, technique))
    assert message in str(caught.value)


def test_a_quantised_base_is_not_trained_whole_and_says_why(tiny):
    with pytest.raises(ValueError, match="can't train a base quantised to nf4") as caught:
        config(tiny, FullFineTuning(), "nf4")
    assert "or LoRA (that is QLoRA)" in explain(caught.value)


def test_dora_in_a_mixed_batch_is_refused(tiny):
    run = finetune(config(tiny, LoRA(r=4, use_dora=True), steps=1))
    with pytest.raises(UserError, match="DoRA can't stand in one batch"):
        run.config.technique.factors(run.adapter_path)


@pytest.mark.parametrize(
    "technique",
    [LoRA(r=4), LoRA(r=4, initialisation="pissa"), IA3(), BottleneckAdapter(size=8)],
    ids=["lora", "pissa", "ia3", "bottleneck"],
)
def test_one_that_changes_nothing_is_found_out(tiny, tmp_path, technique):
    base = load(spec_of(tiny))
    rows = rows_of(base)
    technique.save(technique.attach(base, rows), tmp_path, base)
    assert technique.changes_nothing(tmp_path)
    other = load(spec_of(tiny))
    technique.save(trained(technique, other, rows), tmp_path, other)
    assert not technique.changes_nothing(tmp_path)


@pytest.mark.parametrize("technique", [PrefixTuning(num_virtual_tokens=4), IA3(), LoRA(r=4, initialisation="pissa"),
                                       PromptTuning(num_virtual_tokens=4)], ids=lambda t: t.kind)  # fmt: skip
def test_what_peft_has_loads_with_plain_peft(tiny, tmp_path, technique):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = load(spec_of(tiny))
    rows = rows_of(base)
    model = trained(technique, base, rows)
    technique.save(model, tmp_path, base)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == base.published_name
    plain = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(plain, tmp_path).eval()
    batch = batch_of(rows)
    with torch.no_grad():
        expected = scored_logits(theirs, batch)[0]
    assert torch.allclose(logits_of(model, technique, batch), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "field"),
    [(LoRA, "layers"), (LoRA, "target_modules"), (FullFineTuning, "layers"), (IA3, "scaled_modules")],
)
def test_nothing_to_train_is_refused(kind, field):
    with pytest.raises(ValueError, match=field):
        kind(**{field: ()})


@pytest.mark.parametrize("technique", [FullFineTuning(), BottleneckAdapter(size=8), LoRA(r=4)], ids=lambda t: t.kind)
def test_off_within_off_is_off(tiny, technique):
    base, fresh = load(spec_of(tiny)), load(spec_of(tiny))
    rows = rows_of(base)
    model = trained(technique, base, rows)
    batch = batch_of(rows)
    expected, tuned = logits_of(fresh.model, technique, batch), logits_of(model, technique, batch)
    with technique.off(model):
        with technique.off(model):
            assert torch.equal(logits_of(model, technique, batch), expected)
        if technique.kind != "lora":  # PEFT's own switch does not nest
            assert torch.equal(logits_of(model, technique, batch), expected)
    assert torch.equal(logits_of(model, technique, batch), tuned)
