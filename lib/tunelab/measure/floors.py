"""Floors: what a set's answers can be guessed with, without a language model. Tuning that doesn't beat them isn't worth
its time.

A floor is a function of known prompts, their answers, and the prompts that are asked; it gives an answer to each.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from tunelab.measure.metrics.propose import task_of

Floor = Callable[[Sequence[str], Sequence[str], Sequence[str]], list[str]]
SMOOTHING = 0.1  # counts that a word has with every label before it is seen (Lidstone)


def floors_for(answers: Sequence[str]) -> dict[str, Floor]:
    """The floors that fit such answers: naive Bayes where they repeat, and for JSON objects field by field."""
    if task_of(answers) == "json" and all(answer.lstrip().startswith("{") for answer in answers):
        return {
            "most frequent value of each field": by_field(majority),
            "nearest neighbour": nearest_neighbour,
            "naive Bayes for each field": by_field(naive_bayes),
        }
    found: dict[str, Floor] = {"most frequent answer": majority, "nearest neighbour": nearest_neighbour}
    return found | {"naive Bayes": naive_bayes} if len(set(answers)) <= len(answers) / 2 else found


def majority(prompts: Sequence[str], answers: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The most frequent answer, for everything that is asked; of several the first one."""
    return [Counter(answers).most_common(1)[0][0]] * len(asked)


def nearest_neighbour(prompts: Sequence[str], answers: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The answer of the known prompt that is nearest by the cosine of TF-IDF weights of words; of several the first.

    Source: Salton and Buckley 1988, weights as scikit-learn's TfidfVectorizer computes them by default.
    """
    known = [Counter(words(prompt)) for prompt in prompts]
    rows_with = Counter(word for counts in known for word in counts)
    idf = {word: math.log((1 + len(known)) / (1 + rows)) + 1 for word, rows in rows_with.items()}
    postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row, counts in enumerate(known):
        length = math.sqrt(sum((idf[word] * count) ** 2 for word, count in counts.items()))
        for word, count in counts.items():
            postings[word].append((row, idf[word] * count / length))
    columns = {word: _column(entries) for word, entries in postings.items()}
    found = []
    for prompt in asked:
        scores = numpy.zeros(len(known))
        for word, count in Counter(words(prompt)).items():
            if word in columns:
                rows, weights = columns[word]
                scores[rows] += idf[word] * count * weights
        found.append(answers[int(scores.argmax())])
    return found


def _column(entries: list[tuple[int, float]]) -> tuple[numpy.ndarray, numpy.ndarray]:
    rows, weights = zip(*entries, strict=True)
    return numpy.array(rows), numpy.array(weights)


def naive_bayes(prompts: Sequence[str], answers: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The label that multinomial naive Bayes over words finds likeliest; for answers that are labels.

    Source: McCallum and Nigam 1998, section 2, with 0.1 for the smoothing.
    """
    from scipy.sparse import csc_array

    labels, classes = numpy.unique(numpy.array(answers, dtype=object), return_inverse=True)
    tokens = [words(prompt) for prompt in prompts]
    column = {word: place for place, word in enumerate(dict.fromkeys(word for row in tokens for word in row))}
    rows = numpy.repeat(classes, [len(row) for row in tokens])
    places = numpy.array([column[word] for row in tokens for word in row], dtype=int)
    # most labels have seen few words: what was never seen is counted for all of them at once
    seen = csc_array((numpy.ones(len(places)), (rows, places)), shape=(len(labels), len(column)))
    totals = numpy.log(seen.sum(axis=1) + SMOOTHING * len(column)) if column else numpy.zeros(len(labels))
    seen.data = numpy.log(seen.data + SMOOTHING) - math.log(SMOOTHING)
    log_labels = numpy.log(numpy.bincount(classes) / len(classes))
    found = []
    for prompt in asked:
        known = Counter(column[word] for word in words(prompt) if word in column)
        scores = log_labels + known.total() * (math.log(SMOOTHING) - totals)
        for place, count in known.items():
            of_word = slice(seen.indptr[place], seen.indptr[place + 1])
            scores[seen.indices[of_word]] += count * seen.data[of_word]
        found.append(str(labels[int(scores.argmax())]))
    return found


def by_field(floor: Floor) -> Floor:
    """The same floor for answers that are JSON objects: each of their fields is guessed on its own."""

    def guess(prompts: Sequence[str], answers: Sequence[str], asked: Sequence[str]) -> list[str]:
        objects = [json.loads(answer) for answer in answers]
        names = dict.fromkeys(name for value in objects for name in value)
        guessed: list[dict[str, Any]] = [{} for _ in asked]
        for name in names:
            values = [json.dumps(value.get(name)) for value in objects]
            for row, value in zip(guessed, floor(prompts, values, asked), strict=True):
                row[name] = json.loads(value)
        return [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in guessed]

    return guess


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"\w+", text.casefold())
