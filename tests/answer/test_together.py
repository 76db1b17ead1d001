"""Several people ask one model at once: everybody gets the answers they would have got alone."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from tests.helpers import ROWS
from tests.train.test_loop import config
from tunelab import IA3, Comparer, LoRA, ModelSpec, UserError, compare, finetune, load
from tunelab.answer.generation import decode
from tunelab.answer.together import Asked, Together
from tunelab.data import Message, encode_prompt
from tunelab.fast.decode import FastDecoder
from tunelab.fast.llama import FastLlama

PROMPTS = [f"{row['prompt']}{' please' * (n % 4)}" for n, row in enumerate(ROWS)]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    first = finetune(config(tiny), root=root)
    other = config(tiny).model_copy(update={"technique": LoRA(r=2, target_modules=["q_proj", "down_proj"])})
    return [first, finetune(other, root=root)]


@pytest.fixture(scope="module")
def base(tiny):
    return load(ModelSpec(repo_id=tiny, dtype="float32"))


def ids_of(base, prompt):
    return encode_prompt([Message("user", prompt)], base.tokenizer)


def asking(ids, adapters, *how, **more):
    """A question of one prompt to a row for each adapter."""
    return Asked([ids] * len(adapters), adapters, *how, **more)


def alone(llama, adapters, ids, longest, ends, temperature, seed):
    """Every column's tokens when nobody else asks."""
    decoder = FastDecoder(llama, adapters, len(ids) + longest)
    options = {"end_ids": ends, "max_new_tokens": longest, "temperature": temperature, "seed": seed}
    return list(decode([decoder], [ids], **options))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("arriving", ["at once", "one at each token", "in groups", "long after"])
def test_who_joins_when_changes_nobodys_tokens(base, runs, temperature, arriving):
    llama, adapters = FastLlama(base.model), [run.config.technique.factors(run.adapter_path) for run in runs]
    ends = frozenset({2, 101})  # some end early: 101 is a byte that is written often
    columns = [[None, adapters[0]], [None, adapters[1]], [None, *adapters], [adapters[1]]]
    heard: list[list] = [[] for _ in PROMPTS]
    asked = [
        asking(ids_of(base, prompt), columns[n % 4], 3 + n, ends, heard[n].append, temperature=temperature, seeds=[n])
        for n, prompt in enumerate(PROMPTS)
    ]
    together, waiting = Together(llama), list(asked)
    size = {"at once": len(asked), "one at each token": 1, "in groups": 5, "long after": 1}[arriving]
    for turn in itertools.count():
        if waiting and (turn % 9 == 0 or arriving != "long after"):
            together.join(waiting[:size])
            del waiting[:size]
        elif together.asked:
            together.step()
        elif not waiting:
            break
    assert together.rows == 0
    for n, one in enumerate(asked):
        assert heard[n] == alone(llama, one.adapters, one.prompts[0], one.longest, ends, temperature, n)


def test_long_prompts_are_read_in_parts_and_memory_grows_with_the_answers(base, runs, monkeypatch):
    from tunelab.answer import together as module
    from tunelab.fast import decode as decoding

    for name, value in {"POSITIONS": 40, "LEAST_READ": 3, "ROOM": 1, "SIMILAR": 1, "APART": 9}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(decoding, "LEAST_GROWTH", 2)
    llama, adapters = FastLlama(base.model), [run.config.technique.factors(run.adapter_path) for run in runs]
    heard: list[list] = [[] for _ in range(6)]
    prompts = [ids_of(base, "say " + "very " * (9 * n % 31)) for n in range(6)]
    asked = [
        asking(ids, [None, *adapters], 30, frozenset({2}), one.append) for ids, one in zip(prompts, heard, strict=True)
    ]
    asked[3].prompts = [prompts[3], prompts[0], prompts[5]]  # each column its own
    together = Together(llama)
    for one in asked:
        together.join([one])
        together.step()
    assert any(not one for one in heard)  # still being read, while others are answered
    allowed, taken = together.bytes_with([]), []
    while together.asked:
        taken.append(together.bytes_now())
        together.step()
    assert taken[0] < max(taken) <= 1.5 * allowed
    assert together.bytes_now() == 0
    for n, one in enumerate(asked):
        for row, ids in enumerate(one.prompts):
            ((expected),) = zip(*alone(llama, [one.adapters[row]], ids, 30, frozenset({2}), 0.0, 0), strict=True)
            assert [step[row] for step in heard[n] if step[row] is not None] == list(expected)


def test_a_prompt_that_can_not_be_read_ends_its_own_question_alone(base, runs, monkeypatch):
    llama, ids = FastLlama(base.model), ids_of(base, PROMPTS[0])
    heard: list[list] = [[], []]
    together = Together(llama)
    first = asking(ids, [None], 9, frozenset(), heard[0].append)
    together.join([first])
    with monkeypatch.context() as patched:
        patched.setattr(FastDecoder, "__call__", lambda self, ids, padding=None: 1 / 0)
        broken = asking(ids, [None], 9, frozenset(), heard[1].append)
        together.join([broken])
    assert isinstance(broken.error, ZeroDivisionError)
    while together.asked:
        together.step()
    assert heard == [alone(llama, [None], ids, 9, frozenset(), 0.0, 0), []]


