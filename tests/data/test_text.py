"""Plain text is learned whole: every token of every document stands in a block, long documents and single ones too."""

from __future__ import annotations

import logging

import pytest
from transformers import AutoTokenizer

from tests.helpers import byte_tokenizer
from tunelab import DataSpec, ModelSpec, RunConfig, Stage, TrainConfig, finetune, preview, read_data
from tunelab.data import Example, encode_all, pack, rows_alone, training_rows
from tunelab.techniques import LoRA
from tunelab.train.memory import read_and_forecast

LONG = " ".join(f"word{n}" for n in range(2000))


@pytest.fixture(params=["bytes", "starter"])
def tokenizer(request):
    if request.param == "bytes":
        return byte_tokenizer()
    return AutoTokenizer.from_pretrained(request.getfixturevalue("starter"))


def stream(rows):
    return [token for row in rows for token in row.input_ids]


def whole(tokenizer, *texts):
    """What the model is to see of these documents, straight from the tokenizer."""
    return [t for text in texts for t in (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)]


def test_documents_longer_than_a_block_are_learned_whole(tokenizer):
    texts = [f"{n} {LONG}" for n in range(3)]
    blocks, notes = training_rows([Example(text=text) for text in texts], tokenizer, 64)
    expected = whole(tokenizer, *texts)
    assert stream(blocks) == expected
    assert {len(block.input_ids) for block in blocks[:-1]} == {64}
    assert all(block.scored == [False] + [True] * (len(block.input_ids) - 1) for block in blocks)
    assert f"{len(expected):,} tokens of 3 documents in {len(blocks)} blocks of 64" in notes


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16])
def test_no_length_loses_a_token(count):
    tokenizer = byte_tokenizer()
    document = Example(text="x" * (count - 1)) if count > 1 else Example(text="x", whole=False)
    blocks = pack(encode_all([document], tokenizer, 8)[0], 8)
    if count == 1:
        assert blocks == []  # a token alone has nothing to be learned from
        return
    ids = whole(tokenizer, document.text)
    assert len(ids) == count
    seen = stream(blocks)
    assert (seen == ids) if count % 8 != 1 else (seen[:-2] == ids[:-1] and seen[-2:] == ids[-2:])
    assert max(len(block.input_ids) for block in blocks) <= 8


@pytest.mark.parametrize("heldout", [0.1, 0.3, 200])
def test_the_end_of_a_single_document_is_held_out_and_nothing_is_lost(tokenizer, heldout):
    split = read_data(DataSpec(rows=[{"text": LONG}], heldout=heldout), "text")
    (head,), (tail,) = split.train, split.heldout
    assert head.text + tail.text == LONG
    share = heldout if heldout < 1 else 0.1
    assert len(tail.text) == pytest.approx(share * len(LONG), abs=20)
    rows = [training_rows(side, tokenizer, 64)[0] for side in (split.train, split.heldout)]
    # as if it had never been cut: the first part does not end
    assert stream(rows[0]) + stream(rows[1]) == whole(tokenizer, LONG)
    assert any(
        f"the last {len(tail.text):,} characters of the document in row 1 are held out" in n for n in split.notes
    )
    if heldout == 200:
        assert any("not enough documents (1) to hold out 200" in note for note in split.notes)


def test_the_shared_shape_loses_no_token(shared_data):
    spec = DataSpec(source=str(shared_data / "shapes" / "long_text.jsonl"))
    split = read_data(spec, "text")
    tokenizer = byte_tokenizer()
    rows = [training_rows(side, tokenizer, 64)[0] for side in (split.train, split.heldout)]
    assert stream(rows[0]) + stream(rows[1]) == whole(tokenizer, split.train[0].text + split.heldout[0].text)
    assert len(stream(rows[1])) == pytest.approx(0.1 * len(stream(rows[0]) + stream(rows[1])), rel=0.05)


def test_a_share_of_text_is_counted_in_text_and_no_book_is_held_out_for_a_leaflet():
    book, leaflets = LONG, [f"leaflet {n} says little" for n in range(9)]
    for seed in range(5):
        split = read_data(DataSpec(rows=[{"text": t} for t in (*leaflets, book)], heldout=0.1, seed=seed), "text")
        held = sum(len(e.text) for e in split.heldout)
        assert held == pytest.approx(0.1 * (len(book) + sum(map(len, leaflets))), rel=0.15)
        assert len(split.train) >= 1
        assert book.endswith(split.heldout[-1].text)


def test_of_documents_too_few_for_the_share_nothing_stands_on_both_sides():
    texts = [LONG.replace("word", letter) for letter in "abcd"]
    split = read_data(DataSpec(rows=[{"text": t} for t in (*texts, texts[0])], heldout=0.1), "text")
    assert sum(len(e.text) for e in split.heldout) == pytest.approx(0.1 * 5 * len(texts[0]), rel=0.1)
    for tail in split.heldout:
        assert not [e for e in split.train if tail.text in e.text]


def test_a_text_without_a_space_is_cut_as_well():
    split = read_data(DataSpec(rows=[{"text": "字" * 5000}]), "text")
    assert (len(split.train[0].text), len(split.heldout[0].text)) == (4500, 500)


def test_a_document_of_a_million_letters_is_no_reason_to_warn(caplog, monkeypatch):
    theirs = logging.getLogger("transformers")
    monkeypatch.setattr(theirs, "handlers", [caplog.handler])
    monkeypatch.setattr(theirs, "level", logging.WARNING)
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = 64
    blocks, _notes = training_rows([Example(text="0123456789" * 100_000)], tokenizer, 512)
    assert len(stream(blocks)) == 1_000_001
    assert not caplog.records
    tokenizer.encode("0123456789" * 100)
    assert "longer than the specified maximum" in caplog.text  # this is what it would have said


def test_every_caller_sees_the_same_blocks(tiny):
    data = DataSpec(rows=[{"text": LONG}, {"text": "short"}], heldout=1, seed=1)
    stage = Stage(data=data, learn="text", training=TrainConfig(steps=1, batch_size=2))
    model = ModelSpec(repo_id=tiny, max_length=64, dtype="float32")
    config = RunConfig(model=model, technique=LoRA(r=4), stages=[stage])
    blocks, (told,) = training_rows(read_data(data, "text").train, byte_tokenizer(), 64)
    shown, notes = preview(stage, model, rows=1000)
    assert [row.tokens for row in shown] == [len(block.input_ids) for block in blocks]
    assert all(row.ends and not row.truncated for row in shown)
    assert f"training rows: {told}" in notes
    started = finetune(config).progress().started
    assert f"training rows: {told}" in started.notes
    assert read_and_forecast(config).total > 0


def test_documents_measured_alone_hold_nothing_of_each_other():
    tokenizer = byte_tokenizer()
    rows = [rows_alone(Example(text=text), tokenizer, 8) for text in ("0123456789", "abc")]
    assert [len(part) for part in rows] == [2, 1]
    assert stream(rows[1]) == whole(tokenizer, "abc")
