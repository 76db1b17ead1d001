"""Base and tuned: the base column is the base, the tuned one the adapter, and both equal transformers' own answers."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.helpers import ROWS, tiny_llama
from tests.train.test_loop import config
from tunelab import Comparer, DataSpec, LoRA, ModelSpec, Run, UserError, compare, finetune, load, read_data
from tunelab.answer.generation import PlainDecoder, decode, end_ids
from tunelab.data import Message, encode_prompt
from tunelab.fast.decode import FastDecoder
from tunelab.fast.llama import FastLlama
from tunelab.model.load import find

PROMPT = "say something"


@pytest.fixture
def run(tiny):
    return finetune(config(tiny))


def prompt_ids(base, text=PROMPT):
    return encode_prompt([Message("user", text)], base.tokenizer)


def transformers_answer(model, ids, count):
    out = model.generate(torch.tensor([ids]).to(model.device), max_new_tokens=count, do_sample=False, pad_token_id=2)
    return out[0, len(ids) :].tolist()


def transformers_answers(model, prompts, count):
    """Those of several prompts at once, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[2] * (longest - len(one)) + one for one in prompts])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
    out = model.generate(ids, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=2)
    return out[:, longest:].tolist()


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_base_row_beside_a_tuned_row_has_the_logits_of_a_freshly_loaded_base(tiny, quantization):
    spec = ModelSpec(repo_id=tiny, dtype="float32", quantization=quantization)
    run = finetune(config(tiny).model_copy(update={"model": spec}))
    base, fresh = load(spec), load(spec)
    ids = torch.tensor([prompt_ids(base)])
    adapter = run.config.technique.factors(run.adapter_path)
    pair = FastDecoder(FastLlama(base.model), [None, adapter], 200)(ids.repeat(2, 1))
    both_bare = FastDecoder(FastLlama(fresh.model), [None, None], 200)(ids.repeat(2, 1))
    assert torch.equal(pair[0], both_bare[0])
    with torch.no_grad():
        expected = fresh.model(ids.to(fresh.device)).logits[0, -1]
    assert torch.allclose(pair[0], expected, rtol=1e-5, atol=1e-5 * expected.abs().max())
    assert (pair[1] - pair[0]).abs().max() > 1e-3 * expected.abs().max()


def test_tuned_row_has_the_logits_of_peft_with_the_saved_adapter(run):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = load(run.config.model)
    ids = torch.tensor([prompt_ids(base)])
    adapter = run.config.technique.factors(run.adapter_path)
    ours = FastDecoder(FastLlama(base.model), [None, adapter], 200)(ids.repeat(2, 1))[1].cpu()
    plain = AutoModelForCausalLM.from_pretrained(run.config.model.repo_id, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(plain, run.adapter_path).eval()
    with torch.no_grad():
        expected = theirs(ids).logits[0, -1]
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())


def test_greedy_tokens_equal_those_of_transformers_generate(run):
    base = load(run.config.model)
    adapter = run.config.technique.factors(run.adapter_path)
    llama = FastLlama(base.model)
    prompts = [prompt_ids(base, f"{row['prompt']}, please, {n}") for n, row in enumerate(ROWS * 4)][:50]
    tuned_model = LoRA(r=4).load(load(run.config.model), run.adapter_path).eval()
    fresh = load(run.config.model).model
    for ids in prompts:
        decoder = FastDecoder(llama, [None, adapter], len(ids) + 12)
        columns = list(zip(*decode([decoder], [ids], end_ids=frozenset({2}), max_new_tokens=12), strict=True))
        ours = [[t for t in column if t is not None] for column in columns]
        assert ours == [transformers_answer(fresh, ids, 12), transformers_answer(tuned_model, ids, 12)]


