"""The probe's questions and instructions are well made, and written from another mould than the replay set."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any, NamedTuple

import numpy
import pytest

from tunelab.data.builtin import BUILTIN
from tunelab.data.content import folded
from tunelab.data.doctor.near import nearest, signatures, whole_row
from tunelab.data.sets.general import general, general_probe, probe_choices, probe_instructions
from tunelab.data.shapes import to_examples
from tunelab.spec import DataSpec

CATEGORIES = ("knowledge", "language", "arithmetic", "common sense")
# a reworded replay row has more of both (`test_a_reworded_replay_row_would_be_found`)
COSINE, JACCARD = 0.5, 0.15
LENGTH_GUESS = 40  # of 160: who knows nothing but the endings' lengths must not do better than chance


def test_there_are_forty_questions_of_each_category_with_four_endings():
    rows = probe_choices()
    assert Counter(row["category"] for row in rows) == dict.fromkeys(CATEGORIES, 40)
    assert [row["ind"] for row in rows] == list(range(160))
    for row in rows:
        assert list(row) == ["ind", "ctx", "endings", "label", "category"], row
        assert len(row["endings"]) == len({folded(ending) for ending in row["endings"]}) == 4, row
        assert all(ending == ending.strip() and ending.endswith(".") for ending in row["endings"]), row
        assert row["ctx"] == row["ctx"].strip(), row
        assert "<|" not in row["ctx"] + "".join(row["endings"]), row


def test_no_question_stands_twice():
    assert not [text for text, n in Counter(folded(row["ctx"]) for row in probe_choices()).items() if n > 1]


def test_the_right_ending_stands_equally_often_at_every_place_of_every_category():
    places = Counter((row["category"], row["label"]) for row in probe_choices())
    assert places == {(category, place): 10 for category in CATEGORIES for place in range(4)}


def test_endings_of_a_question_are_of_like_length():
    for row in probe_choices():
        lengths = [len(ending.encode()) for ending in row["endings"]]
        assert max(lengths) - min(lengths) <= 4 or max(lengths) <= 1.5 * min(lengths), row


def test_length_does_not_tell_the_right_ending():
    right, wrong, longest, shortest = [], [], 0, 0
    for row in probe_choices():
        lengths = [len(ending.encode()) for ending in row["endings"]]
        own = lengths.pop(row["label"])
        right.append(own)
        wrong += lengths
        longest += own > max(lengths)
        shortest += own < min(lengths)
    assert max(longest, shortest) < LENGTH_GUESS
    assert numpy.mean(right) == pytest.approx(numpy.mean(wrong), rel=0.05)


def test_products_and_sums_among_the_questions_are_right():
    checked = 0
    for row in probe_choices():
        if found := re.fullmatch(r"([\d ×+−]+) =", row["ctx"]):
            expected = eval(found[1].translate(str.maketrans({"×": "*", "−": "-"})))
            assert int(row["endings"][row["label"]].rstrip(".")) == expected, row
            checked += 1
    assert checked >= 10


def test_there_are_sixty_instructions_of_fifteen_kinds():
    rows = probe_instructions()
    assert Counter(row["kind"] for row in rows) == dict.fromkeys({row["kind"] for row in rows}, 4)
    assert len(rows) == 60
    assert not {row["kind"] for row in rows} & {row["kind"] for row in general()} - {"rewrite", "list"}
    for row in rows:
        assert list(row) == ["prompt", "completion", "kind"], row
        assert all(value == value.strip() and value for value in row.values()), row
        assert 5 <= len(row["completion"].split()) <= 120, row
        assert "<|" not in row["prompt"] + row["completion"], row
    for field in ("prompt", "completion"):
        assert len({folded(row[field]) for row in rows}) == 60


def test_no_built_in_set_holds_a_row_of_the_probe():
    probed = {folded(row["prompt"]) for row in probe_instructions()} | {folded(row["ctx"]) for row in probe_choices()}
    for name, one in BUILTIN.items():
        rows = [*one.rows(), *(one.heldout() if one.heldout else [])]
        assert not probed & {folded(text) for row in rows for text in row.values() if isinstance(text, str)}, name


# ---- another mould


class Closest(NamedTuple):
    value: float
    row: str
    other: str

    def __str__(self) -> str:
        return f"{self.value:.3f}: {self.row[:150]!r} and {self.other[:150]!r}"


def said(row: dict[str, Any]) -> str:
    if "ctx" in row:
        return f"{row['ctx']} {row['endings'][row['label']]}"
    return f"{row['prompt']}\n{row['completion']}"


def cosines(rows: list[str], others: list[str]) -> numpy.ndarray:
    """TF-IDF cosine (rows, others) of words, inverse document frequencies of all texts. Source: Salton and Buckley
    1988, with 1 added to counts of documents, and to the logarithm, so that no word counts nothing."""
    texts = [Counter(re.findall(r"\w+", text.casefold())) for text in rows + others]
    frequency = Counter(word for text in texts for word in text)
    places = {word: place for place, word in enumerate(frequency)}
    matrix = numpy.zeros((len(texts), len(places)))
    for line, text in enumerate(texts):
        for word, count in text.items():
            matrix[line, places[word]] = count * (1 + math.log((1 + len(texts)) / (1 + frequency[word])))
    matrix /= numpy.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix[: len(rows)] @ matrix[len(rows) :].T


def jaccards(rows: list[str], others: list[str]) -> numpy.ndarray:
    """Jaccard similarity (rows, others) of windows of five characters, those that the data doctor compares."""
    found = [windows(text) for text in rows + others]
    places = {window: place for place, window in enumerate(set().union(*found))}
    holds = numpy.zeros((len(found), len(places)), numpy.float32)
    for line, text in enumerate(found):
        holds[line, [places[window] for window in text]] = 1
    one, two = holds[: len(rows)], holds[len(rows) :]
    both = one @ two.T
    return both / (one.sum(1)[:, None] + two.sum(1)[None] - both)


def windows(text: str) -> set[str]:
    text = folded(text).ljust(5)
    return {text[place : place + 5] for place in range(len(text) - 4)}


def closest(similarity: numpy.ndarray, rows: list[str], others: list[str]) -> Closest:
    row, other = numpy.unravel_index(similarity.argmax(), similarity.shape)
    return Closest(float(similarity[row, other]), rows[row], others[other])


REPLAY = [said(row) for row in general()]
PROBES = {"questions": probe_choices, "instructions": probe_instructions}


@pytest.mark.parametrize("name", PROBES)
def test_no_row_of_the_probe_is_close_to_a_replay_row(name):
    rows = [said(row) for row in PROBES[name]()]
    by_words = closest(cosines(rows, REPLAY), rows, REPLAY)
    by_letters = closest(jaccards(rows, REPLAY), rows, REPLAY)
    told = f"closest by words (below {COSINE}?) {by_words}; by letters (below {JACCARD}?) {by_letters}"
    assert by_words.value < COSINE, told
    assert by_letters.value < JACCARD, told


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("The capital city of Australia is Canberra.", 0),
        ("An adult human has 206 bones.", 1),
        ("The largest planet in the solar system is Jupiter.", 2),
        ('Who is the author of the novel "Pride and Prejudice"?\nIt was written by Jane Austen in 1813.', 3),
    ],
)
def test_a_reworded_replay_row_would_be_found(text, place):
    for similarity, limit in ((cosines([text], REPLAY)[0], COSINE), (jaccards([text], REPLAY)[0], JACCARD)):
        assert similarity.argmax() == place
        assert similarity.max() > limit, similarity.max()


def test_instructions_are_further_from_the_replay_set_than_the_earlier_probe_and_than_its_own_rows_are():
    """The mean, over rows, of the similarity to the nearest replay row."""
    new, earlier = [said(row) for row in probe_instructions()], [said(row) for row in general_probe()]
    for how in (cosines, jaccards):
        own = how(REPLAY, REPLAY)
        numpy.fill_diagonal(own, 0)
        of = {"new": how(new, REPLAY), "earlier": how(earlier, REPLAY), "replay": own}
        mean = {name: similarity.max(axis=1).mean() for name, similarity in of.items()}
        assert mean["new"] < 0.95 * min(mean["earlier"], mean["replay"]), mean
        assert of["new"].max() < numpy.quantile(own.max(axis=1), 0.95), closest(of["new"], new, REPLAY)


def test_instructions_are_not_those_of_the_earlier_probe():
    new, earlier = [said(row) for row in probe_instructions()], [said(row) for row in general_probe()]
    by_words, by_letters = (closest(how(new, earlier), new, earlier) for how in (cosines, jaccards))
    assert by_words.value < COSINE, str(by_words)
    assert by_letters.value < JACCARD, str(by_letters)


def test_the_data_doctor_finds_no_row_of_the_probe_near_a_replay_row():
    def signed(rows: list[dict[str, Any]]):
        examples = to_examples(rows, DataSpec(rows=tuple(rows)), "instructions", "rows")[0]
        return signatures(map(whole_row, examples), len(examples), None)

    questions = [
        {"prompt": row["ctx"], "completion": row["endings"][row["label"]], "kind": "question"}
        for row in probe_choices()
    ]
    for rows in (questions, probe_instructions()):
        assert (nearest(signed(rows), signed(general())) == -1).all()