def test_who_cancels_is_not_answered_any_more_and_frees_the_rows(base, runs):
    llama = FastLlama(base.model)
    heard: list[list] = [[], []]
    stop = threading.Event()
    ids = ids_of(base, PROMPTS[0])
    first = asking(ids, [None, None], 50, frozenset(), heard[0].append, stop.is_set)
    second = asking(ids, [None], 50, frozenset(), heard[1].append)
    together = Together(llama)
    together.join([first, second])
    together.step()
    assert together.rows == 3
    stop.set()
    together.step()
    assert together.rows == 1
    assert len(heard[0]) == 2
    while together.asked:
        together.step()
    assert heard[1] == alone(llama, [None], ids, 50, frozenset(), 0.0, 0)


@pytest.mark.parametrize("look", range(1, 7))
def test_at_whichever_look_somebody_is_found_to_have_cancelled_the_others_are_answered(base, runs, look):
    llama, ids, looks = FastLlama(base.model), ids_of(base, PROMPTS[0]), itertools.count(1)
    heard: list[list] = [[], []]
    together = Together(llama)
    leaving = asking(ids, [None, None], 9, frozenset(), heard[0].append, lambda: next(looks) >= look)
    together.join([leaving, asking(ids, [None], 9, frozenset(), heard[1].append)])
    while together.asked:
        together.step()
    assert len(heard[0]) == look
    assert not leaving.going
    assert heard[1] == alone(llama, [None], ids, 9, frozenset(), 0.0, 0)


def asked_at_once(comparer, questions):
    """What each of several threads was told, in order; an error where there was one."""
    told: list[list] = [[] for _ in questions]

    def ask(n, runs, prompt, **decoding):
        try:
            told[n] += comparer.stream(runs, prompt, **decoding)
        except Exception as error:
            told[n].append(error)

    threads = [threading.Thread(target=ask, args=(n, *one), kwargs=more) for n, (*one, more) in enumerate(questions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def test_many_people_get_the_answers_each_of_them_would_get_alone(runs, tiny):
    ia3 = finetune(config(tiny).model_copy(update={"technique": IA3()}), root=runs[0].root)
    kinds = [[runs[0]], [runs[1]], runs, [ia3], [runs[0], ia3]]
    questions = [
        (kinds[n % 5], PROMPTS[n % 16], {"max_new_tokens": 4 + n, "seed": n, "temperature": float(n % 2)})
        for n in range(20)
    ]
    with Comparer(runs[0].root) as comparer:
        told = asked_at_once(comparer, questions)
    for (chosen, prompt, decoding), one in zip(questions, told, strict=True):
        expected = compare(chosen, prompt, root=runs[0].root, **decoding)
        last = one[-1]
        assert last.done
        assert [(a.label, a.text, a.tokens, a.stop_reason, a.provenance) for a in last.answers] == [
            (a.label, a.text, a.tokens, a.stop_reason, a.provenance) for a in expected.answers
        ]
        lengths = [sum(answer.tokens for answer in update.answers) for update in one]
        assert lengths == sorted(lengths)  # what is shown only grows


def test_a_question_that_can_not_be_answered_hurts_nobody_beside_it(runs, monkeypatch):
    broken = runs[1]
    monkeypatch.setattr(
        "tunelab.answer.decoders.Resident.factors",
        lambda self, result: (
            result.technique.factors(result.folder)
            if result.folder != broken.adapter_path
            else (_ for _ in ()).throw(UserError("no such adapter"))
        ),
    )
    with Comparer(runs[0].root) as comparer:
        told = asked_at_once(comparer, [([runs[n % 2]], "say red", {"max_new_tokens": 8}) for n in range(6)])
    assert all(told[n][-1].done for n in (0, 2, 4))
    assert all(str(told[n][-1]) == "no such adapter" for n in (1, 3, 5))


def test_more_people_than_there_are_rows_are_answered_in_the_order_they_came(runs, monkeypatch):
    monkeypatch.setattr("tunelab.answer.owner.MAX_ROWS", 4)
    most: list[int] = []
    step = Together.step
    monkeypatch.setattr(Together, "step", lambda self: (most.append(self.rows), step(self))[1])
    with Comparer(runs[0].root) as comparer:
        told = asked_at_once(comparer, [([runs[0]], PROMPTS[n], {"max_new_tokens": 8}) for n in range(7)])
    assert all(one[-1].done for one in told)
    assert max(most) == 4


def test_a_reader_who_leaves_frees_the_rows(runs):
    with Comparer(runs[0].root) as comparer:
        stream = comparer.stream([runs[0]], "say red", max_new_tokens=4096 - 64)
        next(update for update in stream if update.answers)
        stream.close()
        *_, last = comparer.stream([runs[0]], "say blue", max_new_tokens=8)
        assert last.done
        assert comparer._owner.together.rows == 0


def test_what_was_asked_before_the_comparer_is_closed_is_answered(runs):
    comparer = Comparer(runs[0].root)
    told: list[list] = [[] for _ in range(3)]
    threads = [
        threading.Thread(
            target=lambda one=one: one.extend(comparer.stream([runs[0]], "say red", max_new_tokens=40)), daemon=True
        )
        for one in told
    ]
    for thread in threads:
        thread.start()
    while not all(told):
        time.sleep(0.01)
    comparer.close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert all(one[-1].done for one in told)