def test_greedy_tokens_of_the_starter_equal_those_of_transformers_generate_on_fifty_prompts(starter):
    base = load(ModelSpec(repo_id=starter, dtype="float32"))
    rows = read_data(DataSpec(source="python-docs", heldout=50)).heldout
    prompts = sorted((encode_prompt(row.asked, base.tokenizer) for row in rows), key=len)
    theirs = AutoModelForCausalLM.from_pretrained(find(base.spec), dtype=torch.float32, local_files_only=True)
    llama, ends = FastLlama(base.model), end_ids(base.tokenizer, base.model)
    assert len(prompts) == 50
    for start in range(0, 50, 10):
        some = prompts[start : start + 10]
        for ids, expected in zip(some, transformers_answers(theirs, some, 8), strict=True):
            decoder = FastDecoder(llama, [None], len(ids) + 8)
            ours = [token for (token,) in decode([decoder], [ids], end_ids=ends, max_new_tokens=8)]
            assert ours == expected[: len(ours)]
            assert len(ours) == 8 or ours[-1] in ends


def test_plain_decoders_in_turns_equal_the_fast_pair(run):
    base, other = load(run.config.model), load(run.config.model)
    technique = run.config.technique
    model = technique.load(other, run.adapter_path).eval()
    from contextlib import nullcontext

    turns = [PlainDecoder(model, lambda: technique.off(model)), PlainDecoder(model, nullcontext)]
    pair = [FastDecoder(FastLlama(base.model), [None, technique.factors(run.adapter_path)], 200)]
    ids = prompt_ids(base)
    one, two = (list(decode(d, [ids], end_ids=frozenset({2}), max_new_tokens=20)) for d in (turns, pair))
    assert one == two


def test_two_rows_with_the_same_adapter_sample_the_same_tokens(run):
    base = load(run.config.model)
    adapter = run.config.technique.factors(run.adapter_path)
    options = {"end_ids": frozenset({2}), "max_new_tokens": 20, "temperature": 1.0}
    ids = prompt_ids(base)

    def sampled(seed):
        return list(decode([FastDecoder(FastLlama(base.model), [adapter] * 2, 300)], [ids], seed=seed, **options))

    assert all(a == b for a, b in sampled(0))
    assert sampled(0) == sampled(0)
    assert sampled(0) != sampled(1)


def test_sampled_tokens_have_the_probabilities_of_the_softmax():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])

    class Constant:
        rows = 1

        def __call__(self, ids, padding=None):
            return logits

    steps = decode([Constant()], [[0]], end_ids=frozenset(), max_new_tokens=4000, temperature=0.7, seed=5)
    counts = torch.bincount(torch.tensor([t for (t,) in steps]), minlength=4) / 4000
    assert torch.allclose(counts, (logits[0] / 0.7).softmax(-1), atol=0.03)


def test_a_comparison_streams_and_every_answer_says_where_it_comes_from(run):
    with Comparer() as comparer:
        updates = list(comparer.stream([run], PROMPT, max_new_tokens=10))
    *_, last = updates
    assert len(updates) > 5
    assert last.done
    base, tuned = last.answers
    assert base.label == "base"
    assert "adapter off" in base.provenance.text
    assert run.id in tuned.provenance.text
    assert base.provenance.base_sha256 == run.progress().started.base_sha256
    assert replace(base.provenance, adapter=run.id) == tuned.provenance
    assert {a.stop_reason for a in last.answers} <= {"length", "end of turn"}


def test_training_and_comparing_in_turns_leave_both_as_they_were(tiny, run):
    before = compare(run, PROMPT, max_new_tokens=10).answers
    finetune(config(tiny, seed=9))
    assert [a.text for a in compare(run, PROMPT, max_new_tokens=10).answers] == [a.text for a in before]


def test_cancelling_stops_at_the_next_token(run):
    cancel = threading.Event()
    with Comparer() as comparer:
        for update in comparer.stream([run], PROMPT, max_new_tokens=400, cancel=cancel):
            if update.answers and update.answers[0].tokens >= 3:
                cancel.set()
    assert update.done
    assert update.answers[0].tokens < 100
    assert "cancelled" in [a.stop_reason for a in update.answers]


