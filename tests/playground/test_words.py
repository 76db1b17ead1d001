"""Words that explain themselves, the glossary as a page, and the pictures of techniques: well formed, readable without
eyes, and text stays text."""

from __future__ import annotations

import xml.etree.ElementTree as tree

import pytest

from playground.english.train import PICTURE_QUANTISED, PICTURES
from playground.views.glossary import explained, glossary_html, term
from playground.views.techniques import technique_picture
from tunelab import TECHNIQUES
from tunelab.glossary import entry, glossary

HOSTILE = "<img src=x onerror=alert(1)> and the loss & <b>"


def parsed(markup: str) -> tree.Element:
    return tree.fromstring(f"<root>{markup}</root>")


def test_a_term_shows_its_sentence_to_mouse_and_keyboard():
    (word,) = parsed(term("nats"))
    (tip,) = word
    assert (word.text, word.get("tabindex")) == ("nats", "0")
    assert tip.get("role") == "tooltip"
    assert entry("nats").short in "".join(tip.itertext())
    assert parsed(term("rank", shown="Rank r"))[0].text == "Rank r"


def test_a_text_keeps_its_words_and_hides_none_of_its_signs():
    page = parsed(explained(HOSTILE))
    assert [one.tag for one in page] == ["span"]
    for word in page:
        word.remove(word[0])
    assert "".join(page.itertext()) == HOSTILE


def test_a_term_is_explained_once_a_page():
    seen: set[str] = set()
    assert "tooltip" in explained("loss", seen)
    assert "tooltip" not in explained("loss", seen)


def test_the_glossary_lists_every_entry_under_its_anchor():
    page = parsed(glossary_html())
    anchors = {one.get("id"): "".join(one.itertext()) for one in page.iter("div") if one.get("id")}
    assert set(anchors) == {f"term-{one.anchor}" for one in glossary().values()}
    for one in glossary().values():
        assert one.short in anchors[f"term-{one.anchor}"]
        assert one.more in anchors[f"term-{one.anchor}"]


def test_the_glossary_can_be_searched_by_part_of_a_word():
    found = [one.text for one in parsed(glossary_html("quant DOUBLE")).iter("dt")]
    assert found == ["double quantisation"]
    assert "<img" not in glossary_html("<img src=x>")
    assert "&lt;img" in glossary_html("<img src=x>")


@pytest.mark.parametrize("kind", TECHNIQUES)
@pytest.mark.parametrize("quantized", [False, True])
def test_every_technique_has_a_picture_that_says_what_it_shows(kind, quantized):
    if kind == "full" and quantized:
        with pytest.raises(ValueError, match="quantised"):
            technique_picture(kind, quantized)
        return
    picture = tree.fromstring(technique_picture(kind, quantized))
    title = picture.find("{*}title")
    assert picture.get("role") == "img"
    assert picture.get("aria-label") == title.text
    assert PICTURES[kind] in title.text
    assert (PICTURE_QUANTISED in title.text) == quantized


def test_pictures_differ_and_take_their_colours_from_the_page():
    pictures = [technique_picture(kind) for kind in TECHNIQUES] + [technique_picture("lora", quantized=True)]
    assert len(set(pictures)) == len(pictures)
    for picture in pictures:
        for one in tree.fromstring(picture).iter():
            for colour in (one.get("fill"), one.get("stroke")):
                assert colour in (None, "none", "currentColor", "var(--accent, #c2410c)")
    assert technique_picture("lora", quantized=True).count("QLoRA. ") == 2
