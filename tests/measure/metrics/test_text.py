"""Metrics of texts are what their authors' code computes, on 200 cases."""

from __future__ import annotations

import itertools
import random
import re
import string
from collections import Counter

import numpy
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from tests.measure.metrics.cases import cases
from tunelab.errors import UserError
from tunelab.measure.metrics import (
    BLEU,
    ChrF,
    Distinct1,
    Distinct2,
    ExactMatch,
    LengthRatio,
    OneOf,
    RougeL,
    TokenF1,
    as_evaluate,
    metric_named,
)
from tunelab.measure.metrics.text import longest_common_subsequence, rouge_words

PREDICTIONS, REFERENCES = cases()


def chrf_by_hand(prediction: str, reference: str, beta: float = 2, longest: int = 6) -> float:
    """Popović 2015, equation 1, averaged over the n that both texts have."""
    scores = []
    texts = ["".join(t.split()) for t in (prediction, reference)]
    for n in range(1, longest + 1):
        grams = [[t[i : i + n] for i in range(len(t) - n + 1)] for t in texts]
        if not grams[0] or not grams[1]:
            continue
        matches = sum(min(grams[0].count(g), grams[1].count(g)) for g in set(grams[0]))
        scores.append((matches / len(grams[0]), matches / len(grams[1])))
    if not scores:
        return 0.0
    precision, recall = numpy.mean(scores, axis=0)
    if not precision + recall:
        return 0.0
    return 100 * (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def squad_f1(prediction: str, reference: str) -> float:
    """As evaluate-v2.0.py of SQuAD does it."""

    def tokens(text: str) -> list[str]:
        text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
        return " ".join(re.compile(r"\b(a|an|the)\b", re.UNICODE).sub(" ", text).split()).split()

    gold, given = tokens(reference), tokens(prediction)
    common = Counter(gold) & Counter(given)
    same = sum(common.values())
    if len(gold) == 0 or len(given) == 0:
        return float(int(gold == given))
    if same == 0:
        return 0.0
    precision, recall = 1.0 * same / len(given), 1.0 * same / len(gold)
    return (2 * precision * recall) / (precision + recall)


class UnicodeWords(Tokenizer):
    """rouge-score's own, with `\\w` of all scripts for letters."""

    def tokenize(self, text: str) -> list[str]:
        return rouge_words(text)


def test_chrf_is_its_equation():
    pairs = [("Return a list.", "Return a new list."), ("the cat sat", "The cat sat "), ("", "x")]
    for prediction, reference in (*pairs, *zip(PREDICTIONS, REFERENCES, strict=True)):
        assert ChrF().score(prediction, reference) == pytest.approx(chrf_by_hand(prediction, reference), abs=0.01)


def test_token_f1_is_that_of_squad():
    expected = [100 * squad_f1(*pair) for pair in zip(PREDICTIONS, REFERENCES, strict=True)]
    assert TokenF1().rows(PREDICTIONS, REFERENCES) == pytest.approx(expected)
    assert TokenF1()(PREDICTIONS, REFERENCES) == pytest.approx(numpy.mean(expected))


def test_rouge_l_is_that_of_rouge_score_for_every_script():
    scorer = RougeScorer(["rougeL"], tokenizer=UnicodeWords())
    expected = [100 * scorer.score(r, p)["rougeL"].fmeasure for p, r in zip(PREDICTIONS, REFERENCES, strict=True)]
    assert RougeL().rows(PREDICTIONS, REFERENCES) == pytest.approx(expected)


def test_rouge_l_of_english_is_that_of_rouge_score_as_it_is():
    predictions, references = cases("the cat sat on mat Return list of int, x_y It's 3.14 $5 re-run a".split())
    pairs = [pair for pair in zip(predictions, references, strict=True) if "".join(pair).isascii()]
    scorer = RougeScorer(["rougeL"])
    assert len(pairs) > 190
    for prediction, reference in pairs:
        expected = 100 * scorer.score(reference, prediction)["rougeL"].fmeasure
        assert RougeL().score(prediction, reference) == pytest.approx(expected)


def test_rouge_l_sees_words_of_other_scripts():
    assert RougeL().score("кошка сидит", "Кошка сидит.") == 100
    assert rouge_words("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]


def test_the_longest_common_subsequence_is_the_longest_of_all_subsequences():
    draw = random.Random(2)
    for _ in range(100):
        one, other = (draw.choices("abc", k=draw.randint(0, 7)) for _ in range(2))
        subsequences = [
            {kept for n in range(len(side) + 1) for kept in itertools.combinations(side, n)} for side in (one, other)
        ]
        assert longest_common_subsequence(one, other) == max(map(len, subsequences[0] & subsequences[1]))


@pytest.mark.parametrize("seed", range(5))
def test_chrf_and_bleu_of_many_rows_are_the_corpus_figures_of_sacrebleu(seed):
    predictions, references = cases(count=40, seed=seed)
    assert ChrF()(predictions, references) == pytest.approx(sacrebleu.corpus_chrf(predictions, [references]).score)
    assert BLEU()(predictions, references) == pytest.approx(sacrebleu.corpus_bleu(predictions, [references]).score)


def test_chrf_and_bleu_of_one_row_are_the_sentence_figures_of_sacrebleu():
    chrf, bleu = sacrebleu.CHRF(), sacrebleu.BLEU()
    pairs = list(zip(PREDICTIONS, REFERENCES, strict=True))
    expected = [chrf.sentence_score(p, [r]).score for p, r in pairs]
    assert ChrF().rows(PREDICTIONS, REFERENCES) == pytest.approx(expected)
    expected = [bleu.corpus_score([p], [[r]]).score for p, r in pairs]
    assert BLEU().rows(PREDICTIONS, REFERENCES) == pytest.approx(expected)
    assert sum(score > 0 for score in expected) > 50


def test_several_references_count_as_sacrebleu_counts_them():
    references = [
        (r, p.upper()) if row % 3 else (r,) for row, (p, r) in enumerate(zip(PREDICTIONS, REFERENCES, strict=True))
    ]
    streams = [[row[0] for row in references], [row[1] if len(row) > 1 else None for row in references]]
    for metric, scorer in ((ChrF(), sacrebleu.CHRF()), (BLEU(), sacrebleu.BLEU())):
        assert metric(PREDICTIONS, references) == pytest.approx(scorer.corpus_score(PREDICTIONS, streams).score)
    rows = zip(PREDICTIONS, references, strict=True)
    expected = [100 * max(squad_f1(prediction, text) for text in texts) for prediction, texts in rows]
    assert TokenF1().rows(PREDICTIONS, references) == pytest.approx(expected)


def test_bleu_with_no_match_of_some_lengths_is_smoothed_as_sacrebleu_does():
    predictions, references = ["the cat sat there now", "b c"], ["the cat is here now", "b d"]
    expected = sacrebleu.corpus_bleu(predictions, [references])
    assert 0 in expected.counts
    assert BLEU()(predictions, references) == pytest.approx(expected.score)


def test_exact_match_leaves_case_and_outer_space_aside():
    assert ExactMatch().rows(["The cat ", "", "a b", "STRASSE"], ["the cat", " ", "a  b", "straße"]) == [
        100,
        100,
        0,
        100,
    ]


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("the Paris!", ["paris", "Lutetia"], True),
        ("Lutetia", ["paris", "Lutetia"], True),
        ("Lyon", ["paris", "Lutetia"], False),
        ("Lutetia", '["Paris", "Lutetia"]', True),
        ('["Paris", "Lutetia"]', '["Paris", "Lutetia"]', False),
        ("[1] see note", "[1] see note", True),
        ("[1, 2]", "[1, 2]", True),
        ("", "[]", True),
        ("", "", True),
        ("", "Paris", False),
    ],
)
def test_an_answer_is_right_when_it_is_one_of_its_references(prediction, reference, right):
    assert OneOf()([prediction], [reference]) == 100 * right


