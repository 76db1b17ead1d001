"""What every technique promises, on the full-precision and on the NF4 base: where it starts, what moves, that the base
stays the base, and that a saved result is the trained one."""

from __future__ import annotations

import hashlib

import pytest
import torch

from tests.helpers import ROWS
from tunelab import (
    IA3,
    BottleneckAdapter,
    Comparer,
    DataSpec,
    FullFineTuning,
    LoRA,
    ModelSpec,
    PrefixTuning,
    PromptTuning,
    RunConfig,
    Stage,
    TrainConfig,
    finetune,
    load,
    train_run,
)
from tunelab.data.batches import collate
from tunelab.data.encode import encode_all
from tunelab.data.split import read_data
from tunelab.fast import choose_loss
from tunelab.run.events import Finished, StepDone, Stopped
from tunelab.run.run import Run
from tunelab.train.checkpoints import trained_parameters
from tunelab.train.loop import StageData, Trainer

# none of them trains, saves or answers with a warning
pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
TECHNIQUES = {
    "lora": LoRA(r=4),
    "rslora": LoRA(r=4, use_rslora=True),
    "dora": LoRA(r=4, use_dora=True),
    "lora on one layer": LoRA(r=4, layers=(1,)),
    "eva": LoRA(r=4, initialisation="eva"),
    "pissa": LoRA(r=4, initialisation="pissa"),
    "olora": LoRA(r=4, initialisation="olora"),
    "full": FullFineTuning(),
    "full, one layer": FullFineTuning(layers=(0,)),
    "prefix": PrefixTuning(num_virtual_tokens=6),
    "prompt": PromptTuning(num_virtual_tokens=6),
    "prompt from the vocabulary": PromptTuning(num_virtual_tokens=6, initialisation="vocabulary"),
    "houlsby": BottleneckAdapter(size=8),
    "pfeiffer": BottleneckAdapter(size=8, placement="pfeiffer", activation="gelu"),
    "ia3": IA3(),
}
ON_NF4 = [name for name, t in TECHNIQUES.items() if t.kind != "full" and name not in ("pissa", "olora")]
CASES = [(name, "none") for name in TECHNIQUES] + [(name, "nf4") for name in ON_NF4]
every_case = pytest.mark.parametrize(("name", "quantization"), CASES, ids=[f"{n} {q}" for n, q in CASES])
START_ELSEWHERE = ("prefix", "prompt")


def spec_of(tiny, quantization="none", **more):
    return ModelSpec(repo_id=tiny, dtype="float32", quantization=quantization, **more)


def rows_of(base):
    return encode_all(read_data(DataSpec(rows=ROWS, heldout=4)).train, base.tokenizer, 512)[0]


def batch_of(rows):
    return collate(rows[:3], 2)


@torch.no_grad()
def logits_of(model, technique, batch):
    model.eval()
    loss = choose_loss(model, technique)
    return loss.head(loss.hidden(batch.to(model.device))[0]).cpu().clone()


def sums(model):
    return {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, tensor in model.state_dict().items()
        if tensor.numel()
    }


def trained(technique, base, rows, steps=2, rate=1e-2):
    torch.manual_seed(0)
    model = technique.attach(base, rows)
    training = TrainConfig(steps=steps, batch_size=4, learning_rate=rate, warmup_steps=0, schedule="constant")
    loss = choose_loss(model, technique, training)
    list(Trainer(model, loss, StageData(rows, []), training, rate, pad_id=2).train())
    return model


