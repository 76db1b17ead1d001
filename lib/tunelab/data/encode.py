"""Chat encoding with an exact loss mask: which tokens are read, and which are learned.

Each piece of a conversation is tokenised on its own, so that training sees exactly the tokens inference will make: the
prompt with the template's generation prompt, then the assistant's words and the end of turn. Scored are the
assistant's words **and the end of turn** (a model that never learns it never stops), not the header before them. What
the pieces are, and what the end is, `chat` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunelab.data.chat import ChatFormat, chat_format
from tunelab.data.examples import Example, Message
from tunelab.data.written import Written, change_notes

AT_ONCE = 1000  # texts that are tokenised in one call
UNCUT = 1 << 60  # a length that no row has


@dataclass(frozen=True)
class Encoded:
    """Tokens of one row. `scored[i]`: the model learns to predict token i (from those before it)."""

    input_ids: list[int]
    scored: list[bool]
    truncated: bool = False


def encode(example: Example, tokenizer: Any, max_length: int) -> Encoded | None:
    """The tokens and loss mask of the row that holds an example's last answer, cut at `max_length`; None when nothing
    scored is left. (Where a chat template writes earlier answers anew, those have rows of their own: `encode_all`.)
    Plain text is given whole: `pack` cuts it into blocks.

    Raises:
        UserError: the chat template does not write such conversations, or nothing can end an answer.
    """
    rows = encode_all([example], tokenizer, max_length)[0]
    return rows[-1] if rows else None


def encode_all(examples: Iterable[Example], tokenizer: Any, max_length: int) -> tuple[list[Encoded], list[str]]:
    """Every row that has something scored, and notes on what was changed, cut or left out.

    Raises:
        UserError: as `encode`; the message names the row.
    """
    chat = chat_format(tokenizer)
    documents: list[Example] = []
    conversations: list[Written] = []
    for example in examples:
        if example.text is None:
            conversations.append(chat.write(example.messages, _where(example)))
        else:
            documents.append(example)
    rows = _conversations(conversations, chat, max_length)
    learned = [row for row in rows if any(row.scored[1:])]
    cut = sum(row.truncated for row in learned)
    notes = []
    if len(learned) < len(rows):
        notes.append(f"{len(rows) - len(learned)} left out: their prompt alone fills max_length = {max_length} tokens")
    if cut:
        notes.append(f"{cut} cut at max_length = {max_length} tokens; these do not teach the model where to stop")
    texts = [chat.write_text(document.text or "") for document in documents]
    notes += (chat.notes if conversations else []) + change_notes([*conversations, *texts])
    return learned + _documents(documents, texts, chat), notes


def encode_whole(examples: Iterable[Example], tokenizer: Any) -> list[list[Encoded]]:
    """The rows of each example, nothing of them cut and none left out; an example that teaches nothing has no row.

    Raises:
        UserError: as `encode_all`.
    """
    chat = chat_format(tokenizer)
    examples = list(examples)
    conversations = [example for example in examples if example.text is None]
    written = [chat.write(example.messages, _where(example)) for example in conversations]
    rows = iter(_conversations(written, chat, UNCUT))
    counts = iter([len(each.rows) for each in written])
    return [
        [next(rows) for _row in range(next(counts))]
        if example.text is None
        else _documents([example], [chat.write_text(example.text)], chat)
        for example in examples
    ]


def encode_prompt(messages: Sequence[Message], tokenizer: Any) -> list[int]:
    """The tokens after which the model answers: exactly those that stand before an answer in training.

    Raises:
        UserError: the chat template does not write such conversations.
    """
    chat = chat_format(tokenizer)
    ((prompt, _scored),) = chat.prompt(messages, "The prompt").rows[0]
    return chat.row_start + chat.tokens(prompt)


def prompt_notes(messages: Sequence[Message], tokenizer: Any) -> list[str]:
    """What was done to the turns of a prompt so that the chat template takes them, a sentence each.

    Raises:
        UserError: as `encode_prompt`.
    """
    prompt = chat_format(tokenizer).prompt(messages, "The prompt")
    return [f"{clause}." for clause in change_notes([prompt], only="The prompt")]


def neutralise(text: str, tokenizer: Any) -> str:
    """`text` without control tokens: a space breaks each one, so that text can't end a turn or begin another."""
    return chat_format(tokenizer).control.broken(text)


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
    return chat_format(tokenizer).tokens(text)


def _where(example: Example) -> str:
    return f"Row {example.row}" if example.row else "A row"


def _conversations(written: list[Written], chat: ChatFormat, max_length: int) -> list[Encoded]:
    """The rows of conversations, tokenised and cut at `max_length`; none is left out."""
    rows = [row for each in written for row in each.rows]
    ids = iter(_tokenised(chat, [text for row in rows for text, _scored in row]))
    encoded = []
    for row in rows:
        input_ids, scored = [*chat.row_start], [False] * len(chat.row_start)
        for _text, learned in row:
            piece = next(ids)
            input_ids += piece
            scored += [learned] * len(piece)
        input_ids += chat.row_end
        scored += [True] * len(chat.row_end)
        scored[0] = False  # nothing stands before the first token
        encoded.append(Encoded(input_ids[:max_length], scored[:max_length], truncated=len(input_ids) > max_length))
    return encoded


def _documents(documents: list[Example], written: list[Written], chat: ChatFormat) -> list[Encoded]:
    """Plain texts tokenised whole, as the tokenizer begins a text, and closed where they end."""
    texts = [text for each in written for row in each.rows for text, _scored in row]
    encoded = []
    for document, ids in zip(documents, _tokenised(chat, texts), strict=True):
        input_ids = chat.text_start + ids + [chat.end_of_text] * document.whole
        if input_ids:
            encoded.append(Encoded(input_ids, [False] + [True] * (len(input_ids) - 1)))
    return encoded


def _tokenised(chat: ChatFormat, texts: list[str]) -> Iterable[list[int]]:
    """The tokens of each text, made many at a time."""
    for first in range(0, len(texts), AT_ONCE):
        # not verbose: a text longer than the model reads at once is cut into blocks, and no reason to warn
        made = chat.tokenizer(
            texts[first : first + AT_ONCE], add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        yield from made["input_ids"]