def test_the_length_ratio_is_that_of_sums_and_takes_the_nearest_reference():
    predictions, references = ["abc", "abcdef", ""], ["abcd", ("a", "abcdefgh", "abcd"), "ab"]
    assert LengthRatio()(predictions, references) == pytest.approx((3 + 6 + 0) / (4 + 4 + 2))
    assert LengthRatio().rows(["", "x", "é"], ["", "", "éé"]) == [1, numpy.inf, 0.5]


def test_distinct_n_falls_where_an_answer_goes_in_circles():
    answers = ["no no no no", "a b a b a", "All different words", "one", ""]
    words = [text.casefold().split() for text in answers]
    for metric, n in ((Distinct1(), 1), (Distinct2(), 2)):
        grams = [list(zip(*(row[start:] for start in range(n)), strict=False)) for row in words]
        expected = 100 * sum(len(set(row)) for row in grams) / sum(map(len, grams))
        assert metric(answers, [""] * 5) == pytest.approx(expected)
    assert Distinct2().rows(answers[:1], [""]) == [pytest.approx(100 / 3)]
    assert Distinct2()(["one"], [""]) == 100


def test_metrics_work_as_evaluate_metrics_without_the_hub():
    face = as_evaluate(ExactMatch())
    assert face.compute(predictions=["Yes ", "no"], references=["yes", "No, thanks"]) == {"exact_match": 50.0}
    face = as_evaluate(ChrF())
    face.add_batch(predictions=PREDICTIONS[:20], references=REFERENCES[:20])
    face.add(prediction=PREDICTIONS[20], reference=REFERENCES[20])
    expected = sacrebleu.corpus_chrf(PREDICTIONS[:21], [REFERENCES[:21]]).score
    assert face.compute() == {"chrf": pytest.approx(expected)}
    several = as_evaluate(OneOf())
    assert several.compute(predictions=["b"], references=[["a", "b"]]) == {"one_of": 100.0}


def test_a_metric_is_found_by_its_name():
    assert isinstance(metric_named("rouge_l"), RougeL)
    with pytest.raises(UserError, match=r"metric = 'rouge': there is no such metric\. There are: exact_match.*chrf"):
        metric_named("rouge")
