"""Metrics of texts: is it the reference, and if not, how much of it is there."""

from __future__ import annotations

import functools
import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy

from tunelab.measure.metrics.protocol import Metric, Reference, RowMetric, paired, ratio


class ExactMatch(RowMetric):
    """100 where the answer is the reference, case and outer white space aside; else 0."""

    name, title, unit, range, higher_is_better = "exact_match", "exact match", "%", (0, 100), True
    source = "equality after str.strip and str.casefold"

    def score(self, prediction: str, reference: str) -> float:
        return 100.0 * (folded(prediction) == folded(reference))


class OneOf(RowMetric):
    """100 where the answer is one of several references, case, punctuation, articles and spacing aside; else 0.

    A row's references are several texts, or one text that is a JSON list of texts: '["Paris", "the city of Paris"]'.
    """

    name, title, unit, range, higher_is_better = "one_of", "one of the references", "%", (0, 100), True
    source = "Rajpurkar et al. 2018, 'Know What You Don't Know: Unanswerable Questions for SQuAD', its exact match"

    def score(self, prediction: str, reference: str) -> float:
        given = squad_words(prediction)
        return 100.0 * any(squad_words(text) == given for text in _listed_in(reference))


class TokenF1(RowMetric):
    """F1 of the words of answer and reference as bags, case, punctuation and English articles aside.

    Where one of them has no word, it is 100 if the other has none either. A text in a script without spaces is one
    word: use chrF there.
    """

    name, title, unit, range, higher_is_better = "token_f1", "token F1", "points", (0, 100), True
    source = "Rajpurkar et al. 2018, SQuAD 2.0, its evaluation script"

    def score(self, prediction: str, reference: str) -> float:
        given, wanted = Counter(squad_words(prediction)), Counter(squad_words(reference))
        if not given or not wanted:
            return 100.0 * (given == wanted)
        return 200.0 * (given & wanted).total() / (given.total() + wanted.total())


class RougeL(RowMetric):
    """F1 of the longest common subsequence of words, in lower case, without stemming.

    Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3.1, with precision and recall
    weighted alike as the package rouge-score does. Deviation: that package takes only a-z and 0-9 for letters, so that
    a text in another script has no words and scores 0; here letters, digits and marks of every script make words. A
    script without spaces gives one word: use chrF there.
    """

    name, title, unit, range, higher_is_better = "rouge_l", "ROUGE-L", "points", (0, 100), True
    source = "Lin 2004, 'ROUGE: A Package for Automatic Evaluation of Summaries', section 3.1"

    def score(self, prediction: str, reference: str) -> float:
        given, wanted = rouge_words(prediction), rouge_words(reference)
        if not given or not wanted:
            return 0.0
        return 200.0 * longest_common_subsequence(given, wanted) / (len(given) + len(wanted))


class ChrF(Metric):
    """F-score of character n-grams (n to 6, recall weighted twice), as sacrebleu computes it.

    Of several rows it is the corpus figure: n-grams are counted over all of them, so long answers weigh more than in
    the mean of `rows`. Columns: n-grams given, wanted and common, for each n.
    """

    name, title, unit, range, higher_is_better = "chrf", "chrF", "points", (0, 100), True
    source = "Popović 2015, 'chrF: character n-gram F-score for automatic MT evaluation', WMT, equation 1"

    def sums(self, predictions: Sequence[str], references: Sequence[Reference]) -> numpy.ndarray:
        return _statistics(_chrf(), predictions, references, columns=18)

    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        given, wanted, common = (sums[..., place::3] for place in (0, 1, 2))
        counted = (given > 0) & (wanted > 0)  # the n that both sides have
        orders = numpy.maximum(counted.sum(-1), 1)
        precision, recall = (
            numpy.where(counted, common / numpy.maximum(side, 1), 0).sum(-1) / orders for side in (given, wanted)
        )
        return 100 * ratio(5 * precision * recall, 4 * precision + recall, 0.0)


class BLEU(Metric):
    """Geometric mean of the precisions of word n-grams (n to 4), times a penalty for brevity, as sacrebleu computes it.

    Its tokens are sacrebleu's '13a', its smoothing 'exp'. It is a figure of many rows: one whose answers are all
    shorter than four words is 0. Columns: words given, words wanted, n-grams in common for each n, n-grams given.
    """

    name, title, unit, range, higher_is_better = "bleu", "BLEU", "points", (0, 100), True
    source = "Papineni et al. 2002, 'BLEU', section 2.3; Post 2018, 'A Call for Clarity in Reporting BLEU Scores'"

    def sums(self, predictions: Sequence[str], references: Sequence[Reference]) -> numpy.ndarray:
        return _statistics(_bleu(), predictions, references, columns=10)

    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        given, wanted, common, grams = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
        none = common == 0
        # the k-th n without a match counts as 1/2^k of one
        matches = numpy.where(none, 0.5 ** numpy.cumsum(none, axis=-1), common)
        logs = numpy.log(matches / numpy.maximum(grams, 1)).mean(-1)
        penalty = numpy.minimum(0, 1 - wanted / numpy.maximum(given, 1))
        defined = (common.sum(-1) > 0) & (grams > 0).all(-1)
        return numpy.where(defined, numpy.minimum(100 * numpy.exp(logs + penalty), 100), 0.0)