@every_case
def test_before_the_first_step_the_output_is_the_bases(tiny, name, quantization):
    technique = TECHNIQUES[name]
    base, fresh = load(spec_of(tiny, quantization)), load(spec_of(tiny, quantization))
    batch = batch_of(rows_of(base))
    expected = logits_of(fresh.model, technique, batch)
    torch.manual_seed(0)
    got = logits_of(technique.attach(base, rows_of(base)), technique, batch)
    same = torch.allclose(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert same == (technique.kind not in START_ELSEWHERE)


@every_case
def test_only_its_own_parameters_move_and_switched_off_it_is_a_fresh_base(tiny, name, quantization):
    technique = TECHNIQUES[name]
    base, fresh = load(spec_of(tiny, quantization)), load(spec_of(tiny, quantization))
    before = sums(fresh.model)
    rows = rows_of(base)
    batch = batch_of(rows)
    model = trained(technique, base, rows)
    tuned = logits_of(model, technique, batch)
    expected = logits_of(fresh.model, technique, batch)
    assert (tuned - expected).abs().max() > 1e-3
    with technique.off(model):
        assert torch.equal(logits_of(model, technique, batch), expected)
    assert torch.equal(logits_of(model, technique, batch), tuned)
    if technique.kind == "full":
        moved = {n for n, digest in sums(base.model).items() if before[n] != digest}
        allowed = {n for n in before if technique.layers == "all" or ".layers.0." in n}
        assert moved
        assert moved <= allowed
    technique.detach(model)
    assert sums(base.model) == before
    assert not trained_parameters(base.model)
    assert torch.equal(logits_of(base.model, technique, batch), expected)


@every_case
def test_a_saved_one_loads_with_the_same_logits(tiny, tmp_path, name, quantization):
    technique = TECHNIQUES[name]
    base = load(spec_of(tiny, quantization))
    rows = rows_of(base)
    model = trained(technique, base, rows)
    expected = logits_of(model, technique, batch_of(rows))
    technique.save(model, tmp_path, base)
    other = load(spec_of(tiny, quantization))
    again = technique.load(other, tmp_path)
    assert torch.equal(logits_of(again, technique, batch_of(rows)), expected)
    assert not trained_parameters(again)
    trainable = technique.load(load(spec_of(tiny, quantization)), tmp_path, trainable=True)
    assert trained_parameters(trainable).keys() == trained_parameters(model).keys()


def config(tiny, technique, quantization="none", **training):
    settings = {"steps": 4, "batch_size": 4, "eval_every": 2, "checkpoint_every": 2, "learning_rate": 1e-2, **training}
    stage = Stage(data=DataSpec(rows=ROWS, heldout=4), training=TrainConfig(**settings))
    return RunConfig(model=spec_of(tiny, quantization), technique=technique, stages=(stage,))


def losses(run):
    return [event.loss for event in run.progress().steps]


@every_case
def test_it_trains_stops_resumes_and_compares(tiny, name, quantization):
    technique = TECHNIQUES[name]
    alone = finetune(config(tiny, technique, quantization))
    assert isinstance(alone.progress().ending, Finished)
    assert losses(alone)[-1] < losses(alone)[0]

    stopped = Run.create(config(tiny, technique, quantization))
    events = list(until(stopped, 2))
    assert isinstance(events[-1], Stopped)
    assert stopped.has_adapter
    for _event in train_run(stopped):
        pass
    assert losses(stopped) == losses(alone)

    with Comparer(alone.root) as comparer:
        *_, last = comparer.stream([alone], "say red", max_new_tokens=6)
        batched = comparer.answers([alone], [[m] for m in _asked("say red", "say tan")], max_new_tokens=6)
    assert [answer.label for answer in last.answers] == ["base", alone.name]
    assert [answer.text for answer in last.answers] == batched[0]
    assert last.answers[0].text == _answer_of_fresh_base(tiny, quantization)


def until(run, step):
    """Events of a training that is asked to stop after a step."""
    done = []
    for event in train_run(run, should_stop=lambda: len(done) >= step):
        if isinstance(event, StepDone):
            done.append(event)
        yield event


def _asked(*prompts):
    from tunelab.data import Message

    return [Message("user", prompt) for prompt in prompts]


def _answer_of_fresh_base(tiny, quantization):
    from tunelab.data import encode_prompt

    base = load(spec_of(tiny, quantization))
    ids = encode_prompt(_asked("say red"), base.tokenizer)
    out = base.model.generate(
        torch.tensor([ids], device=base.device), max_new_tokens=6, do_sample=False, pad_token_id=2
    )
    return base.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True).rstrip("\ufffd")
