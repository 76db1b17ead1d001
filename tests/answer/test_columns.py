"""Columns: whatever stands in one answers beside others as it does alone, and says what it is."""

from __future__ import annotations

import gc
import threading
import time

import pytest
import torch

from tests.helpers import ROWS, tiny_llama
from tests.train.test_loop import config
from tunelab import (
    IA3,
    BottleneckAdapter,
    Column,
    Comparer,
    FullFineTuning,
    LoRA,
    ModelSpec,
    PrefixTuning,
    PromptTuning,
    UserError,
    delete_run,
    finetune,
    fold_equal,
    load,
    restore_run,
)
from tunelab.answer.columns import labels_of
from tunelab.answer.talk import Talk
from tunelab.fast.decode import FastDecoder
from tunelab.measure.changes.strength import answers_at_strengths

PROMPT, LENGTH = "say something", 8
EXAMPLES = (("say red", "red it is"), ("say blue", "blue, and nothing else"))
TECHNIQUES = {
    "lora": LoRA(r=4),
    "dora": LoRA(r=4, use_dora=True),
    "ia3": IA3(),
    "prefix": PrefixTuning(num_virtual_tokens=6),
    "prompt": PromptTuning(num_virtual_tokens=6),
    "bottleneck": BottleneckAdapter(size=8),
    "full": FullFineTuning(),
}


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """A run of each technique, far enough from the base to answer otherwise."""
    root = tmp_path_factory.mktemp("runs")
    return {
        name: finetune(
            config(tiny, steps=6, learning_rate=2e-2).model_copy(update={"technique": one, "name": name}), root=root
        )
        for name, one in TECHNIQUES.items()
    }


@pytest.fixture(scope="module")
def base(tiny):
    return ModelSpec(repo_id=tiny, dtype="float32")


@pytest.fixture(scope="module")
def comparer(runs):
    with Comparer(runs["lora"].root) as made:
        yield made


def last(updates):
    *_, final = updates
    assert final.done
    return final


def said(comparison):
    return [(answer.text, answer.tokens, answer.stop_reason) for answer in comparison.answers]


def asked(comparer, columns, prompt=PROMPT, **more):
    return last(comparer.ask(columns, prompt, max_new_tokens=LENGTH, **more))


@pytest.mark.parametrize("kind", TECHNIQUES)
def test_each_column_answers_beside_others_as_it_does_alone(comparer, runs, base, kind):
    run = runs[kind]
    columns = [
        Column(model=base),
        Column(run, examples=EXAMPLES),
        Column(run),
        Column(model=base, system="Say it twice, and slowly."),
    ]
    together = asked(comparer, columns)
    alone = [asked(comparer, [column]) for column in columns]
    assert said(together) == [one for comparison in alone for one in said(comparison)]
    assert [a.provenance for a in together.answers] == [one.answers[0].provenance for one in alone]
    assert len({answer.text for answer in together.answers}) > 1


def test_runs_that_share_a_batch_and_runs_that_can_not_stand_side_by_side(comparer, runs):
    for other in ("full", "dora", "prefix"):
        columns = [Column(), Column(runs["lora"]), Column(runs[other]), Column(runs["lora"], strength=0.5)]
        together = asked(comparer, columns)
        assert said(together)[1:] == [said(asked(comparer, [column]))[0] for column in columns[1:]]
        assert said(together)[0] == said(asked(comparer, [Column(), Column(runs["lora"])]))[0]


def test_a_conversation_is_encoded_as_the_chat_template_writes_it(comparer, base, tiny):
    column = Column(model=base, system="Be brief.", examples=EXAMPLES)
    first = asked(comparer, [column])
    second = asked(comparer, [column], "and now?", history=first.continued)
    assert second.answers[0].provenance.turns == 1
    third = asked(comparer, [column], "again", history=second.continued)
    turns = [{"role": "system", "content": "Be brief."}]
    for question, answer in (*EXAMPLES, (PROMPT, first.answers[0].text), ("and now?", second.answers[0].text)):
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    turns.append({"role": "user", "content": "again"})
    fresh = load(base)
    ids = fresh.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    made = fresh.model.generate(torch.tensor([ids]), max_new_tokens=LENGTH, do_sample=False, pad_token_id=2)
    text = fresh.tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True).rstrip("\ufffd")
    assert third.answers[0].text == text


