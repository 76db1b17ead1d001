"""One text, token by token, under base and tuned model."""

from __future__ import annotations

import pytest
import torch

from tests.helpers import byte_tokenizer
from tests.techniques.test_invariants import config, spec_of
from tunelab import BottleneckAdapter, FullFineTuning, LoRA, PrefixTuning, Run, UserError, finetune, load
from tunelab.measure.changes.tokens import pieces, token_changes

TEXT = "say red, über 🙂 all"


@torch.no_grad()
def log_softmax_of(model, ids, first):
    """log p of each token from `first` on, by the model's own logits."""
    logits = model(input_ids=torch.tensor([ids])).logits[0, -len(ids) :].float()
    log_p = torch.log_softmax(logits, dim=-1)
    return [float(log_p[place - 1, ids[place]]) for place in range(first, len(ids))]


@pytest.fixture(scope="module")
def lora_run(tiny, tmp_path_factory):
    return finetune(config(tiny, LoRA(r=4), steps=6), root=tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize(
    "technique",
    [
        LoRA(r=4),
        LoRA(r=4, use_dora=True),
        FullFineTuning(),
        PrefixTuning(num_virtual_tokens=6),
        BottleneckAdapter(size=8),
    ],
    ids=["lora", "dora", "full", "prefix", "bottleneck"],
)
def test_the_probabilities_are_those_of_a_plain_log_softmax(tiny, technique):
    run = finetune(config(tiny, technique, steps=6))
    found = token_changes(run, "say red all")
    fresh = load(run.base_spec)
    ids = fresh.tokenizer("say red all").input_ids
    assert found.tokens[0].base is found.tokens[0].tuned is found.tokens[0].change is None
    base = log_softmax_of(fresh.model, ids, 1)
    assert [token.base for token in found.tokens[1:]] == pytest.approx(base, abs=1e-3)
    tuned = log_softmax_of(technique.load(load(run.base_spec), run.adapter_path).eval(), ids, 1)
    assert [token.tuned for token in found.tokens[1:]] == pytest.approx(tuned, abs=1e-3)
    assert max(abs(a - b) for a, b in zip(base, tuned, strict=True)) > 0.1  # it has changed
    assert [token.change for token in found.tokens[1:]] == pytest.approx(
        [b - a for a, b in zip(base, tuned, strict=True)], abs=2e-3
    )
    assert (found.base, found.tuned) == pytest.approx((sum(base), sum(tuned)), abs=1e-2)
    assert found.scored == len(ids) - 1


def test_an_answer_is_scored_after_its_prompt_with_its_end(lora_run):
    found = token_changes(lora_run, "red it is", prompt="say red", system="Be short.")
    base = load(lora_run.base_spec)
    turns = [("system", "Be short."), ("user", "say red")]
    before = base.tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns], add_generation_prompt=True, tokenize=False
    )
    start = len(base.tokenizer(before).input_ids)
    ids = base.tokenizer(f"{before}red it is<|im_end|>").input_ids
    assert [token.text for token in found.tokens] == [*"red it is", "<|im_end|>"]
    expected = log_softmax_of(base.model, ids, start)
    assert [token.base for token in found.tokens] == pytest.approx(expected[: len(found.tokens)], abs=1e-3)


def test_the_tokens_of_one_character_are_one_piece_and_joined_they_are_the_text(lora_run):
    found = token_changes(lora_run, TEXT)
    assert "".join(token.text for token in found.tokens) == TEXT
    sizes = {token.text: token.tokens for token in found.tokens}
    assert (sizes["ü"], sizes["🙂"], sizes["b"]) == (2, 4, 1)
    assert sum(token.tokens for token in found.tokens) == len(TEXT.encode())


def test_pieces_read_as_text_whatever_the_tokens_are():
    tokenizer = byte_tokenizer()
    for text in ("", "a", "é", "\ufffd and \ufffd", "한국어", "<|im_end|>x"):
        ids = tokenizer(text).input_ids
        found = pieces(tokenizer, ids)
        assert "".join(piece for _start, _end, piece in found) == text
        assert [end for _start, end, _piece in found[:-1]] == [start for start, _end, _piece in found[1:]]


def test_a_text_longer_than_a_row_is_read_in_blocks_and_it_says_so(tiny):
    short = config(tiny, LoRA(r=4), steps=1).model_copy(update={"model": spec_of(tiny, max_length=100)})
    found = token_changes(finetune(short), "abcdefghij" * 25)
    assert "".join(token.text for token in found.tokens) == "abcdefghij" * 25
    assert [index for index, token in enumerate(found.tokens) if token.base is None] == [0, 100, 200]
    assert found.notes == (
        "The text has 250 tokens and is read in 3 blocks of 100: each begins anew, and its first token has no "
        "probability.",
    )


def test_what_can_not_be_scored_is_refused(lora_run, tiny):
    with pytest.raises(UserError, match="text is empty"):
        token_changes(lora_run, " ")
    with pytest.raises(UserError, match="nothing to score: the text is a single token"):
        token_changes(lora_run, "a")
    with pytest.raises(UserError, match="has no adapter yet"):
        token_changes(Run.create(config(tiny, LoRA(r=4))), "a text")
