"""The forecast of time: what is timed is what the run will compute, what follows from it, and that slow runs say so."""

from __future__ import annotations

import time
import weakref

import pytest
import torch

from tests.architectures import tiny_model
from tests.helpers import ROWS, tiny_llama
from tests.techniques.test_invariants import TECHNIQUES, spec_of
from tests.train.test_memory import one_stage
from tunelab import BottleneckAdapter, DataSpec, FullFineTuning, LoRA, ModelSpec, Stage, TrainConfig, finetune, load
from tunelab.cli import describe
from tunelab.data.batches import BatchOrder
from tunelab.data.encode import encode_all
from tunelab.data.split import read_data
from tunelab.fast import choose_loss
from tunelab.machine import hardware
from tunelab.model import quantization
from tunelab.model.load import skeleton
from tunelab.run.events import Noticed, StepDone, parse_event
from tunelab.train import memory, pace, watch
from tunelab.train.forecast import Forecast, Route, seconds_text
from tunelab.train.pace import Parts

LAYERS = 7


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> str:
    """Folder of a model with more layers than are timed."""
    from transformers import AutoModelForCausalLM

    folder = tiny_llama(tmp_path_factory.mktemp("deep"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = model.config
    config.num_hidden_layers = LAYERS
    type(model)(config).save_pretrained(folder)
    return str(folder)


def rows_of(base, heldout=4):
    split = read_data(DataSpec(rows=ROWS, heldout=heldout))
    return tuple(encode_all(part, base.tokenizer, 512)[0] for part in (split.train, split.heldout))


def route(technique, training, packed=False):
    return Route(training, technique.rows_can_differ, "eager", packed)


@pytest.fixture
def parts(monkeypatch):
    """A function that sets what is 'measured'."""

    def set_to(**seconds):
        zero = dict.fromkeys(Parts.__annotations__, 0.0)
        monkeypatch.setattr(pace, "measured", lambda name, key, measure, valid: zero | seconds)

    return set_to


def pace_of(base, technique, **training):
    config = TrainConfig(**({"steps": 40, "batch_size": 4, "length_buckets": False} | training))
    return pace.pace(base, technique, *rows_of(base), route(technique, config))


def test_a_step_is_the_rest_and_every_layer(deep, parts):
    base = skeleton(spec_of(deep))
    parts(rest=5.0, layer=1.0, update_rest=0.5, update_layer=0.25)
    for n in (1, 3):
        settings = {"steps": 40, "batch_size": 4, "length_buckets": False, "gradient_accumulation_steps": n}
        scale = pace._Rows(TrainConfig(**settings), *rows_of(base)).scale
        one = pace_of(base, LoRA(r=4), **settings)
        assert one.step == pytest.approx(n * (5 + 6 * 1.0) * scale + 0.5 + 6 * 0.25)
        assert one.evaluation == 0


def test_layers_below_the_lowest_adapter_cost_a_forward_and_from_the_cache_nothing(deep, parts):
    base, upper = skeleton(spec_of(deep)), LoRA(r=4, layers=(5, 6))
    parts(layer=10.0)
    assert pace_of(base, upper).step == pytest.approx(pace_of(base, LoRA(r=4)).step / 6)
    parts(forward_layer=1.0)
    computed, cached = (pace_of(base, upper, cache_frozen=kept) for kept in (False, True))
    epochs = 40 / BatchOrder([1] * len(rows_of(base)[0]), 4, 0).per_epoch
    assert cached.step == pytest.approx(computed.step / epochs)
    assert cached.evaluation == pytest.approx(computed.evaluation / 6)  # of six layers above the first, one


def test_the_timed_batches_stand_for_all_of_the_run(tiny):
    base = skeleton(spec_of(tiny))
    train, held = rows_of(base)
    rows = pace._Rows(TrainConfig(steps=30, batch_size=4), train, held)
    order = BatchOrder([len(row.input_ids) for row in train], 4, TrainConfig().seed)
    every = [batch for step in range(30) for batch in order.batches(step)]
    positions = [len(batch) * max(len(train[row].input_ids) for row in batch) for batch in every]
    timed = [batch.input_ids.numel() for batch in rows.samples]
    assert len(timed) == pace.SAMPLES
    assert min(positions) <= min(timed) <= max(timed) <= max(positions)
    assert rows.scale * sum(timed) / len(timed) == pytest.approx(sum(positions) / len(positions))
    long = [row.__class__(row.input_ids * 30, row.scored * 30) for row in train]
    cut = pace._Rows(TrainConfig(steps=30, batch_size=8), long, held)
    assert all(batch.input_ids.numel() <= pace.POSITIONS or len(batch.input_ids) == 1 for batch in cut.samples)
    assert cut.scale > 2


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
@pytest.mark.parametrize("name", TECHNIQUES)
def test_what_is_timed_trains_what_the_run_trains_and_leaves_no_trace(deep, name):
    technique = TECHNIQUES[name]
    base = skeleton(spec_of(deep))
    rows = pace._Rows(TrainConfig(batch_size=4), *rows_of(base))
    kind = pace._Kind(base, technique, route(technique, TrainConfig(batch_size=4)))
    before = torch.get_rng_state()
    timed = pace._measure(kind, rows)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(seconds >= 0 for seconds in vars(timed).values())
    assert timed.rest > 0
    # one layer's trained parameters are those of the real model's layers
    real = technique.trainable_parameters(technique.outline(skeleton(spec_of(deep)))) if kind.everywhere else None
    one, two = (kind.model(count) for count in (1, 2))
    each = count_of(two) - count_of(one)
    assert each > 0 or name.startswith("prompt")
    if real:
        assert count_of(one) + (LAYERS - 1) * each == real * (2 if getattr(technique, "rewrites_base", False) else 1)
    assert one.loss.fast == choose_loss(technique.outline(skeleton(spec_of(deep))), technique).fast


def count_of(small):
    return sum(weight.numel() for weight in small.weights.values())


@pytest.mark.parametrize(("quantization_", "dtype"), [("nf4", "bfloat16"), ("int8", "float32")])
def test_a_base_that_stays_packed_is_timed_packed(tiny, quantization_, dtype):
    spec = ModelSpec(repo_id=tiny, dtype=dtype, quantization=quantization_, keep_dequantized=False)
    real = load(spec)
    kind = pace._Kind(skeleton(spec), LoRA(r=4), route(LoRA(r=4), TrainConfig(), packed=True))
    small = kind.model(2)
    mine, its = (quantization.quantized_linears(model) for model in (small.model.get_base_model(), real.model))
    assert len(mine) == len(its) == 14
    for a, b in zip(mine.values(), its.values(), strict=True):
        assert type(a) is type(b)
        assert (a.weight.shape, a.weight.dtype) == (b.weight.shape, b.weight.dtype)
        if quantization_ == "int8":
            assert a.state.threshold == b.state.threshold
    small.batch(pace._Rows(TrainConfig(), *rows_of(real)).samples[0])
    assert all(weight.grad is not None for weight in small.weights.values())


def test_the_same_run_is_timed_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "cache"))
    timed, measure = [], pace._measure
    monkeypatch.setattr(pace, "_measure", lambda kind, rows: (timed.append(1), measure(kind, rows))[1])
    first, again = (memory.read_and_forecast(one_stage(tiny)) for _ in range(2))
    started = finetune(one_stage(tiny)).progress().started
    assert len(timed) == 1
    assert first == again
    assert started.forecast_seconds == first.seconds_total > 0
    memory.read_and_forecast(one_stage(tiny, BottleneckAdapter(size=4)))
    assert len(timed) == 2