def test_each_column_goes_on_from_its_own_answers(comparer, runs):
    columns = [Column(), Column(runs["lora"])]
    first = asked(comparer, columns)
    assert first.answers[0].text != first.answers[1].text
    second = asked(comparer, columns, "and now?", history=first.continued)
    for place, column in enumerate(columns):
        beside = [Column(runs["lora"]), column]  # another first column, the same history for this one
        alone = asked(comparer, beside, "and now?", history=[first.continued[1], first.continued[place]])
        assert said(alone)[1] == said(second)[place]
    assert second.continued[1][0] == (PROMPT, first.answers[1].text)


def test_at_strength_0_it_is_the_base_and_at_1_the_run(comparer, runs):
    run = runs["lora"]
    columns = [Column(), Column(run, strength=0), Column(run, strength=0.5), Column(run)]
    found = said(asked(comparer, columns))
    assert found[0] == found[1] != found[3]
    other = answers_at_strengths(run, PROMPT, (0.5, 1.0), max_new_tokens=LENGTH)
    assert [text for text, *_ in found[2:]] == [one.answer for one in other.answers]


def test_answers_by_several_seeds_are_those_by_each_alone_and_equal_ones_are_folded(comparer, runs):
    columns, more = [Column(), Column(runs["lora"]), Column(runs["ia3"])], {"temperature": 0.5}
    together = asked(comparer, columns, seeds=(5, 0, 3), **more)
    assert together.seeds == (5, 0, 3)
    for seed in together.seeds:
        assert said(together.of_seed(seed)) == said(asked(comparer, columns, seeds=[seed], **more))
    assert [[a.seed for a in answers] for answers in together.by_column] == [[5, 0, 3]] * 3
    few = last(comparer.ask([columns[1]], PROMPT, max_new_tokens=1, seeds=8, temperature=0.3))
    folded = fold_equal(few.answers)
    assert sorted(seed for one in folded for seed in one.seeds) == list(range(8))
    assert [one.count for one in folded] == sorted((one.count for one in folded), reverse=True)
    assert all(few.answers[seed].text == one.text for one in folded for seed in one.seeds)
    assert 1 <= len(folded) < 8


@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_a_set_of_prompts_is_answered_in_order_and_a_prompt_that_can_not_be_says_why(comparer, runs, kind):
    columns = [Column(), Column(runs[kind], examples=EXAMPLES)]
    prompts = [f"{row['prompt']}{' please' * (n % 3)}" for n, row in enumerate(ROWS)]
    prompts[3], prompts[7] = "x" * 3000, " "
    found = list(comparer.batch(columns, prompts, max_new_tokens=LENGTH))
    assert [one.prompt for one in found] == prompts
    assert "has 3" in found[3].error
    assert "positions" in found[3].error
    assert "prompt is empty" in found[7].error
    for place in (0, 2, 4, 15):
        assert said(found[place]) == said(asked(comparer, columns, prompts[place]))
    assert [one.error is None for one in found] == [place not in (3, 7) for place in range(16)]


def test_a_set_of_prompts_that_is_cancelled_gives_only_complete_answers(comparer, runs):
    stop = threading.Event()
    columns = [Column(), Column(runs["lora"])]
    prompts = [row["prompt"] for row in ROWS] * 8
    found = []
    for one in comparer.batch(columns, prompts, max_new_tokens=LENGTH, cancel=stop):
        found.append(one)
        if len(found) == 17:
            stop.set()
    assert 17 <= len(found) <= 32
    assert not any(answer.stop_reason == "cancelled" for one in found for answer in one.answers)


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_a_run_that_is_deleted_while_a_set_is_answered_is_named_and_the_base_stays(comparer, runs, kind):
    columns, prompts = [Column(), Column(runs[kind])], [row["prompt"] for row in ROWS] * 2
    growing = comparer.batch(columns, prompts, max_new_tokens=LENGTH)
    found, resident = [next(growing)], comparer._owner.resident
    delete_run(runs[kind])
    try:
        found += growing
    finally:
        restore_run(runs[kind].id, runs[kind].root)
    assert [one.error is None for one in found] == [place < 16 for place in range(32)]
    assert f"Run {runs[kind].id} is not there any more" in found[-1].error
    assert said(asked(comparer, columns, prompts[0])) == said(found[0])
    assert comparer._owner.resident is resident


