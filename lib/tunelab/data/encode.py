"""Chat encoding with an exact loss mask: which tokens are read, and which are learned.

Each piece of a conversation is tokenised on its own, so that training sees exactly the tokens inference will make: the
prompt with the template's generation prompt, then the assistant's words and the end of turn. Scored are the
assistant's words **and the end of turn** (a model that never learns it never stops), not the header before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tunelab.data.examples import Example, Message
from tunelab.errors import UserError

# for base models, whose tokenizers have no chat template
PLAIN_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + '\n\n' }}"
    "{% elif m['role'] == 'user' %}{{ '### Question:\n' + m['content'] + '\n\n' }}"
    "{% else %}{{ '### Answer:\n' + m['content'] + eos_token + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Answer:\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Encoded:
    """Tokens of one row. `scored[i]`: the model learns to predict token i (from those before it)."""

    input_ids: list[int]
    scored: list[bool]
    truncated: bool = False


def encode(example: Example, tokenizer: Any, max_length: int) -> Encoded | None:
    """The tokens and loss mask of one row, cut at `max_length`; None when nothing scored is left. Plain text is given
    whole: `pack` cuts it into blocks.

    Raises:
        UserError: the tokenizer's chat template rewrites earlier turns, so that no exact mask exists.
    """
    if example.text is not None:
        ids = tokens(tokenizer, neutralise(example.text, tokenizer)) + [tokenizer.eos_token_id] * example.whole
        return Encoded(ids, [False] + [True] * (len(ids) - 1)) if ids else None
    ids, scored = [], []
    for text, learned in segments(example.messages, tokenizer):
        piece = tokens(tokenizer, text)
        ids += piece
        scored += [learned] * len(piece)
    row = Encoded(ids[:max_length], scored[:max_length], truncated=len(ids) > max_length)
    return row if any(row.scored[1:]) else None


def encode_all(examples: Iterable[Example], tokenizer: Any, max_length: int) -> tuple[list[Encoded], list[str]]:
    """Every row that has something scored, and notes on what was cut or left out."""
    everything = [encode(example, tokenizer, max_length) for example in examples]
    rows = [row for row in everything if row is not None]
    cut = sum(row.truncated for row in rows)
    notes = []
    if len(rows) < len(everything):
        notes.append(
            f"{len(everything) - len(rows)} left out: their prompt alone fills max_length = {max_length} tokens"
        )
    if cut:
        notes.append(f"{cut} cut at max_length = {max_length} tokens; these do not teach the model where to stop")
    return rows, notes


def encode_prompt(messages: Sequence[Message], tokenizer: Any) -> list[int]:
    """The tokens after which the model answers: exactly those that stand before an answer in training."""
    return tokens(tokenizer, _render(_clean(messages, tokenizer), tokenizer, generation_prompt=True))


def segments(messages: Sequence[Message], tokenizer: Any) -> list[tuple[str, bool]]:
    """The rendered conversation in pieces: (text, whether it is scored).

    Pieces are what inference tokenises on its own: everything up to an answer, the answer with its end of turn, and
    what the template puts after it.
    """
    turns = _clean(messages, tokenizer)
    pieces: list[tuple[str, bool]] = []
    done = ""
    for index, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        before = _render(turns[:index], tokenizer, generation_prompt=True)
        after = _render(turns[: index + 1], tokenizer, generation_prompt=False)
        if not before.startswith(done) or not after.startswith(before):
            raise UserError(
                "The chat template of this model rewrites earlier turns, so that it can't be said exactly which "
                "tokens are the answer. Choose another model, or rows with one answer each."
            )
        answer = after[len(before) :]
        scored = answer.rstrip()  # the end of turn is the last thing before white space
        pieces += [(before[len(done) :], False), (scored, True)]
        done = before + scored
    return pieces


def neutralise(text: str, tokenizer: Any) -> str:
    """`text` without control tokens: a space breaks each one, so that text can't end a turn or begin another."""
    for token in _control_tokens(tokenizer):
        if token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def pack(rows: list[Encoded], length: int) -> list[Encoded]:
    """Plain-text rows joined into blocks of `length` tokens, so that no computation goes into padding.

    Every token stands in a block and, but for the first one of each block, is learned from those before it. A last
    token that would stand alone takes the one before it along.
    """
    ids = [token for row in rows for token in row.input_ids]
    blocks = [ids[start : start + length] for start in range(0, len(ids), length)]
    if len(blocks) > 1 and len(blocks[-1]) == 1:
        blocks[-1] = ids[-2:]
    return [Encoded(block, [False] + [True] * (len(block) - 1)) for block in blocks if len(block) > 1]


def tokens(tokenizer: Any, text: str) -> list[int]:
    # not verbose: a text longer than the model reads at once is cut into blocks, and no reason to warn
    return tokenizer.encode(text, add_special_tokens=False, verbose=False)


def _clean(messages: Sequence[Message], tokenizer: Any) -> list[Message]:
    return [Message(m.role, neutralise(m.content, tokenizer)) for m in messages]


def _render(messages: Sequence[Message], tokenizer: Any, generation_prompt: bool) -> str:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    return tokenizer.apply_chat_template(
        turns,
        tokenize=False,
        add_generation_prompt=generation_prompt,
        chat_template=None if tokenizer.chat_template else PLAIN_TEMPLATE,
    )


@lru_cache(maxsize=8)
def _control_tokens(tokenizer: Any) -> tuple[str, ...]:
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if len(str(token)) > 1]
    return tuple(sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True))
