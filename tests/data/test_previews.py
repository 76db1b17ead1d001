"""The preview: every token with its text, what is learned, what ends a turn, what is cut, and what is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.templates import KINDS
from tests.helpers import byte_tokenizer, tiny_llama
from tunelab import DataSpec, ModelSpec, Stage, overview, preview
from tunelab.data import DataSplit, Example, Message, encode_all, previews, read_data
from tunelab.data.lengths import lengths_of
from tunelab.data.pieces import CUT_SHOWN, token_texts

FOREIGN = "naïve 日本語, 🙂 and 👩‍👩‍👧 in Škofja Loka."
PASTED = "<|im_start|>user\nWhat is green?<|im_end|>\n<|im_start|>assistant\nGrass.<|im_end|>"
HEADINGS = "### Instruction:\nWhat is green?\n\n### Response:\n"


def rows_of(*answers):
    return [{"prompt": f"question {n}", "completion": answer} for n, answer in enumerate(answers)]


def stage_of(rows, **stage):
    return Stage(data=DataSpec(rows=rows, heldout_rows=rows[:1]), **stage)


def spec_of(folder, length=1000):
    return ModelSpec(repo_id=str(folder), max_length=length)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_tokens_join_to_what_the_tokenizer_decodes_and_break_no_character(kind):
    tokenizer = KINDS[kind]()
    ids = tokenizer.encode(FOREIGN * 5)
    texts = token_texts(ids, tokenizer)
    assert len(texts) == len(ids) > len(FOREIGN)
    assert "".join(texts) == tokenizer.decode(ids)
    assert "\ufffd" not in "".join(texts)
    assert {"🙂", "日", "ï"} <= set(texts)


def test_characters_whose_bytes_are_tokens_of_their_own_are_whole_where_a_tokenizer_falls_back_to_bytes():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    words |= {f"▁{word}": 257 + n for n, word in enumerate(("to", "be"))}
    made = Tokenizer(models.BPE(words, [], byte_fallback=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    word, bytes_of = [257, 258], [byte + 1 for byte in "🙂é日本".encode()]
    ids = (word + bytes_of) * 9
    texts = token_texts(ids, tokenizer)
    assert "".join(texts) == tokenizer.decode(ids)
    assert texts[: len(word + bytes_of)] == ["to", " be", "", "", "", "🙂", "", "é", "", "", "日", "", "", "本"]


def test_bytes_that_are_no_character_are_shown_as_such_and_nothing_is_lost():
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("日本")[1:-1]
    assert "".join(token_texts(ids, tokenizer)) == tokenizer.decode(ids)


def test_scored_tokens_are_those_of_training(tmp_path):
    folder = tiny_llama(tmp_path)
    messages = [{"role": role, "content": f"{FOREIGN} {n}"} for n, role in enumerate(("user", "assistant") * 2)]
    for kind in ("chatml", "mistral", "falcon"):
        tokenizer = KINDS[kind]()
        tokenizer.save_pretrained(folder)
        stage = stage_of([{"messages": messages}, {"messages": messages[:2]}])
        rows = [row for row in preview(stage, spec_of(folder, 150), 10)[0] if row.scored_tokens]
        encoded, _notes = encode_all(read_data(stage.data).train, tokenizer, 150)
        kept = [[piece for piece in row.pieces if not piece.cut] for row in rows]
        assert [[piece.id for piece in row] for row in kept] == [row.input_ids for row in encoded]
        assert [[piece.scored for piece in row] for row in kept] == [row.scored for row in encoded]
        assert [row.truncated for row in rows] == [row.truncated for row in encoded]
        assert [row.scored_tokens for row in rows] == [sum(row.scored) for row in encoded]


def test_what_ends_a_turn_is_marked_in_questions_and_answers(tiny):
    (row, *_), _notes = preview(stage_of(rows_of("one", "two")), spec_of(tiny))
    ends = [piece for piece in row.pieces if piece.is_end]
    assert [piece.text for piece in ends] == ["<|im_end|>"] * 3  # of the system, the user and the assistant
    assert [piece.scored for piece in ends] == [False, False, True]
    assert not row.warnings


def test_a_token_that_begins_texts_and_ends_answers_is_no_end_where_it_begins(tmp_path):
    folder = tiny_llama(tmp_path)
    tokenizer = byte_tokenizer()
    tokenizer.bos_token, tokenizer.chat_template = tokenizer.eos_token, "{{ bos_token }}" + tokenizer.chat_template
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<|im_end|> $A", None, [("<|im_end|>", tokenizer.eos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    (row, *_), _notes = preview(stage_of(rows_of("one", "two")), spec_of(folder))
    assert row.pieces[0].id == tokenizer.eos_token_id
    assert [piece.is_end for piece in row.pieces].index(True) > 1
    assert row.pieces[-1].is_end


def test_what_is_cut_is_shown_as_cut(tiny):
    rows = rows_of("a long answer " * 4, "y" * 1500)
    (first, second), _notes = preview(stage_of(rows), spec_of(tiny, 100), 2)
    whole, _notes = preview(stage_of(rows), spec_of(tiny, 10_000), 2)
    text = "".join(text for text, _learned in whole[0].segments)
    assert first.tokens == 100
    assert "".join(piece.text for piece in first.pieces if not piece.cut) == text[: -first.cut_tokens - 9]
    assert "".join(piece.text for piece in first.pieces) == text  # the end is one token of ten characters
    assert first.pieces[-1].is_end
    assert first.pieces[-1].cut
    assert second.cut_tokens == whole[1].tokens - 100 > sum(piece.cut for piece in second.pieces) == CUT_SHOWN
    assert any(f"{second.cut_tokens:,} of its {whole[1].tokens:,} are not seen" in one for one in second.warnings)
    assert any("No end is learned" in warning for warning in second.warnings)


def test_a_conversation_that_is_cut_in_its_last_answer_still_learns_an_end(tiny):
    messages = [{"role": role, "content": "x" * 60} for role in ("user", "assistant") * 2]
    (row, *_), _notes = preview(stage_of([{"messages": messages}] * 2), spec_of(tiny, 280))
    assert row.truncated
    assert row.ends
    assert not any("No end" in warning for warning in row.warnings)


@pytest.mark.parametrize("text", [PASTED, HEADINGS])
def test_a_prompt_in_which_a_template_is_written_already_is_said_to_have_it_twice(tiny, text):
    rows = [*rows_of("one", "two", "three"), {"prompt": text, "completion": "Grass."}]
    seen = overview(stage_of(rows), spec_of(tiny), 4)
    assert [any("the template is applied twice" in one for one in row.warnings) for row in seen.rows] == [0, 0, 0, 1]
    (warning,) = seen.warnings
    assert "1 of 4 rows: the template is applied twice" in warning
    assert seen.refusal is None


def test_warnings_count_all_rows_not_only_those_that_are_shown(tiny):
    fine, long, unanswered = rows_of("yes"), rows_of("y" * 500), [{"prompt": "p" * 500, "completion": "y"}]
    seen = overview(stage_of(fine * 5 + long * 3 + unanswered * 2), spec_of(tiny, 200), 1)
    assert len(seen.rows) == 1
    assert not seen.rows[0].warnings
    unscored, endless, cut = seen.warnings
    assert unscored.startswith("Nothing is scored in 2 of 10 rows: left out of training.")
    assert endless.startswith("No end is learned in 3 of 10 rows")
    assert cut.startswith("5 of 10 rows cut at max_length = 200 tokens")
    assert (seen.lengths.rows, seen.lengths.longer) == (10, 5)
    assert seen.refusal is None


def test_rows_that_all_lose_their_end_are_said_never_to_stop(tiny):
    seen = overview(stage_of(rows_of("y" * 300, "z" * 300)), spec_of(tiny, 200))
    assert any("will never stop" in warning for warning in seen.warnings)
    assert seen.refusal is None


def test_where_nothing_is_scored_at_all_training_is_refused_in_words(tiny):
    seen = overview(stage_of(rows_of("one", "two", "three")), spec_of(tiny, 16), 2)
    assert seen.refusal is not None
    assert seen.refusal.startswith("Nothing is scored in any of 3 rows")
    assert "max_length (now 16 tokens)" in seen.refusal
    assert [row.scored_tokens for row in seen.rows] == [0, 0]
    assert all("Nothing is scored in this row" in row.warnings[0] for row in seen.rows)
    assert not any("Nothing is scored" in warning for warning in seen.warnings)  # it is said once
    assert all("No end" not in warning for row in seen.rows for warning in row.warnings)


def test_a_row_without_an_answer_that_is_learned_is_shown_and_said_to_teach_nothing(tiny, monkeypatch):
    asked, answer = Message("user", "hi"), Message("assistant", "yes")
    train = [Example((asked, replace(answer, learned=False))), Example((asked, answer))]
    monkeypatch.setattr(previews, "read_data", lambda *_: DataSplit("rows", train, train[1:], ""))
    seen = overview(Stage(data=DataSpec(rows=rows_of("a", "b"))), spec_of(tiny))
    assert "holds no answer that can be learned" in seen.rows[0].warnings[0]
    assert any(warning.startswith("Nothing is scored in 1 of 2 rows") for warning in seen.warnings)


def test_of_many_rows_a_sample_is_looked_at_and_its_size_is_said(tiny, monkeypatch):
    monkeypatch.setattr(previews, "MOST_ENCODED", 5)
    seen = overview(stage_of(rows_of(*"abcdefghijkl")), spec_of(tiny, 16))
    assert "looked at: 5 of 12 rows, drawn by seed 0" in seen.notes
    assert seen.lengths.rows == 5
    assert seen.refusal is None  # the others may have something to learn
    assert overview(stage_of(rows_of(*"abcdefghijkl")), spec_of(tiny, 16)) == seen


def test_plain_text_is_measured_in_documents_and_nothing_of_it_is_cut(tiny):
    alone = overview(stage_of([{"text": "x" * 300}] * 2, learn="text"), spec_of(tiny, 64))
    assert not alone.warnings  # its end is learned, in its last block
    rows = [{"text": "x" * 300}, {"text": f"a {PASTED}"}, {"text": "short"}]
    seen = overview(stage_of(rows, learn="text"), spec_of(tiny, 64), 100)
    (warning,) = seen.warnings
    assert "1 of 3 rows" in warning
    assert "twice" not in warning
    assert (seen.lengths.what, seen.lengths.rows, seen.lengths.longer) == ("document", 3, 2)
    assert not any(piece.cut for row in seen.rows for piece in row.pieces)
    assert sum(piece.is_end for row in seen.rows for piece in row.pieces) == 3


def test_one_document_whose_end_is_held_out_is_said_to_teach_no_end(tiny):
    stage = Stage(data=DataSpec(rows=[{"text": "word " * 400}]), learn="text")
    assert any("No end of a document is learned" in one for one in overview(stage, spec_of(tiny, 64)).warnings)


@given(st.lists(st.integers(0, 3000), max_size=60), st.integers(1, 1200))
def test_a_histogram_counts_every_row_once_and_parts_them_at_the_longest_length(tokens, limit):
    made = lengths_of(tokens, limit)
    assert list(made.edges) == sorted(set(made.edges))
    bins = zip(made.edges, made.edges[1:], strict=False)
    below = [sum(low < count <= high or count == low == 0 for count in tokens) for low, high in bins]
    assert list(made.counts) == below
    assert made.rows == len(tokens)
    assert made.longer == sum(count > limit for count in tokens)
    assert len(made.counts) <= 21
    assert f"max_length = {limit:,}" in made.text


def test_a_last_bin_that_is_wider_is_told_apart():
    assert " … 5,000 (" in lengths_of([10, 5000], 100).text
    assert "…" not in lengths_of([10, 150], 100).text
    assert "…" not in lengths_of([10, 50], 100).text
