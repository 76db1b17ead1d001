"""Training and held-out rows share nothing that is learned, and are as many as was asked."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter

import pytest

from tunelab import DataSpec, UserError, read_data
from tunelab.data.divide import closest_sum


def chat(*texts, system=None):
    """A row of user and assistant in turns."""
    roles = itertools.cycle(("user", "assistant"))
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + turns}


def folded(text):
    return " ".join(text.split()).casefold()


def scored(example):
    """Every (conversation so far, answer) of a row, by the words of the promise alone: greetings before anybody asked,
    and answers without a word, are not scored."""
    turns = [(m.role, folded(m.content)) for m in example.messages]
    answers = [i for i, (role, text) in enumerate(turns) if role == "assistant" and text]
    return {(tuple(turns[:i]), turns[i][1]) for i in answers if any(role == "user" for role, _text in turns[:i])}


def asked(example):
    return max(scored(example), key=lambda pair: len(pair[0]))[0]


def check(split):
    trained = set().union(*map(scored, split.train))
    assert not trained & set().union(*map(scored, split.heldout))
    assert not {so_far for so_far, _answer in trained} & set(map(asked, split.heldout))


SHAPES = {
    "all end alike": [chat(f"q {n}", f"a {n}", "Thanks!", "Welcome.") for n in range(100)],
    "many end alike": [chat(f"q {n}", f"a {n}", "Thanks!" if n < 88 else f"bye {n}", "Welcome.") for n in range(100)],
    "all open with one question": [chat("Hi", f"hello {n}", f"q {n}", "yes") for n in range(100)],
    "many share an opening and its answer": [
        chat("Hi" if n < 80 else f"hi {n}", "hello", f"q {n}", "yes") for n in range(100)
    ],
    "some are the beginning of others": [
        chat(*(f"{side} {n // 4} {turn}" for turn in range(1 + n % 4) for side in ("q", "a"))) for n in range(100)
    ],
    "system prompts differ": [chat("What now?", "Wait.", system=f"You are {n}.") for n in range(100)],
    "the assistant greets after a system text": [
        {
            "messages": [
                {"role": "system", "content": "Help."},
                {"role": "assistant", "content": "Hello, how can I help?"},
                *chat(f"q {n}", f"a {n}")["messages"],
            ]
        }
        for n in range(100)
    ],
    "every second answer is empty": [chat("Hi", "", f"q {n}", f"a {n}") for n in range(100)],
    "questions in several ways of writing": [
        chat(f"question{' ' * (n % 3 + 1)}{n // 4}" if n % 2 else f"QUESTION {n // 4}", f"a {n}") for n in range(100)
    ],
    "one question is asked alone and on the way": [
        *(chat("Hi", f"hello {n}") for n in range(10)),
        *(chat("Hi", f"good day {n}", f"q {n}", "yes") for n in range(10)),
        *(chat(f"q {n}", f"a {n}") for n in range(80)),
    ],
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_learned_is_held_out_and_the_share_is_what_was_asked(name, seed):
    rows = SHAPES[name]
    split = read_data(DataSpec(rows=rows, heldout=0.1, seed=seed))
    check(split)
    assert abs(len(split.heldout) - 10) <= 2
    assert len(split.train) + len(split.heldout) == 100
    assert len({e.row for e in (*split.train, *split.heldout)}) == 100
    assert not [note for note in split.notes if "held out" in note]


def test_the_shared_shape_is_divided_as_it_says(shared_data):
    folder = shared_data / "shapes"
    (shape,) = [s for s in json.loads((folder / "expected.json").read_text()) if s["file"] == "thanks.jsonl"]
    split = read_data(DataSpec(source=str(folder / shape["file"]), **shape["options"]))
    low, high = shape["heldout_rows"]
    assert low <= len(split.heldout) <= high
    check(split)


@pytest.mark.parametrize(("together", "held"), [(95, 5), (60, 40)])
def test_where_rows_that_belong_together_forbid_the_share_it_says_so(together, held):
    rows = [chat("Hi" if n < together else "Good day", "hello", f"q {n}", "yes") for n in range(100)]
    split = read_data(DataSpec(rows=rows, heldout=0.1))
    check(split)
    assert len(split.heldout) == held
    told = [note for note in split.notes if f"{held} rows are held out instead of 10" in note]
    assert told
    assert f"{together} of them together (rows 1, 2, 3, …)" in told[0]


def test_rows_that_all_belong_together_are_refused_with_the_way_out():
    with pytest.raises(UserError, match=r"all 9 rows ask the same or share .*rows 1, 2, 3, ….*heldout: FILE"):
        read_data(DataSpec(rows=[chat("Hi", "hello", f"q {n}", "yes") for n in range(9)]))


def test_a_question_that_many_rows_share_is_the_last_to_be_held_out():
    rows = [chat("Classify." if n < 9 else f"q {n}", f"a {n}") for n in range(100)]
    for seed in range(20):
        split = read_data(DataSpec(rows=rows, heldout=0.1, seed=seed))
        assert len(split.heldout) == 10
        assert "Classify." not in {e.prompt for e in split.heldout}


@pytest.mark.parametrize("heldout", [0.999, 0.001, 99, 1])
def test_no_share_leaves_a_side_empty(heldout):
    split = read_data(DataSpec(rows=[chat(f"q {n}", "a") for n in range(100)], heldout=heldout))
    assert split.train
    assert split.heldout


def test_a_sum_of_groups_comes_as_close_as_any():
    for seed in range(200):
        draw = random.Random(seed)
        sizes = Counter(draw.randrange(1, 9) for _ in range(draw.randrange(2, 7)))
        wanted, total = draw.randrange(1, 20), sum(size * count for size, count in sizes.items())
        choices = itertools.product(*(range(count + 1) for count in sizes.values()))
        sums = {sum(size * count for size, count in zip(sizes, choice, strict=True)) for choice in choices}
        chosen = closest_sum(sizes, wanted)
        assert all(chosen[size] <= sizes[size] for size in chosen)
        made = sum(size * count for size, count in chosen.items())
        assert abs(made - wanted) == min(abs(t - wanted) for t in sums if 0 < t < total), (sizes, wanted)


def test_groups_that_fit_badly_still_come_within_two_rows():
    sizes = [7] * 50 + [4, 6]
    rows = [chat(f"question {group}", f"a {group} {n}") for group, size in enumerate(sizes) for n in range(size)]
    for seed in range(5):
        split = read_data(DataSpec(rows=rows, heldout=10, seed=seed))
        assert abs(len(split.heldout) - 10) <= 2


def test_leaks_into_a_held_out_file_are_told_by_kind():
    rows = [chat("Hi", "hello", "One?", "1"), chat("Two?", "2"), chat("Three?", "3")]
    held = [
        chat("two?", "2"),
        chat("Hi", "hello", "Four?", "4"),
        chat("Three?", "three"),
        chat("Hi", "Good day", "Five?", "5"),
    ]
    notes = "\n".join(read_data(DataSpec(rows=rows, heldout_rows=held)).notes)
    assert "1 held-out rows are also training rows (held-out row 1)" in notes
    assert "1 held-out rows hold a turn that is also learned from training rows (held-out row 2)" in notes
    assert "1 held-out rows ask what training rows ask (held-out row 3)" in notes
    assert notes.count("warning") == 3