def test_what_does_not_fit_is_refused_with_what_takes_the_room(comparer, runs):
    long = (("say red", "red " * 600),)
    with pytest.raises(UserError, match=r"of base, with 1 earlier turn,.*begin a new conversation"):
        asked(comparer, [Column(), Column(runs["lora"])], history=[long, ()])
    with pytest.raises(UserError, match=r"with 1 example,.*give fewer examples"):
        asked(comparer, [Column(), Column(runs["lora"], examples=long)])
    cut = last(comparer.ask([Column(), Column(runs["lora"], examples=(("say red", "r" * 1800),))], PROMPT,
                            max_new_tokens=400))  # fmt: skip
    assert "An answer ends after" in cut.note
    assert max(answer.tokens for answer in cut.answers) < 200


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([], "0 columns: give 1 to 4"),
        ([Column()] * 5, "5 columns"),
        ([Column()], "No base is named"),
        ([Column("lora", strength=2)], "strength = 2: allowed are 0"),
        ([Column("lora", strength=float("nan"))], "strength = nan"),
        ([Column(strength=0.5)], "The base has no strength"),
        ([Column("ia3", strength=0.5)], "IA³ has no strength"),
        ([Column("lora", examples=(("a", " "),))], "example 1 lacks"),
        ([Column("nobody")], "There is no run 'nobody'"),
        ([Column("lora", model=ModelSpec(repo_id="starter"))], "Leave out one"),
        ([Column("lora"), Column(model=ModelSpec(repo_id="elsewhere"))], "different bases"),
    ],
)
def test_columns_that_can_not_be_are_refused(comparer, columns, message):
    with pytest.raises(UserError, match=message):
        comparer.ask(columns, PROMPT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": (1, 1), "temperature": 1.0}, "different ones"),
        ({"seeds": 9, "temperature": 1.0}, "1 to 8"),
        ({"seeds": 0}, "1 to 8"),
        ({"seeds": 2}, "Raise temperature"),
        ({"seeds": (-1,), "temperature": 1.0}, "0 or more"),
        ({"history": [()]}, "1 histories for 2 columns"),
    ],
)
def test_settings_that_can_not_be_are_refused(comparer, settings, message):
    with pytest.raises(UserError, match=message):
        comparer.ask([Column(), Column("lora")], PROMPT, **settings)


def test_labels_say_what_a_column_is_and_no_two_are_the_same(runs):
    run = runs["lora"]
    columns = [
        Column(),
        Column(system="Be brief."),
        Column(system="Be long."),
        Column(examples=EXAMPLES[:1]),
        Column(run, examples=EXAMPLES, system="Be brief."),
        Column(run, strength=0.5),
        Column(run, system=""),
    ]
    assert labels_of(columns) == [
        "base",
        "base with system prompt",
        "base with system prompt (2)",
        "base with 1 example",
        "lora with system prompt and 2 examples",
        "lora × 0.5",
        "lora without system prompt",
    ]


def test_every_answer_says_what_it_was_made_with(comparer, runs):
    columns = [Column(), Column(runs["lora"], strength=0.5, system="Be brief.", examples=EXAMPLES)]
    base, tuned = asked(comparer, columns, seeds=[3], temperature=1.0).answers
    assert "adapter off · float32" in base.provenance.text
    assert "no system prompt, no examples · temperature 1, seed 3" in base.provenance.text
    assert f"adapter {runs['lora'].id} on × 0.5" in tuned.provenance.text
    assert "· system prompt, 2 examples ·" in tuned.provenance.text
    assert not base.provenance.own
    assert tuned.provenance.own


def test_a_run_that_was_trained_with_a_system_prompt_is_asked_with_it_and_so_is_the_base_beside_it(tiny, runs):
    made = config(tiny, steps=2)
    stage = made.stages[0]
    taught = stage.model_copy(update={"data": stage.data.model_copy(update={"system": "You name colours."})})
    run = finetune(made.model_copy(update={"stages": (taught,)}), root=runs["lora"].root)
    with Comparer(run.root) as comparer:
        own = asked(comparer, [Column(), Column(run)])
        assert own.system == "You name colours."
        assert said(own) == said(asked(comparer, [Column(system="You name colours."), Column(run)]))
        without = asked(comparer, [Column(), Column(run, system="")])
        assert without.system is None
        assert [a.provenance.system for a in without.answers] == [True, False]
        assert asked(comparer, [Column(), Column(run, system=" ")]).answers[1].text == without.answers[1].text


