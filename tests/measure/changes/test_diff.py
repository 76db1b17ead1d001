"""The difference of two texts, word by word."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tunelab.measure.changes.diff import word_diff

WRITTEN = st.lists(
    st.sampled_from(["card", "the", " ", "  ", "\n", ".", "don't", "für", "卡", "é", "_", "\u200b", "🙂"]), max_size=25
)
TEXTS = st.one_of(st.text(max_size=40), WRITTEN.map("".join))


@given(TEXTS, TEXTS)
def test_joining_the_pieces_gives_back_both_texts_to_the_letter(before, after):
    diff = word_diff(before, after)
    assert diff.before == before
    assert diff.after == after
    assert all(piece.text for piece in diff.pieces)
    kinds = [piece.kind for piece in diff.pieces]
    assert all(one != other for one, other in itertools.pairwise(kinds))
    assert "added removed" not in " ".join(kinds)


@given(TEXTS)
def test_a_text_is_the_same_as_itself(text):
    assert {piece.kind for piece in word_diff(text, text).pieces} <= {"same"}


def test_words_are_compared_as_they_are_read():
    pieces = word_diff("The card was sent.", "The new card was not sent!").pieces
    assert [(piece.kind, piece.text) for piece in pieces] == [
        ("same", "The "),
        ("added", "new "),
        ("same", "card was "),
        ("added", "not "),
        ("same", "sent"),
        ("removed", "."),
        ("added", "!"),
    ]
    assert [piece.kind for piece in word_diff("die Karte kam", "die Karte kam nicht").pieces] == ["same", "added"]
    assert [p.text for p in word_diff("我的卡", "我的新卡").pieces if p.kind == "added"] == ["新"]


def test_only_white_space_that_changed_is_shown_as_changed():
    pieces = word_diff("one two\n", "one  two").pieces
    assert [(p.kind, p.text) for p in pieces] == [
        ("same", "one"),
        ("removed", " "),
        ("added", "  "),
        ("same", "two"),
        ("removed", "\n"),
    ]


def test_parts_too_long_to_compare_are_shown_whole_and_it_says_so():
    before = "same start " + " ".join(f"a{n}" for n in range(2500)) + " same end"
    after = "same start " + " ".join(f"b{n}" for n in range(2500)) + " same end"
    diff = word_diff(before, after)
    assert [piece.kind for piece in diff.pieces] == ["same", "removed", "added", "same"]
    assert "More than 2,000 words differ" in diff.note
    assert diff.before == before
    assert diff.after == after