def test_all_of_a_run_is_steps_evaluations_checkpoints_and_start_up(tiny, monkeypatch):
    given = {5: pace.Pace(2.0, 7.0, 2.0), 30: pace.Pace(1.0, 3.0, 1.5)}
    monkeypatch.setattr(pace, "pace", lambda base, technique, train, held, way: given[way.training.steps])
    monkeypatch.setattr(memory, "STARTUP_SECONDS", 100.0)
    often = {"eval_every": 10, "checkpoint_every": 10, "forgetting_rows": 0}
    stages = [
        Stage(data=DataSpec(rows=ROWS, heldout=4), training=TrainConfig(steps=steps, **often)) for steps in (5, 30)
    ]
    ahead = memory.read_and_forecast(one_stage(tiny).model_copy(update={"stages": tuple(stages)}))
    assert ahead.step_seconds == (2.0, 1.0)
    assert ahead.slowest_seconds == (2.0, 1.5)
    assert ahead.seconds_per_step == pytest.approx((5 * 2 + 30 * 1) / 35)
    # the first step of a stage takes longer, and is followed by two evaluations, the second without the adapter
    assert ahead.seconds_total == pytest.approx(100 + (5 + 1) * 2 + (30 + 1) * 1 + 3 * 7 + 5 * 3, abs=0.1)
    assert "Time: about 1.1 s a step, 3.0 minutes in all" in ahead.note(10**12)


