"""Pictures for teaching: what they draw is where it belongs, and stands in words as well."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from tunelab.glossary import entry
from tunelab.measure.pictures import Part, block_picture, dots_chart, stages_picture

SVG = "{http://www.w3.org/2000/svg}"


def drawn(picture):
    """The picture as a tree, as a browser reads it in a page."""
    return ElementTree.fromstring(str(picture).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def texts(tree):
    return {one.text: one for one in tree.iter(f"{SVG}text") if one.text}


def test_a_block_shows_the_place_of_every_technique():
    tree = drawn(block_picture())
    for word in ("prompt", "prefix", "LoRA", "IA³", "adapter"):
        assert word in texts(tree)
    for name in ("LoRA", "prefix tuning", "prompt tuning", "bottleneck adapter", "IA³", "full fine-tuning"):
        assert entry(name).term.casefold() in tree.get("aria-label").casefold()


def test_stages_are_as_long_as_their_steps_and_replay_as_its_share():
    runs = {"two": [Part("text", 30), Part("questions", 10, replayed=0.5)], "one <stage>": [Part("questions", 40)]}
    tree = drawn(stages_picture(runs))
    bars = [one for one in tree.iter(f"{SVG}rect") if one.get("fill") == "#ea580c"]
    widths = [float(one.get("width")) for one in bars]
    assert widths == pytest.approx([widths[1] * 3, widths[1], widths[1] * 4], abs=0.3)
    stripes = [float(one.get("x1")) for one in tree.iter(f"{SVG}line")]
    end = float(bars[1].get("x")) + widths[1]
    assert all(end - widths[1] / 2 < x < end for x in stripes)
    assert len(stripes) * 7 == pytest.approx(widths[1] / 2, abs=4)
    assert "one <stage>" in texts(tree)
    assert "10 steps of questions, 50% of the rows replayed" in tree.get("aria-label")


def test_a_part_too_short_for_its_name_has_none():
    tree = drawn(stages_picture({"run": [Part("text", 1000), Part("questions", 1)]}))
    assert "text, 1000 steps" in texts(tree)
    assert "questions, 1 steps" not in texts(tree)


def test_dots_stand_at_powers_of_ten_and_their_values():
    dots = {"few": (10, 1.0), "more": (1000, 3.0), "most": (100_000, 2.0)}
    tree = drawn(dots_chart(dots, title="t", x_title="numbers", levels={"base": 3.0}))
    few, more, most = ((float(one.get("cx")), float(one.get("cy"))) for one in tree.iter(f"{SVG}circle"))
    assert most[0] - more[0] == pytest.approx(more[0] - few[0])
    assert more[0] > few[0]
    assert few[1] - most[1] == pytest.approx(most[1] - more[1], abs=0.2)
    assert most[1] > more[1]
    (level,) = [one for one in tree.iter(f"{SVG}line") if one.get("stroke-dasharray")]
    assert float(level.get("y1")) == more[1]
    assert {"base", "100,000", *dots} <= set(texts(tree))
    assert "more 3 at 1,000" in tree.get("aria-label")


def test_names_of_dots_cover_no_other_name_and_stay_inside():
    dots = {f"technique {number}": (1_000_000 - number, 0.5) for number in range(5)} | {"one": (10, 0.5)}
    tree = drawn(dots_chart(dots, title="t", x_title="x"))
    heights = [float(texts(tree)[name].get("y")) for name in dots if name != "one"]
    assert min(abs(a - b) for i, a in enumerate(heights) for b in heights[:i]) >= 16
    assert all(texts(tree)[name].get("text-anchor") == "end" for name in dots if name != "one")


def test_dots_of_one_value_are_drawn():
    assert not re.search("nan|inf", str(dots_chart({"one": (10, 1.0), "two": (10, 1.0)}, title="t", x_title="x")))
