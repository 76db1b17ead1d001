"""Choices that change while a page is open."""

from __future__ import annotations

import pytest

from playground.parts.choices import OfTheMoment


@pytest.mark.parametrize(
    ("choices", "sent", "taken"),
    [
        ([("result", ""), ("step 3", "3")], "3", "3"),
        ([("result", "")], "3", ""),
        (["one"], "two", None),
        (["one"], None, None),
        ([], "one", None),
    ],
)
def test_what_is_no_choice_any_more_counts_as_none(choices, sent, taken):
    assert OfTheMoment(choices, value=None).preprocess(sent) == taken


def test_of_several_those_that_are_there_are_taken():
    assert OfTheMoment(["one", "two"], value=None, multiselect=True).preprocess(["two", "gone"]) == ["two"]


def test_the_page_shows_it_as_a_drop_down():
    assert OfTheMoment([]).get_block_name() == "dropdown"
