"""The tokenizer of a GGUF file, with what transformers leaves out when it reads one put back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunelab.model.gguf_header import failure, refusal

if TYPE_CHECKING:
    from tunelab.model.gguf_header import Header

SAMPLES = ("a\n\n1.", "it's  two, 3 and 45", "x = [1, 2]\n\tdef f():", "Zürich, naïve, 東京, 🙂")
COMPOSED = ("qwen2", "deepseek-r1-qwen")  # whose tokenizers put accents together with their letters (NFC)
WHOLE_WORDS = ("llama-bpe", "tekken")  # whose tokenizers take a word that is a token as it is, whatever the merges say


def read_tokenizer(header: Header) -> tuple[Any, list[int]]:
    """The tokenizer, and the tokens that end an answer.

    Raises:
        UserError: it can't be read, or does not give back the text it was given.
    """
    from transformers import AutoTokenizer

    path = header.path
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        mend(tokenizer, header.values.get("tokenizer.ggml.pre"))
        told = [tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) for text in SAMPLES]
    except Exception as error:  # libraries of several languages
        raise failure(path, "tokenizer", error) from None
    for text, back in zip(SAMPLES, told, strict=True):
        if back.strip() != text.strip():
            raise refusal(path, f"its tokenizer makes {back[:40]!r} of {text!r}, so it is read wrongly")
    named = [header.values.get(f"tokenizer.ggml.{one}_token_id") for one in ("eos", "eot")]
    return tokenizer, list(dict.fromkeys(int(one) for one in named if one is not None))


def mend(tokenizer: Any, pre: str | None) -> None:
    """Have a byte-level tokenizer split text as the one that `pre` names."""
    from tokenizers import normalizers, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if pre == "smollm":  # digits one by one, then GPT-2's pattern; transformers takes a plain byte level
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    if pre in COMPOSED:
        backend.normalizer = normalizers.NFC()
    if pre in WHOLE_WORDS:
        backend.model.ignore_merges = True
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