def test_two_threads_get_the_answers_each_of_them_asked_for(run):
    expected = {
        text: [a.text for a in compare(run, text, max_new_tokens=8).answers] for text in ("one", "two", "three")
    }
    got: list[tuple[str, list[str]]] = []
    with Comparer() as comparer:

        def ask(text):
            *_, last = comparer.stream([run], text, max_new_tokens=8)
            got.append((text, [a.text for a in last.answers]))

        threads = [threading.Thread(target=ask, args=(text,)) for text in list(expected) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(got) == 12
    assert all(answers == expected[text] for text, answers in got)


def test_an_adapter_that_changes_nothing_is_told(tiny):
    run = finetune(config(tiny, steps=1, warmup_steps=1))  # the first step of a warm-up has a learning rate of zero
    assert "changes nothing" in (compare(run, PROMPT, max_new_tokens=2).note or "")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0"),
        ({"temperature": -1}, "temperature = -1"),
    ],
)
def test_wrong_settings_are_named(run, wrong, message):
    settings = {"prompt": PROMPT, **wrong}
    with pytest.raises(UserError, match=message):
        compare(run, **settings)


def test_a_run_without_an_adapter_is_refused(tiny):
    waiting = Run.create(config(tiny))
    with pytest.raises(UserError, match="has no adapter yet"):
        compare(waiting, PROMPT)


def test_runs_on_different_bases_are_refused_by_what_differs(tiny, run):
    asked = config(tiny)
    rounded = asked.model_copy(
        update={"name": "rounded", "model": asked.model.model_copy(update={"quantization": "nf4"})}
    )
    with pytest.raises(
        UserError, match=r"quantization none\); rounded \(quantization nf4\)\. Compare runs of one base"
    ):
        compare([run, finetune(rounded)], PROMPT)


def test_what_makes_no_other_base_loads_none(tiny, monkeypatch, tmp_path):
    loaded = []

    def counted(spec, *more, **options):
        loaded.append(spec)
        return load(spec, *more, **options)

    spec = ModelSpec(repo_id=tiny, dtype="float32", quantization="nf4", keep_dequantized=True)
    (tmp_path / "link").symlink_to(tiny)
    others = [{"max_length": 64}, {"device": "cpu"}, {"keep_dequantized": False}, {"repo_id": str(tmp_path / "link")}]
    runs = [finetune(config(tiny, steps=2).model_copy(update={"model": spec.model_copy(update=one)}))
            for one in ({}, *others)]  # fmt: skip
    alone = [compare(run, PROMPT, max_new_tokens=5).answers for run in runs]
    monkeypatch.setattr("tunelab.model.load.load", counted)
    with Comparer() as comparer:
        *_, together = comparer.stream(runs, PROMPT, max_new_tokens=5)
        for run in runs:  # and none takes the place of the other
            list(comparer.stream([run], PROMPT, max_new_tokens=5))
    assert len(loaded) == 1
    assert [a.text for a in together.answers] == [alone[0][0].text, *(answers[1].text for answers in alone)]


def test_a_base_whose_weights_changed_is_refused(tmp_path):
    folder = str(tiny_llama(tmp_path / "model"))
    run = finetune(config(folder))
    tiny_llama(tmp_path / "model", seed=1)
    with pytest.raises(UserError, match="other weights"):
        compare(run, PROMPT)