def test_a_run_at_a_stage_answers_as_it_did_then(tiny, runs):
    made = config(tiny, steps=3)
    two = made.model_copy(update={"stages": (made.stages[0], made.stages[0])})
    run = finetune(two, root=runs["lora"].root)
    with Comparer(run.root) as comparer:
        first, second = asked(comparer, [Column(f"{run.id}@stage1"), Column(run.at_stage(1))]).answers
        assert first.label.endswith("at stage 1")
        assert first.provenance.adapter == f"{run.id}@stage1"
        assert second.text == asked(comparer, [Column(run)]).answers[0].text
        run.roll_back(0)
        assert first.text == asked(comparer, [Column(run)]).answers[0].text
    with pytest.raises(UserError, match="keeps no result of stage 3"):
        run.at_stage(2)
    with pytest.raises(UserError, match="is a stage of a run, which can only be asked"):
        run.at_stage(0).queue()


# what else happens on the same thread


def in_threads(*work):
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    return threads


def test_who_takes_turns_and_who_shares_the_batch_are_answered_at_the_same_time(comparer, runs):
    """The whole model of full fine-tuning stands where the base does, in turns: the batch must not see it."""
    for kind in ("full", "dora", "bottleneck"):
        columns = {"turns": [Column(), Column(runs[kind])], "batch": [Column(), Column(runs["lora"])]}
        alone = {name: said(last(comparer.ask(some, PROMPT, max_new_tokens=60))) for name, some in columns.items()}
        order, got = [], {}

        def ask(name, columns=columns, order=order, got=got):
            updates = comparer.ask(columns[name], PROMPT, max_new_tokens=60)
            got[name] = said(last(order.append(name) or one for one in updates))

        for thread in in_threads(lambda ask=ask: ask("turns"), lambda ask=ask: ask("batch")):
            thread.join(60)
        assert got == alone
        first, final = ({name: where(order, name) for name in columns} for where in (list.index, last_index))
        assert max(first.values()) < min(final.values())


def last_index(values, value):
    return len(values) - 1 - values[::-1].index(value)


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_what_goes_wrong_in_telling_a_token_ends_that_question_alone(comparer, runs, monkeypatch, kind):
    columns = [Column(), Column(runs[kind])]
    expected = said(asked(comparer, columns, "say red"))
    hear = Talk.hear

    def broken(self, rows, step):
        hear(self, rows, step)
        if self.question.prompt == "say blue" and self.answers[0].tokens > 2:
            raise RuntimeError("nobody listens")

    monkeypatch.setattr(Talk, "hear", broken)
    got = {}

    def ask(prompt):
        try:
            got[prompt] = said(asked(comparer, columns, prompt))
        except RuntimeError as error:
            got[prompt] = str(error)

    for thread in in_threads(*(lambda prompt=prompt: ask(prompt) for prompt in ("say blue", "say red"))):
        thread.join(60)
    assert got == {"say blue": "nobody listens", "say red": expected}


def test_who_does_not_fit_into_memory_waits_is_told_and_is_answered(comparer, runs, monkeypatch):
    columns = [Column(), Column(runs["lora"])]
    expected = said(last(comparer.ask(columns, PROMPT, max_new_tokens=50)))
    monkeypatch.setattr("tunelab.machine.hardware.available_memory_bytes", lambda device=None: 100_000)
    told: list[list] = [[] for _ in range(4)]
    for thread in in_threads(
        *(lambda one=one: one.extend(comparer.ask(columns, PROMPT, max_new_tokens=50)) for one in told)
    ):
        thread.join(60)
    assert [said(one[-1]) for one in told] == [expected] * 4
    waited = [one for one in told if any("waiting: 2 answers" in (update.note or "") for update in one)]
    assert len(waited) >= 2


