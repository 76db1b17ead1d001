"""What training measures beside its held-out loss is what measuring afterwards finds, and changes nothing of it."""

from __future__ import annotations

import math
from contextlib import closing

import pytest
import torch
from peft import PeftModel

from playground import views
from tests.helpers import ROWS
from tunelab import (
    BottleneckAdapter,
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
    evaluate,
    export_adapter,
    export_gguf,
    export_merged,
    finetune,
    import_adapter,
    train_run,
)
from tunelab.answer import generation
from tunelab.answer.comparison import Comparer
from tunelab.cli import main
from tunelab.data import read_data
from tunelab.data.encode import encode_all
from tunelab.measure import live
from tunelab.measure.card import report
from tunelab.measure.changes.scrub import answers_over_steps
from tunelab.measure.charts import STYLES, training_charts
from tunelab.measure.metrics import metric_named
from tunelab.measure.probe.read import instructions
from tunelab.measure.settings import LONGEST_ANSWER
from tunelab.model.load import load
from tunelab.run.events import Evaluated, Resumed, Sampled, StepDone
from tunelab.train import loop
from tunelab.train.beside import Look
from tunelab.train.memory import read_and_forecast

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


def test_plain_text_shows_no_answers_and_says_so(tiny):
    progress = finetune(config(tiny, data=TEXT, learn="text", samples=2)).progress()
    assert "no answers are shown: plain text has none" in progress.started.notes


def scripted(monkeypatch, values):
    """Have the tuned model's metric be these values, one evaluation after the other."""
    left = iter(values)
    monkeypatch.setattr(live._Looking, "__call__", lambda _self, tuned: Look(next(left) if tuned else 0.0))


@pytest.mark.parametrize(
    ("metric", "values", "best"), [("chrf", [10, 50, 50, 30], 50), ("length_ratio", [9, 3, 3, 4], None)]
)
def test_the_metric_chooses_and_of_equal_ones_the_loss(tiny, monkeypatch, metric, values, best):
    scripted(monkeypatch, values)
    by = "metric" if best else "loss"
    run = finetune(config(tiny, metric=metric, choose_by=by, keep_adapters=True, steps=6))
    every = run.progress().evaluations
    assert [e.metric_value for e in every] == values
    candidates = [e for e in every if e.metric_value == best] if best else every
    kept = min(candidates, key=lambda e: e.heldout_loss)
    assert run.progress().kept == kept
    assert weights(run) == weights(run.at(kept.step))
    what = f"the best {metric}" if best else "the lowest held-out loss"
    said = f"the adapter of step {kept.step} had {what} and is kept"
    assert (said in run.progress().message) == (kept is not every[-1])
    assert {e.best_by for e in every} == {metric if best else "loss"}


def test_what_is_no_number_is_never_the_best(tiny, monkeypatch):
    scripted(monkeypatch, [math.nan, 50, math.nan, 30])
    run = finetune(config(tiny, metric="chrf", choose_by="metric", steps=6))
    assert [e.best for e in run.progress().evaluations] == [True, True, False, False]
    losses = iter([math.nan, 3.0, 2.0, math.nan, 4.0])  # tuned and base after the first step, then tuned
    monkeypatch.setattr(loop, "heldout_loss", lambda *_asked: (next(losses), 1))
    run = finetune(config(tiny, steps=6))
    assert [e.best for e in run.progress().evaluations] == [True, True, False, False]
    assert run.progress().kept.heldout_loss == 2.0


def test_a_metric_that_gets_no_better_ends_the_training(tiny, monkeypatch):
    scripted(monkeypatch, [10, 50, 40, 30, 20, 10])
    run = finetune(config(tiny, metric="chrf", choose_by="metric", early_stopping_patience=2, steps=10))
    assert run.progress().step == 6
    assert run.progress().message.startswith("finished early, after 6 of 10 steps: chrf got no better")


def test_a_stopped_run_goes_on_with_the_best_metric_so_far(tiny, monkeypatch):
    scripted(monkeypatch, [10, 50, 20, 30, 40])
    run = Run.create(config(tiny, metric="chrf", choose_by="metric", keep_adapters=True, steps=8))
    list(train_run(run, should_stop=lambda: run.progress().step >= 2))
    assert run.progress().status == "stopped"
    list(train_run(run))
    assert [e.best for e in run.progress().evaluations] == [True, True, False, False, False]
    assert run.progress().kept.step == 2
    assert weights(run) == weights(run.at(2))


def weights(run):
    return (run.adapter_path / "adapter_model.safetensors").read_bytes()


