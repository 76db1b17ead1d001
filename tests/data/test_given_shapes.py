"""Files in the shapes that public ones have, and what has to come out of each: `tests/shapes/README.md`."""

from __future__ import annotations

import json

import pytest

from tests.conftest import REPOSITORY
from tests.helpers import byte_tokenizer
from tunelab import DataSpec, UserError, read_data
from tunelab.data import encode_all, read_examples, training_rows

FOLDER = REPOSITORY / "tests" / "shapes"
SHAPES = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


def of(promise):
    return [shape for shape in SHAPES if promise in shape]


def named(shape):
    return shape["file"]


def spec_of(shape):
    return DataSpec(source=str(FOLDER / shape["file"]), **shape.get("options", {}))


def turns(example):
    return in_any_order([m.role, m.content, m.is_answer] for m in example.messages)


def in_any_order(conversation):
    """The turns, those of the user without the order of their parts (a question and its context)."""
    return [
        [role, sorted(text.split("\n\n")) if role == "user" else text, learned] for role, text, learned in conversation
    ]


def test_every_file_is_tried():
    assert {path.name for path in FOLDER.iterdir()} == {named(shape) for shape in SHAPES} | {
        "expected.json",
        "README.md",
    }


@pytest.mark.parametrize("shape", of("examples"), ids=named)
def test_rows_become_the_turns_that_were_meant(shape):
    examples = read_examples(spec_of(shape), shape["learn"])
    assert [turns(example) for example in examples] == [in_any_order(one) for one in shape["examples"]]
    split = read_data(spec_of(shape), shape["learn"])
    if "heldout" in shape:
        assert [turns(example) for example in split.train] == [in_any_order(one) for one in shape["examples"]]
        assert [turns(example) for example in split.heldout] == [in_any_order(one) for one in shape["heldout"]]
    else:
        both = sorted([*split.train, *split.heldout], key=lambda example: example.row)
        assert [turns(example) for example in both] == [in_any_order(one) for one in shape["examples"]]


@pytest.mark.parametrize("shape", of("last_example"), ids=named)
def test_the_last_row_is_read_by_what_all_rows_hold(shape):
    assert turns(read_examples(spec_of(shape))[-1]) == in_any_order(shape["last_example"])


@pytest.mark.parametrize("shape", of("notes_name"), ids=named)
def test_what_is_left_out_or_guessed_is_said(shape):
    notes = " ".join(read_data(spec_of(shape), shape["learn"]).notes)
    assert all(word in notes for word in shape["notes_name"])


@pytest.mark.parametrize("shape", of("refused_naming"), ids=named)
def test_what_can_t_be_learned_is_refused_by_name(shape):
    def used():
        examples = read_examples(spec_of(shape), shape["learn"])
        if shape.get("refused_at") == "encoding":
            encode_all(examples, byte_tokenizer(), 512)

    with pytest.raises(UserError) as caught:
        used()
    assert shape["refused_naming"] in str(caught.value)
    assert len(str(caught.value)) <= 400


@pytest.mark.parametrize("shape", of("heldout_rows"), ids=named)
def test_as_many_rows_are_held_out_as_were_asked_for(shape):
    lowest, highest = shape["heldout_rows"]
    split = read_data(spec_of(shape), shape["learn"])
    assert lowest <= len(split.heldout) <= highest


@pytest.mark.parametrize("shape", of("tokens_lost"), ids=named)
def test_of_plain_text_nothing_is_lost_and_the_end_is_held_out(shape):
    documents, split = read_examples(spec_of(shape), "text"), read_data(spec_of(shape), "text")
    assert "".join(e.text for e in split.train) + "".join(e.text for e in split.heldout) == "".join(
        e.text for e in documents
    )
    tokenizer = byte_tokenizer()
    for side in (split.train, split.heldout):
        blocks, _notes = training_rows(side, tokenizer, 64)
        ids = [token for block in blocks for token in block.input_ids]
        assert tokenizer.decode([i for i in ids if i != tokenizer.eos_token_id]) == "".join(e.text for e in side)