def test_who_asks_another_base_is_not_overtaken_by_those_who_come_later(comparer, runs, tmp_path_factory):
    other = ModelSpec(repo_id=str(tiny_llama(tmp_path_factory.mktemp("other"), seed=4)), dtype="float32")
    asked(comparer, [Column(runs["lora"])])  # its base is resident
    first = comparer.ask([Column(runs["lora"])], PROMPT, max_new_tokens=600)
    next(update for update in first if update.answers)
    second, done = comparer.ask([Column(model=other)], PROMPT, max_new_tokens=4), []
    assert "answers others first" in next(second).note
    later = comparer.ask([Column(runs["lora"])], PROMPT, max_new_tokens=1)
    threads = in_threads(
        lambda: done.append(("second", last(second))),
        lambda: done.append(("later", last(later))),
    )
    time.sleep(0.2)
    first.close()
    for thread in threads:
        thread.join(60)
    assert [name for name, _ in done] == ["second", "later"]


def test_nobody_waits_for_ever_while_others_ask_another_base(comparer, runs, tmp_path_factory):
    other = ModelSpec(repo_id=str(tiny_llama(tmp_path_factory.mktemp("other"), seed=5)), dtype="float32")
    stop, counts = threading.Event(), {"one": 0, "two": 0}
    columns = {"one": Column(runs["lora"]), "two": Column(model=other)}
    expected = {name: said(asked(comparer, [column])) for name, column in columns.items()}

    def ask(name):
        while not stop.is_set():
            assert said(asked(comparer, [columns[name]])) == expected[name]
            counts[name] += 1

    threads = in_threads(*[lambda: ask("one")] * 3, *[lambda: ask("two")] * 3)
    end = time.monotonic() + 60
    while min(counts.values()) < 6 and time.monotonic() < end:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert min(counts.values()) >= 6


def test_who_cancels_while_waiting_leaves_without_an_answer(comparer, runs):
    stop = threading.Event()
    long = comparer.ask([Column(runs["dora"])], PROMPT, max_new_tokens=1500)
    next(update for update in long if update.answers)
    waiting = comparer.ask([Column(runs["ia3"])], PROMPT, max_new_tokens=1500, cancel=stop)
    assert next(waiting).note == "Waiting for 1 question that can't share a batch with it …"
    stop.set()
    long.close()
    final = last(waiting)
    assert [answer.stop_reason for answer in final.answers] == ["cancelled"]
    assert final.answers[0].tokens == 0


def test_what_is_asked_while_or_after_it_is_closed_is_answered(runs):
    comparer = Comparer(runs["lora"].root)
    long = comparer.ask([Column(runs["lora"])], PROMPT, max_new_tokens=200)
    next(update for update in long if update.answers)
    (closing,) = in_threads(comparer.close)
    expected = said(asked(comparer, [Column(runs["lora"])]))
    closing.join(60)
    assert last(long)
    assert said(asked(comparer, [Column(runs["lora"])])) == expected
    comparer.close()


def test_a_fault_of_the_thread_itself_is_told_to_everybody_and_the_next_one_is_answered(runs, monkeypatch):
    with Comparer(runs["lora"].root) as comparer, monkeypatch.context() as patched:
        patched.setattr("tunelab.answer.owner.Owner._begin", lambda self: 1 / 0)
        patched.setattr(threading, "excepthook", lambda args: None)
        with pytest.raises(ZeroDivisionError):
            asked(comparer, [Column(runs["lora"])])
        patched.undo()
        assert said(asked(comparer, [Column(runs["lora"])]))


def test_nothing_is_kept_of_questions_that_were_answered(comparer, runs):
    def alive(*kinds):
        gc.collect()
        return sum(isinstance(one, kinds) for one in gc.get_objects())

    def kept():
        """Once the thread that answers has let go of the last question."""
        end = time.monotonic() + 30
        while alive(Talk, FastDecoder) and time.monotonic() < end:
            time.sleep(0.05)
        return alive(Talk, FastDecoder, torch.Tensor)

    def ask(count):
        for n in range(count):
            asked(comparer, [Column(), Column(runs["lora"], strength=n % 3 / 2)], f"say {n}")
        list(comparer.batch([Column(), Column(runs["lora"])], [f"say {n}" for n in range(count)], max_new_tokens=3))

    ask(6)
    before = kept()
    ask(30)
    assert kept() <= before
