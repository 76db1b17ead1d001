"""One prompt answered with more and less of an adapter."""

from __future__ import annotations

import pytest
import torch

from tests.architectures import tiny_model
from tests.techniques.test_invariants import config
from tunelab import (
    IA3,
    BottleneckAdapter,
    Comparer,
    FullFineTuning,
    LoRA,
    PrefixTuning,
    PromptTuning,
    Run,
    UserError,
    finetune,
    load,
)
from tunelab.measure.changes.strength import STRENGTHS, answers_at_strengths

LORAS = {
    "lora": LoRA(r=4),
    "rslora": LoRA(r=4, use_rslora=True),
    "pissa": LoRA(r=4, initialisation="pissa"),
    "lora on one layer": LoRA(r=4, layers=(1,)),
}
PROMPT, LENGTH = "say red", 12


@torch.no_grad()
def greedy(run, strength):
    """The plain model's own answer, B multiplied by hand."""
    base = load(run.base_spec)
    model = run.config.technique.load(base, run.adapter_path).eval()
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data *= strength
    ids = base.tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    made = []
    while len(made) < LENGTH:
        token = int(model(input_ids=torch.tensor([ids + made])).logits[0, -1].argmax())
        if token == base.tokenizer.eos_token_id:
            break
        made.append(token)
    return base.tokenizer.decode(made, skip_special_tokens=True).rstrip("\ufffd")


@pytest.fixture(scope="module", params=[*LORAS, "gpt2"])
def run(request, tiny, tmp_path_factory):
    """Models that are answered together, and one that is answered by its own forward."""
    root = tmp_path_factory.mktemp("runs")
    model = tiny_model("gpt2", tmp_path_factory.mktemp("gpt2")) if request.param == "gpt2" else tiny
    return finetune(config(model, LORAS.get(request.param, LoRA(r=4)), steps=8), root=root)


def test_at_0_it_is_the_bases_answer_and_at_1_the_tuned_models(run):
    found = answers_at_strengths(run, PROMPT, max_new_tokens=LENGTH)
    assert tuple(one.strength for one in found.answers) == STRENGTHS
    answers = {one.strength: one.answer for one in found.answers}
    with Comparer(run.root) as comparer:
        base, tuned = list(comparer.stream([run], PROMPT, max_new_tokens=LENGTH))[-1].answers
    assert base.text != tuned.text
    assert (answers[0], answers[1]) == (base.text, tuned.text)


def test_between_and_beyond_it_is_the_adapters_change_multiplied(run):
    found = answers_at_strengths(run, PROMPT, (1.5, 0.5), max_new_tokens=LENGTH)
    assert [one.answer for one in found.answers] == [greedy(run, 1.5), greedy(run, 0.5)]


@pytest.mark.parametrize(
    ("technique", "reason"),
    [
        (LoRA(r=4, use_dora=True), "DoRA has no strength: it also trains the length of each weight row"),
        (IA3(), "IA³ has no strength: it multiplies channels"),
        (FullFineTuning(), "Full fine-tuning has no strength: its result is a model of its own"),
        (PrefixTuning(num_virtual_tokens=6), "Prefix tuning has no strength: its virtual tokens stand before the text"),
        (PromptTuning(num_virtual_tokens=6), "Prompt tuning has no strength: its virtual tokens stand before the text"),
        (BottleneckAdapter(size=8), "Bottleneck adapter has no strength: nothing in its result says how much"),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else "",
)
def test_techniques_without_a_strength_say_why(technique, reason):
    with pytest.raises(UserError, match=reason):
        technique.at_strength(0.5)


def test_an_adapter_that_adds_zero_says_so(tiny):
    run = finetune(config(tiny, LoRA(r=4), steps=1, learning_rate=1e-60))
    found = answers_at_strengths(run, PROMPT, (0.0, 1.5), max_new_tokens=4)
    assert found.answers[0].answer == found.answers[1].answer
    assert found.notes == ("The adapter adds zero, so every strength answers as the base. Train it for more steps.",)


def test_settings_out_of_range_are_refused(tiny):
    run = Run.create(config(tiny, LoRA(r=4)))
    with pytest.raises(UserError, match=r"strength = 2: allowed are 0 \(the base\) to 1.5"):
        answers_at_strengths(run, PROMPT, (0.5, 2.0))
    with pytest.raises(UserError, match="strength = nan"):
        answers_at_strengths(run, PROMPT, (float("nan"),))
    with pytest.raises(UserError, match="The prompt is empty"):
        answers_at_strengths(run, " ")
    with pytest.raises(UserError, match="0 strengths: give 1 to 16"):
        answers_at_strengths(run, PROMPT, ())
    with pytest.raises(UserError, match="max_new_tokens = 0"):
        answers_at_strengths(run, PROMPT, max_new_tokens=0)
    with pytest.raises(UserError, match="has no adapter yet"):
        answers_at_strengths(run, PROMPT)