def test_general_instructions_cost_an_evaluation_what_their_tokens_cost(tiny, monkeypatch):
    monkeypatch.setattr(pace, "pace", lambda *_args: pace.Pace(0.0, 100.0, 0.0))
    seconds = {}
    for rows in (0, 4, 8):
        training = TrainConfig(steps=10, eval_every=10, forgetting_rows=rows)
        config = one_stage(tiny).model_copy(
            update={"stages": (Stage(data=DataSpec(rows=ROWS, heldout=4), training=training),)}
        )
        seconds[rows] = memory.read_and_forecast(config).seconds_total
    assert seconds[4] > seconds[0] + 100
    assert seconds[8] - seconds[4] == pytest.approx(seconds[4] - seconds[0])


def test_a_model_that_cannot_be_timed_is_told_of_and_trained(tiny, monkeypatch):
    def fails(*_args):
        raise KeyError("no such layer")

    monkeypatch.setattr(pace, "pace", fails)
    progress = finetune(one_stage(tiny)).progress()
    assert progress.status == "finished"
    assert progress.started.forecast_seconds == 0
    assert any("Time: no forecast (KeyError: 'no such layer')" in note for note in progress.started.notes)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("mixtral", "a mixture of experts"), ("qwen2_moe", "a mixture of experts"), ("lfm2", "several kinds")],
)
def test_a_model_whose_layers_do_not_stand_for_each_other_is_not_timed(tmp_path, name, reason):
    base = skeleton(spec_of(tiny_model(name, tmp_path / "model")))
    with pytest.raises(pace.Untimed, match=reason):
        pace_of(base, LoRA(r=4))


def test_nothing_is_timed_where_there_is_no_memory_for_it(deep, monkeypatch):
    monkeypatch.setenv("TUNELAB_CACHE", deep)
    monkeypatch.setattr(hardware, "available_memory_bytes", lambda *_device: 1)
    assert "too little free memory" in memory.read_and_forecast(one_stage(deep)).untimed


def test_a_preview_times_nothing(tiny, monkeypatch):
    monkeypatch.setattr(pace, "_measure", lambda kind, rows: 1 / 0)
    ahead = memory.read_and_forecast(one_stage(tiny), time=False)
    assert ahead.note(10**12).endswith("Time: told when the run begins")


def test_what_was_timed_is_gone_when_the_next_one_is(deep):
    technique = FullFineTuning()
    base = skeleton(spec_of(deep))
    rows = pace._Rows(TrainConfig(batch_size=4), *rows_of(base))
    kind = pace._Kind(base, technique, route(technique, TrainConfig(batch_size=4)))
    made, model = [], kind.model

    class Watched(pace._Kind):
        def model(self, count):
            assert not any(one() is not None for one in made)
            small = model(count)
            made.append(weakref.ref(small))
            return small

    pace._measure(Watched(base, technique, kind.route), rows)
    assert len(made) == 2


def test_a_packed_base_is_timed_once_whether_it_is_loaded_or_not(tiny):
    spec = ModelSpec(repo_id=tiny, dtype="float32", quantization="nf4", keep_dequantized=False)
    there, here = (
        pace._Kind(base, LoRA(r=4), route(LoRA(r=4), TrainConfig())) for base in (skeleton(spec), load(spec))
    )
    assert there.key == here.key


