"""The glossary: every term the project shows is in it, short and once; a text's terms are found and nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playground import forms
from tests.conftest import REPOSITORY
from tunelab import TECHNIQUES, ModelSpec, TrainConfig
from tunelab.glossary import Entry, entry, glossary, linked
from tunelab.measure import metrics
from tunelab.measure.metrics import Measure

EVERY = list(glossary().values())
SHOWN_METRICS = [
    one for name in metrics.__all__ if isinstance(one := getattr(metrics, name), type) and issubclass(one, Measure)
]
# labels of the forms that are plain words, or say all there is to say: their line of help is enough
PLAIN = {
    "Choose by",
    "Device",
    "Eval every",
    "Fast",
    "Init text",
    "Keep best",
    "Model",
    "Placement",
    "Revision",
    "Samples",
}
PLAIN |= {"Scaled inputs", "Scaled modules"}


def marked(text: str) -> list[tuple[str, str]]:
    return [(piece.text, piece.entry.term) for piece in linked(text) if piece.entry]


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.term)
def test_an_entry_is_whole_and_short(one):
    assert 20 < len(one.short) <= 220
    assert 20 < len(one.more) <= 420
    for text in (one.short, one.more):
        assert text[-1] in ".?"
        assert text == " ".join(text.split())


def test_no_spelling_belongs_to_two_terms_and_no_anchor_to_two_entries():
    spellings = Counter(word for one in EVERY for word in {w.casefold() for w in (one.term, *one.spellings)})
    anchors = Counter(one.anchor for one in EVERY)
    assert [word for word, times in spellings.items() if times > 1] == []
    assert [anchor for anchor, times in anchors.items() if times > 1 or not re.fullmatch(r"[a-z0-9-]+", anchor)] == []


@pytest.mark.parametrize("kind", TECHNIQUES)
def test_every_technique_has_an_entry(kind):
    assert entry(TECHNIQUES[kind].title).theme == "Techniques"


@pytest.mark.parametrize("metric", [m for m in SHOWN_METRICS if "title" in vars(m)], ids=lambda m: m.name)
def test_every_metric_has_an_entry(metric):
    assert isinstance(entry(metric.title), Entry)


def labels() -> list[str]:
    fields = [*TrainConfig.model_fields, *ModelSpec.model_fields]
    fields += [name for technique in TECHNIQUES.values() for name in technique.model_fields if name != "kind"]
    return sorted({forms.label_of(name) for name in fields})


@pytest.mark.parametrize("label", labels())
def test_a_label_of_the_forms_has_a_term_or_is_plain(label):
    assert bool(marked(label)) != (label in PLAIN)


def test_the_plain_labels_exist():
    assert set(labels()) >= PLAIN


def test_whole_words_are_marked_once_the_longest_first():
    text = (
        "Steps, not footsteps or step-by-step or step_size: the learning rate schedule and the learning rate. One step."
    )
    assert marked(text) == [
        ("Steps", "step"),
        ("learning rate schedule", "schedule"),
        ("learning rate", "learning rate"),
    ]


def test_capitals_count_where_a_spelling_has_them():
    assert marked("KL, not kl; Eva and Adam met EVA") == [("KL", "KL"), ("Adam", "AdamW"), ("EVA", "initialisation")]
    assert marked("LOSS and Nats") == [("LOSS", "loss"), ("Nats", "nats")]


def test_everyday_words_are_found_and_not_marked():
    assert entry("run").term == "run"
    assert marked("Run this, it runs") == []


def test_what_was_seen_is_not_marked_again():
    seen: set[str] = set()
    first, second = linked("the loss", seen), linked("the loss of a step", seen)
    assert [piece.entry.term for piece in (*first, *second) if piece.entry] == ["loss", "step"]
    assert seen == {"loss", "step"}


@given(st.lists(st.sampled_from(["loss", " ", "<b>", "losses", "é", "K/V", "95 %", "\n", "-", "IA³", "ſtep", "İ"])))
def test_the_pieces_are_the_text(words):
    text = "".join(words)
    assert "".join(piece.text for piece in linked(text)) == text


def test_an_unknown_word_is_an_error_that_names_it():
    with pytest.raises(KeyError, match="frobnicate"):
        entry("frobnicate")


def test_the_first_notebook_needs_no_word_that_is_not_explained():
    prose = "".join(
        "".join(cell["source"])
        for cell in json.loads((REPOSITORY / "notebooks" / "00_quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "markdown"
    )
    for word in (*"adapter base row step LoRA QLoRA nf4 loss".split(), "linear layer"):
        assert word in prose
        assert marked(f"Here: {word}.") == [(word, entry(word).term)]