def test_forgetting_is_the_loss_on_the_probes_instructions(tiny):
    run = finetune(config(tiny, forgetting_rows=3, keep_adapters=True, keep_best=False))
    first, *_, last = run.progress().evaluations
    every = instructions()
    rows = [every[0], every[len(every) // 3], every[2 * len(every) // 3]]
    assert (first.general_rows, last.general_rows) == (3, 3)
    base = load(ModelSpec(repo_id=tiny, dtype="float32"))
    assert first.base_general_loss == pytest.approx(plain_loss(base.model, base.tokenizer, rows), rel=1e-4)
    tuned = PeftModel.from_pretrained(base.model, str(run.at(last.step).adapter_path)).eval()
    assert last.general_loss == pytest.approx(plain_loss(tuned, base.tokenizer, rows), rel=1e-4)
    assert last.general_loss != pytest.approx(first.base_general_loss, rel=1e-3)


@torch.no_grad()
def plain_loss(model, tokenizer, examples):
    """Nats per scored token by transformers' own forward."""
    total, count = 0.0, 0
    for row in encode_all(examples, tokenizer, ModelSpec(repo_id="starter").max_length)[0]:
        ids = torch.tensor([row.input_ids])
        log_p = model(input_ids=ids).logits.float().log_softmax(-1)[0, :-1]
        scored = torch.tensor(row.scored[1:])
        total -= log_p[scored].gather(1, ids[0, 1:][scored].unsqueeze(1)).sum().item()
        count += int(scored.sum())
    return total / count


def test_chart_table_and_card_show_it_beside_the_base(tiny):
    run = finetune(config(tiny, metric="exact_match", forgetting_rows=2))
    progress, last = run.progress(), run.progress().evaluations[-1]
    loss, metric, general = training_charts(progress, run.config).split("<svg")[1:]
    assert "Exact match (%), 4 held-out rows" in metric
    assert "Forgetting: loss on 2 general instructions (nats)" in general
    assert ">100<" in metric  # per cent, all of them
    (held_out, _width, _dashes), (base, *_) = STYLES[1:3]  # one thing looks alike in all of them
    assert all(chart.count(colour) for chart in (loss, metric, general) for colour in (held_out, base))
    assert not any(STYLES[0][0] in chart for chart in (metric, general))
    step, _train, _heldout, told, meter, _mark = views.curve_text(progress)[-1]
    assert (step, told) == (str(last.step), f"exact_match {last.metric_value:.1f}")
    assert meter == f"{last.general_loss:.3f}"
    titles = [curve.title for curve in report(run).curves]
    assert [title.partition(" (")[0] for title in titles[1:-1]] == [
        "Exact match",
        "Forgetting: loss on 2 general instructions",
    ]


def test_an_instruction_that_does_not_fit_is_left_out_and_none_is_said(tiny):
    spec = ModelSpec(repo_id=tiny, dtype="float32", max_length=60)
    data = DataSpec(rows=[{"prompt": "a", "completion": "b c"}] * 4 + [{"prompt": "c", "completion": "d"}], heldout=1)
    stage = Stage(data=data, training=TrainConfig(steps=1, forgetting_rows=2))
    progress = finetune(RunConfig(model=spec, technique=LoRA(r=4), stages=(stage,))).progress()
    assert "forgetting is not measured: no general instruction fits into 60 tokens" in progress.started.notes
    assert progress.evaluations[-1].general_loss is None


TRAINED = [LoRA(r=4), PrefixTuning(), FullFineTuning(), BottleneckAdapter()]


@pytest.mark.parametrize("technique", TRAINED, ids=["LoRA", "prefix", "full", "bottleneck"])
def test_what_is_shown_at_a_step_is_what_the_kept_step_answers(tiny, technique):
    run = finetune(config(tiny, technique, samples=2, keep_adapters=True, steps=5))
    assert run.kept_steps == (1, 2, 4, 5)
    (note,) = (note for note in run.progress().started.notes if "keep_adapters" in note)
    assert note.startswith("keep_adapters: up to 4 results of ")
    asked = [row.asked for row in read_data(DATA).heldout[:2]]
    shown = answers_over_steps(run)
    assert [one.prompt for one in shown] == [turns[-1].content for turns in asked]
    with Comparer() as comparer:
        for step in run.kept_steps:
            answers = comparer.answers([run.at(step)], asked, max_new_tokens=LONGEST_ANSWER)
            assert [one.at(0).answer for one in shown] == [base for base, _tuned in answers]
            assert [one.at(step).answer for one in shown] == [tuned for _base, tuned in answers]
    assert len({weights_of(run.at(step)) for step in run.kept_steps}) == 4


def weights_of(run):
    return b"".join(file.read_bytes() for file in sorted(run.adapter_path.glob("*.safetensors")))


def test_a_step_can_be_asked_and_nothing_else(tiny, tmp_path, capsys):
    run = finetune(config(tiny, keep_adapters=True), root=tmp_path)
    step = run.at(2)
    assert (step.id, step.name) == (f"{run.id}@2", f"{run.name} at step 2")
    assert main(["compare", f"{run.id}@2", run.id, "--prompt", "hello", "--runs", str(tmp_path)]) == 0
    assert f"adapter {run.id}@2 on" in capsys.readouterr().out
    log = run.events_path.read_bytes()
    for refused in (
        lambda: evaluate(step),
        lambda: export_adapter(step, tmp_path / "a.zip"),
        lambda: export_merged(step, tmp_path / "merged"),
        lambda: export_gguf(step, tmp_path / "a.gguf"),
        lambda: report(step),
        lambda: list(train_run(step)),
    ):
        with pytest.raises(UserError, match=r"tunelab import FOLDER.*steps/000002") as error:
            refused()
        assert len(str(error.value)) <= 400
    assert run.events_path.read_bytes() == log
    with pytest.raises(UserError, match=r"keeps no result of step 3. Kept are: 1, 2, 4"):
        run.at(3)
    imported = import_adapter(step.adapter_path, ModelSpec(repo_id=tiny, dtype="float32"), root=tmp_path)
    assert weights(imported) == weights(step)


@pytest.mark.parametrize(("metric", "whole"), [("exact_match", False), ("chrf", True)])
def test_where_only_right_answers_count_none_is_written_much_longer_than_the_right_one(
    tiny, monkeypatch, metric, whole
):
    asked, answer_many = [], generation.answer_many

    def watched(prompts, *others, max_new_tokens, **more):
        asked.append(max_new_tokens)
        return answer_many(prompts, *others, max_new_tokens=max_new_tokens, **more)

    monkeypatch.setattr(generation, "answer_many", watched)
    finetune(config(tiny, metric=metric, samples=1))
    (rights,) = {tuple(len(row.answer) for row in read_data(DATA).heldout)}  # a byte is a token
    shown, *others = asked[0]
    assert shown == LONGEST_ANSWER
    assert others == [LONGEST_ANSWER if whole else length + live.TOO_LONG for length in rights[1:]]


def test_a_step_can_be_asked_while_the_run_goes_on(tiny):
    run = Run.create(config(tiny, keep_adapters=True))
    asked = [row.asked for row in read_data(DATA).heldout[:1]]
    with closing(train_run(run)) as training:
        while run.kept_steps != (1, 2):
            next(training)
        assert not run.has_adapter
        with Comparer() as comparer:
            ((_base, tuned),) = comparer.answers([run.at(2)], asked, max_new_tokens=4)
    list(train_run(run))
    with Comparer() as comparer:
        assert comparer.answers([run.at(2)], asked, max_new_tokens=4)[0][1] == tuned


def test_who_leaves_at_an_evaluation_and_goes_on_later_keeps_what_was_kept_and_shown(tiny):
    settings = {"keep_adapters": True, "samples": 1, "steps": 6}
    run = Run.create(config(tiny, **settings))
    with closing(train_run(run)) as training:
        for event in training:
            if isinstance(event, Evaluated) and event.step == 4:
                break
    list(train_run(run))
    alone = finetune(config(tiny, **settings))
    assert run.kept_steps == alone.kept_steps == (1, 2, 4, 6)
    assert answers_over_steps(run) == answers_over_steps(alone)


def test_what_was_shown_before_a_run_began_anew_does_not_count(tiny):
    run = Run.create(config(tiny, samples=1, steps=2))
    run.append(Sampled(step=1, of_base=True, prompt="old", answer="old"))
    run.append(Resumed(step=0))
    assert answers_over_steps(run) == ()


def test_a_step_changes_nothing_of_its_run(tiny, tmp_path):
    data = DataSpec(rows=ROWS, heldout=4)
    training = TrainConfig(steps=2, batch_size=4, keep_adapters=True, forgetting_rows=0)
    stages = (Stage(data=data, training=training), Stage(data=data, training=training))
    run = finetune(RunConfig(model=ModelSpec(repo_id=tiny, dtype="float32"), technique=LoRA(r=4), stages=stages))
    step = run.at(2)
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    for change in (lambda: step.roll_back(1), step.queue, step.request_stop, step.begin):
        with pytest.raises(UserError, match="is a step of a run"):
            change()
    assert before == {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}


def test_a_name_may_end_like_a_step(tiny, tmp_path):
    named = config(tiny).model_copy(update={"name": "mine@40"})
    run = Run.create(named, tmp_path)
    assert Run.open_to_ask("mine@40", tmp_path).id == run.id
    with pytest.raises(UserError, match="keeps no result of step 2"):
        Run.open_to_ask("mine@40@2", tmp_path)


def test_the_forecast_counts_what_is_measured_beside_the_loss_and_says_what_it_does_not(tiny):
    def told(**settings):
        return read_and_forecast(config(tiny, steps=40, **settings))

    plain, general, answers = told(), told(forgetting_rows=60), told(metric="chrf")
    assert general.seconds_total > plain.seconds_total
    assert "answers" not in plain.time_text
    assert answers.time_text.endswith("and the time to write the answers that are measured or shown")