def test_after_a_failure_the_next_answer_is_right_again(run, monkeypatch):
    expected = [a.text for a in compare(run, PROMPT, max_new_tokens=5).answers]
    with Comparer() as comparer:
        with monkeypatch.context() as patched:
            patched.setattr(FastDecoder, "__call__", lambda self, ids, padding=None: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                list(comparer.stream([run], PROMPT, max_new_tokens=5))
        *_, last = comparer.stream([run], PROMPT, max_new_tokens=5)
    assert [a.text for a in last.answers] == expected


def test_many_answers_at_once_are_those_given_one_by_one(run):
    prompts = [f"say {'very ' * (n % 3)}{row['prompt']}" for n, row in enumerate(ROWS)]
    heard = []
    with Comparer() as comparer:
        together = comparer.answers(
            [run], [[Message("user", p)] for p in prompts], max_new_tokens=12, on_progress=heard.append
        )
    assert heard[-1] == len(prompts)
    alone = [[a.text for a in compare(run, p, max_new_tokens=12).answers] for p in prompts]
    assert together == alone


@pytest.mark.parametrize("tuned", [False, True])
def test_one_row_alone_decodes_as_it_does_beside_others(run, tuned):
    base = load(run.config.model)
    adapter = run.config.technique.factors(run.adapter_path) if tuned else None
    ids = torch.tensor([prompt_ids(base)])
    alone = FastDecoder(FastLlama(base.model), [adapter], 200)(ids)
    beside = FastDecoder(FastLlama(base.model), [adapter, None, adapter], 200)(ids.repeat(3, 1))
    assert torch.allclose(alone[0], beside[0], rtol=1e-5, atol=1e-5 * alone.abs().max())
    assert torch.equal(beside[0], beside[2])
    assert torch.allclose(beside[0], beside[1]) is not tuned


def test_runs_of_any_technique_stand_side_by_side_each_as_it_answers_alone(tiny):
    from tunelab import IA3, BottleneckAdapter, FullFineTuning

    techniques = (IA3(), LoRA(r=4), FullFineTuning(), BottleneckAdapter(size=8), LoRA(r=4, use_dora=True))
    runs = [finetune(config(tiny, learning_rate=2e-2).model_copy(update={"technique": t})) for t in techniques]
    with Comparer(runs[0].root) as comparer:
        *_, together = comparer.stream(runs, PROMPT, max_new_tokens=8)
        alone = []
        for run in runs:
            *_, last = comparer.stream([run], PROMPT, max_new_tokens=8)
            assert last.answers[0].text == together.answers[0].text
            alone.append(last.answers[1].text)
        many = comparer.answers(runs, [[Message("user", PROMPT)]], max_new_tokens=8)
    assert [a.text for a in together.answers[1:]] == alone
    assert many == [[a.text for a in together.answers]]
    assert [a.provenance.adapter for a in together.answers] == [None, *(run.id for run in runs)]
    assert all(a.stop_reason for a in together.answers)


@pytest.mark.parametrize("kind", ["fast", "plain"])
def test_padding_on_the_left_changes_no_logit(run, kind):
    """Two prompts of different lengths in one batch, three steps each: the logits of each alone."""
    base = load(run.config.model)
    adapter = run.config.technique.factors(run.adapter_path)
    prompts = [prompt_ids(base, "say"), prompt_ids(base, "say something longer than that")]

    def decoder(rows):
        if kind == "fast":
            return FastDecoder(FastLlama(base.model), [adapter] * rows, 300)
        from contextlib import nullcontext

        return PlainDecoder(base.model, nullcontext, rows)

    missing = len(prompts[1]) - len(prompts[0])
    together = decoder(2)
    both = [together(torch.tensor([[0] * missing + prompts[0], prompts[1]]), torch.tensor([missing, 0]))]
    both += [together(torch.tensor([[token], [token]])) for token in (40, 50)]
    for row, prompt in enumerate(prompts):
        alone = decoder(1)
        steps = [alone(torch.tensor([prompt])), *(alone(torch.tensor([[token]])) for token in (40, 50))]
        for got, expected in zip(both, steps, strict=True):
            assert torch.allclose(got[row], expected[0], rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_many_answers_of_every_technique_are_those_given_one_by_one(tiny):
    from tunelab import IA3, BottleneckAdapter, FullFineTuning, PrefixTuning, PromptTuning

    prompts = ["say red", "say", "say navy, and then say it again", "tell me about teal"]
    for technique in (
        LoRA(r=4), LoRA(r=4, use_dora=True), IA3(), FullFineTuning(), BottleneckAdapter(size=8),
        PrefixTuning(num_virtual_tokens=6), PromptTuning(num_virtual_tokens=6),
    ):  # fmt: skip
        run = finetune(config(tiny).model_copy(update={"technique": technique}))
        with Comparer(run.root) as comparer:
            many = comparer.answers([run], [[Message("user", prompt)] for prompt in prompts], max_new_tokens=6)
            for prompt, answers in zip(prompts, many, strict=True):
                *_, last = comparer.stream([run], prompt, max_new_tokens=6)
                assert answers == [answer.text for answer in last.answers], (technique.kind, prompt)