def test_only_the_own_time_of_the_thread_counts_on_a_cpu():
    assert pace._seconds(lambda: time.sleep(0.3), torch.device("cpu")) < 0.1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0341, "34 ms"), (0.5, "0.5 s"), (2.14, "2.1 s"), (75, "75 s"), (240, "4.0 minutes"), (2400, "40 minutes"),
     (9000, "2.5 hours"), (90_000, "25 hours")],
)  # fmt: skip
def test_times_are_told_in_two_digits(seconds, text):
    assert seconds_text(seconds) == text


def steps(*seconds):
    usual = {"stage": 0, "loss": 1.0, "scored_tokens": 1, "tokens": 1, "gradient_norm": 1.0, "learning_rate": 1.0}
    return [StepDone(step=number, seconds=one, **usual) for number, one in enumerate(seconds, 1)]


def heard(expected, seconds, steps_left=1000, device="cpu"):
    looking = watch.Watch(expected, steps_left, torch.device(device))
    return [notice for done in steps(*seconds) if (notice := looking.after(done))]


def test_steps_that_take_more_than_twice_the_forecast_are_told_of_once():
    (notice,) = heard(1.2, [3.1] * 30)
    assert notice.step == watch.STEPS
    assert notice.message.startswith("a step takes 3.1 s, 1.2 s were forecast: ")
    assert describe(notice) == notice.message
    assert parse_event(notice.model_dump_json()) == notice
    assert not heard(1.2, [2.3] * 30)
    assert not heard(1.2, [1.2] * 26 + [30.0] * 4)  # a few slow ones
    assert len(heard(1.2, [1.2] * 20 + [3.0] * 10)) == 1  # other work begins later
    assert not heard(1.2, [3.1] * (watch.STEPS - 1))
    assert not heard(0.0, [3.1] * 30)  # there was no forecast
    assert not heard(0.02, [0.06] * 30, steps_left=30)  # a second is lost: not worth a word


def test_on_a_gpu_steps_that_record_are_not_taken_for_slow_ones():
    seconds = [0.7, 0.2, 0.02, 0.14, 0.14, 0.02, 0.1, 0.2, 0.1, 0.02, 0.02, 0.17]
    assert heard(0.02, seconds)
    assert not heard(0.02, seconds, device="cuda")
    assert heard(0.02, [0.1] * 12, device="cuda")


def test_the_reason_is_told_as_far_as_the_clocks_show_it(monkeypatch):
    def reason(cores, device="cpu"):
        ticks = iter(range(1000))
        monkeypatch.setattr(watch, "_clocks", lambda: (n := float(next(ticks)), n * cores))
        (notice,) = heard(1.0, [5.0] * 12, device=device)
        return notice.message.partition(": ")[2]

    threads = torch.get_num_threads()
    assert f"the run has {0.5 * threads:.1f} of {threads} cores" in reason(0.5 * threads)
    assert "than when it was measured" in reason(0.95 * threads)
    assert "GPU" in reason(0.1, "cuda")


def test_a_run_that_is_much_slower_than_forecast_says_so_in_its_log_and_in_the_app(tiny, monkeypatch):
    from playground.views import notes_text

    monkeypatch.setattr(watch, "MATTERS_SECONDS", 0.0)
    monkeypatch.setattr(pace, "pace", lambda *_args: pace.Pace(step=1e-6, evaluation=0.0, slowest=1e-6))
    run = finetune(one_stage(tiny, steps=12))
    (notice,) = [event for event in run.events() if isinstance(event, Noticed)]
    assert notice.step == watch.STEPS
    assert run.progress().notices == [notice]
    assert "a step takes" in notes_text(run, run.progress())


def test_there_is_a_forecast_on_every_kind_of_note():
    empty = Forecast(0, 0, 0, 0, 0, 0, 0, seconds_per_step=2.14, seconds_total=240)
    assert empty.note(10**12).endswith("Time: about 2.1 s a step, 4.0 minutes in all")
    assert hardware.available_memory_bytes(empty.device) > 0
