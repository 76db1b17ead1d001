"""What training measures beside its held-out loss is what measuring afterwards finds, and changes nothing of it."""

from __future__ import annotations

import pytest

from tests.helpers import ROWS
from tunelab import (
    DataSpec,
    FullFineTuning,
    LoRA,
    ModelSpec,
    PrefixTuning,
    Run,
    RunConfig,
    Stage,
    TrainConfig,
    UserError,
    finetune,
    train_run,
)
from tunelab.answer.comparison import Comparer
from tunelab.data import read_data
from tunelab.measure.metrics import metric_named
from tunelab.run.events import StepDone

HELDOUT = 4
DATA = DataSpec(rows=ROWS, heldout=HELDOUT)
TEXT = DataSpec(rows=[{"text": f"words to read {i} " * 5} for i in range(12)], heldout=2)


def config(tiny, technique=None, data=DATA, learn="instructions", **training) -> RunConfig:
    settings = {"steps": 4, "batch_size": 4, "eval_every": 2, "learning_rate": 1e-2, "forgetting_rows": 0, **training}
    stage = Stage(data=data, learn=learn, training=TrainConfig(**settings))
    return RunConfig(model=ModelSpec(repo_id=tiny, dtype="float32"), technique=technique or LoRA(r=4), stages=(stage,))


def losses(run):
    return [event.loss for event in run.events() if isinstance(event, StepDone)]


TECHNIQUES = [
    (LoRA(r=4), {}),
    (LoRA(r=4), {"fast": False}),
    (LoRA(r=4, use_dora=True), {}),
    (LoRA(r=4, initialisation="olora"), {}),
    (PrefixTuning(), {}),
    (FullFineTuning(), {"learning_rate": 1e-3}),
]


@pytest.mark.parametrize(
    ("technique", "more"), TECHNIQUES, ids=["LoRA", "LoRA, plain", "DoRA", "OLoRA", "prefix", "full"]
)
def test_the_metric_is_that_of_the_answers_base_and_tuned_give_afterwards(tiny, technique, more):
    run = finetune(config(tiny, technique, metric="chrf", keep_best=False, **more))
    first, *_, last = run.progress().evaluations
    rows = read_data(DATA).heldout
    with Comparer() as comparer:
        answers = comparer.answers([run], [row.asked for row in rows], max_new_tokens=64)
    metric = metric_named("chrf")
    base, tuned = (
        float(metric.value(metric.sums([one[side] for one in answers], [row.answer for row in rows]).sum(0)))
        for side in (0, 1)
    )
    assert first.base_metric == pytest.approx(base)
    assert last.metric_value == pytest.approx(tuned)
    assert last.metric_value != first.base_metric
    assert (last.metric, last.metric_rows, last.base_metric) == ("chrf", HELDOUT, None)
    assert 0 < last.answer_seconds <= last.seconds


def test_measuring_changes_nothing_of_the_training(tiny):
    technique = LoRA(r=4, lora_dropout=0.3)  # draws from the generator that decoding could disturb
    plain = finetune(config(tiny, technique))
    measured = finetune(config(tiny, technique, metric="chrf", forgetting_rows=3))
    assert losses(measured) == losses(plain)
    every = plain.progress().evaluations
    assert [e.metric_value for e in every] == [e.general_loss for e in every] == [None] * len(every)
    assert [e.heldout_loss for e in measured.progress().evaluations] == [e.heldout_loss for e in every]


def test_rows_of_the_metric_are_the_first_ones(tiny):
    one = finetune(config(tiny, metric="chrf", metric_rows=1)).progress().evaluations[-1]
    assert one.metric_rows == 1
    assert one.rows == HELDOUT


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"metric": "accuracies"}, "no such metric"),
        ({"metric": "number_match"}, "does not fit 16 rows in memory.*chrf"),
        ({"metric": "valid_json"}, "even the right answers are worth 0.*chrf"),
        ({"metric": "length_ratio", "choose_by": "metric"}, "can't choose a step"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused_before_training(tiny, settings, said):
    run = Run.create(config(tiny, **settings))
    with pytest.raises(UserError, match=said) as refused:
        list(train_run(run))
    assert len(str(refused.value)) <= 400
    assert not losses(run)


def test_choosing_by_a_metric_needs_one(tiny):
    with pytest.raises(ValueError, match="choose_by = 'metric' needs one"):
        TrainConfig(choose_by="metric")


def test_plain_text_has_no_metric_and_says_so(tiny):
    run = finetune(config(tiny, data=TEXT, learn="text", metric="chrf", choose_by="metric"))
    progress = run.progress()
    (note,) = (note for note in progress.started.notes if "chrf" in note)
    assert note == "chrf is not measured: plain text has no answers; the held-out loss chooses the step"
    assert {e.metric for e in progress.evaluations} == {None}
    assert {e.best_by for e in progress.evaluations} == {"loss"}
