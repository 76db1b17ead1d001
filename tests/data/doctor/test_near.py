"""Near duplicates and leaks: what is found is what a comparison of every pair finds."""

from __future__ import annotations

import itertools
import random

import numpy
import pytest

from tests.data.doctor.ordinary import ask
from tunelab.data.doctor import examine_rows, near
from tunelab.data.examples import Example

WORDS = [
    a + b + c for a in ("ba", "lo", "mi", "ter", "ku") for b in ("ran", "sel", "do", "vit") for c in ("a", "en", "ok")
]
SURE = 0.12  # more than three standard deviations of an estimate from 128 values


def windows(text: str) -> set[str]:
    return {text[i : i + near.WINDOW] for i in range(max(1, len(text) - near.WINDOW + 1))}


def jaccard(one: str, other: str) -> float:
    return len(windows(one) & windows(other)) / len(windows(one) | windows(other))


def edited(text: str, edits: int, rng: random.Random) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), edits):
        words[place] = rng.choice(WORDS)
    return " ".join(words)


def texts(seed: int, count: int = 40) -> list[str]:
    rng = random.Random(seed)
    originals = [" ".join(rng.choices(WORDS, k=rng.randint(5, 60))) for _ in range(count)]
    copies = [edited(text, rng.randint(0, min(8, len(text.split()))), rng) for text in originals]
    return [*originals, *copies]


def signed(rows: list[str]) -> near.Signatures:
    return near.signatures((near.Near(text, "") for text in rows), len(rows), None)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_near_as_their_sets_of_windows_are(seed):
    rows = texts(seed)
    first = near.first_of_each(signed(rows))
    checked = 0
    for one, other in itertools.combinations(range(len(rows)), 2):
        similarity = jaccard(rows[one], rows[other])
        if similarity >= near.NEAR + SURE:
            checked += 1
            assert first[one] == first[other], similarity
        if first[one] == first[other] and similarity < near.NEAR - SURE:
            assert sum(first == first[one]) > 2, "two rows that are not near, and no other that links them"
    assert checked > 5


def test_one_row_of_each_cluster_is_left_and_no_two_of_these_are_near():
    sign = signed(texts(7) * 2)
    first = near.first_of_each(sign)
    assert (first[first] == first).all()
    assert (first <= numpy.arange(len(first))).all()
    left = numpy.unique(first)
    assert len(left) <= len(first) / 2
    again = near.first_of_each(near.Signatures(sign.values[left], sign.exact[left]))
    assert (again == numpy.arange(len(left))).all()


def test_signatures_do_not_depend_on_neighbours_or_order():
    rows = ["", "a", "word", "five!", "more than that", "日本語のテキスト", "half \ud800 a character", *texts(3)]
    sign = signed(rows)
    order = random.Random(0).sample(range(len(rows)), len(rows))
    assert (signed([rows[n] for n in order]).values == sign.values[order]).all()
    for n, row in enumerate(rows):
        assert (signed([row]).values[0] == sign.values[n]).all()


@pytest.mark.parametrize("others", [0, 100])
def test_copies_of_one_row_are_found_among_few_and_many_rows(others):
    rng = random.Random(1)
    base = " ".join(rng.choices(WORDS, k=30))
    copies = [edited(base, 1, rng) for _ in range(8)]
    more = [" ".join(rng.choices(WORDS, k=30)) for _ in range(others)]
    rows = [ask(text, f"It is {text.split()[0]}", row=n) for n, text in enumerate([base, *copies, *more], 1)]
    found = {f.kind: f for f in examine_rows(rows).findings}
    assert found["near-duplicates"].count >= 6


def test_plain_text_is_compared_as_well():
    base = "It was the best of times, it was the worst of times, it was the age of wisdom and of foolishness."
    rows = [Example(text=base, row=1), Example(text=f"{base} Yes.", row=2), Example(text="Call me Ishmael.", row=3)]
    (found,) = (f for f in examine_rows(rows).findings if f.kind == "near-duplicates")
    assert found.count == 1
    assert [example.row for example in found.examples] == [1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_leaks_are_those_of_every_pair(seed):
    rng = random.Random(seed)
    train = [" ".join(rng.choices(WORDS, k=rng.randint(8, 40))) for _ in range(60)]
    heldout = [edited(text, n % 3, rng) for n, text in enumerate(train[:30])]
    heldout += [" ".join(rng.choices(WORDS, k=20)) for _ in range(30)]
    found = near.nearest(signed(heldout), signed(train))
    best = numpy.array([max(jaccard(text, other) for other in train) for text in heldout])
    assert (found[best >= near.NEAR + SURE] >= 0).all()
    assert (found[best < near.NEAR - SURE] < 0).all()
    assert sum(found >= 0) >= 10