class LengthRatio(Metric):
    """Characters of all answers over characters of all references; of several references the one nearest in length.

    Columns: characters given, characters wanted. 1 where there are none on either side.
    """

    name, title, unit, range, higher_is_better = "length_ratio", "length, of the reference's", "", (0, numpy.inf), None
    source = "Papineni et al. 2002, 'BLEU', section 2.2.2, of characters instead of words"

    def sums(self, predictions: Sequence[str], references: Sequence[Reference]) -> numpy.ndarray:
        lengths = [
            (len(prediction), min((len(text) for text in texts), key=lambda n: (abs(n - len(prediction)), n)))
            for prediction, texts in paired(predictions, references)
        ]
        return numpy.array(lengths, dtype=float).reshape(-1, 2)

    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        return ratio(sums[..., 0], sums[..., 1], 1.0)


class Distinct1(Metric):
    """Of the words of an answer, the share that differ: low where it goes in circles.

    Columns: different n-grams in each answer, all n-grams. 100 where no answer is as long as one of them.
    Deviation from the source: there an n-gram counts once over all answers together, which falls with the number of
    rows and can't be compared between sets of different size; here once in each answer.
    """

    name, title, unit, range, higher_is_better = "distinct_1", "distinct words", "%", (0, 100), None
    source = "Li et al. 2016, 'A Diversity-Promoting Objective Function for Neural Conversation Models', section 5.2"
    n: ClassVar[int] = 1

    def sums(self, predictions: Sequence[str], references: Sequence[Reference]) -> numpy.ndarray:
        counts = []
        for prediction, _texts in paired(predictions, references):
            words = prediction.casefold().split()
            grams = [tuple(words[start : start + self.n]) for start in range(len(words) - self.n + 1)]
            counts.append((len(set(grams)), len(grams)))
        return numpy.array(counts, dtype=float).reshape(-1, 2)

    def value(self, sums: numpy.ndarray) -> numpy.ndarray:
        return 100 * ratio(sums[..., 0], sums[..., 1], 1.0)


class Distinct2(Distinct1):
    """The same of pairs of words that stand side by side."""

    name, title = "distinct_2", "distinct pairs of words"
    n = 2


def folded(text: str) -> str:
    """A text as labels and short answers are compared: without outer white space and case."""
    return text.strip().casefold()


def squad_words(text: str) -> list[str]:
    """The words of an answer as SQuAD counts them: lower case, ASCII punctuation and English articles left out."""
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def rouge_words(text: str) -> list[str]:
    """Words in lower case: letters, digits and marks; everything else stands between them."""
    kept = (c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in text.lower())
    return "".join(kept).split()


def longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Its length, with the row of the table kept as the bits of a number.

    Source: Hyyrö 2004, "Bit-Parallel LCS-length Computation Revisited", figure 2 (Crochemore et al.'s algorithm).
    """
    everything = (1 << len(one)) - 1
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    row = everything
    for word in other:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & everything
    return len(one) - row.bit_count()


def _listed_in(reference: str) -> list[str]:
    """The texts of a JSON list of texts; of anything else, itself."""
    if reference.lstrip().startswith("["):
        try:
            found = json.loads(reference)
        except (ValueError, RecursionError):
            return [reference]
        if found and isinstance(found, list) and all(isinstance(text, str) for text in found):
            return found
    return [reference]


def _statistics(
    scorer: Any, predictions: Sequence[str], references: Sequence[Reference], columns: int
) -> numpy.ndarray:
    """sacrebleu's statistics of each row, which it sums for a corpus (rows, columns)."""
    pairs = list(paired(predictions, references))
    most = max((len(texts) for _, texts in pairs), default=0)
    # sacrebleu takes a stream for each reference, with None where a row has fewer
    streams = [[texts[place] if place < len(texts) else None for _, texts in pairs] for place in range(most)]
    found = scorer._extract_corpus_statistics([prediction for prediction, _ in pairs], streams) if pairs else []
    return numpy.array(found, dtype=float).reshape(-1, columns)


@functools.cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@functools.cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU as Scorer

    return Scorer(force=True)  # its warning about tokenised texts is not for answers
