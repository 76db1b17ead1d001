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
from tunelab.data.written import Written, told

AT_ONCE = 1000  # texts that are tokenised in one call


@dataclass(frozen=True)
class Encoded:
    """Tokens of one row. `scored[i]`: the model learns to predict token i (from those before it)."""

    input_ids: list[int]
    scored: list[bool]
    truncated: bool = False


def encode(example: Example, tokenizer: Any, max_length: int) -> Encoded | None:
    """The tokens and loss mask of the row that holds an example's last answer, cut at `max_length`; None when nothing
    scored is left. (Where a chat template writes earlier answers anew, those have rows of their own: `encode_all`.)

    Raises:
        UserError: the chat template does not write such conversations, or nothing can end an answer.
    """
    chat = chat_format(tokenizer)
    rows = _rows([_written(example, chat)], example.text is not None, chat, max_length)
    return rows[-1] if rows and any(rows[-1].scored[1:]) else None


def encode_all(examples: Iterable[Example], tokenizer: Any, max_length: int) -> tuple[list[Encoded], list[str]]:
    """Every row that has something scored, and notes on what was changed, cut or left out.

    Raises:
        UserError: as `encode`; the message names the row.
    """
    chat = chat_format(tokenizer)
    texts: list[Written] = []
    conversations: list[Written] = []
    for example in examples:
        (conversations if example.text is None else texts).append(_written(example, chat))
    rows = [*_rows(conversations, False, chat, max_length), *_rows(texts, True, chat, max_length)]
    notes = []
    learned = [row for row in rows if any(row.scored[1:])]
    cut = sum(row.truncated for row in learned)
    if len(learned) < len(rows):
        notes.append(f"{len(rows) - len(learned)} left out: their prompt alone fills max_length = {max_length} tokens")
    if cut:
        notes.append(f"{cut} cut at max_length = {max_length} tokens; these do not teach the model where to stop")
    return learned, notes + (chat.notes if conversations else []) + told([*conversations, *texts])


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
    return [f"{clause}." for clause in told([chat_format(tokenizer).prompt(messages, "The prompt")], only="The prompt")]


def neutralise(text: str, tokenizer: Any) -> str:
    """`text` without control tokens: a space breaks each one, so that text can't end a turn or begin another."""
    return chat_format(tokenizer).control.broken(text)


def pack(rows: list[Encoded], length: int) -> list[Encoded]:
    """Plain-text rows joined into blocks of `length` tokens, so that no computation goes into padding."""
    ids = [token for row in rows for token in row.input_ids]
    blocks = [ids[start : start + length] for start in range(0, len(ids), length)]
    return [Encoded(block, [False] + [True] * (len(block) - 1)) for block in blocks if len(block) > 1]


def tokens(tokenizer: Any, text: str) -> list[int]:
    return chat_format(tokenizer).tokens(text)


def _written(example: Example, chat: ChatFormat) -> Written:
    if example.text is None:
        return chat.write(example.messages, f"Row {example.row}" if example.row else "A row")
    return chat.write_text(example.text)


def _rows(written: list[Written], is_text: bool, chat: ChatFormat, max_length: int) -> list[Encoded]:
    """The rows of conversations, or of texts, tokenised; none is left out."""
    rows = [row for each in written for row in each.rows]
    ids = iter(_tokenised(chat, [text for row in rows for text, _scored in row]))
    start = chat.text_start if is_text else chat.row_start
    end = [chat.end_of_text] if is_text else chat.row_end
    encoded = []
    for row in rows:
        input_ids, scored = [*start], [False] * len(start)
        for _text, learned in row:
            piece = next(ids)
            input_ids += piece
            scored += [learned] * len(piece)
        input_ids += end
        scored += [True] * len(end)
        scored[0] = False  # nothing stands before the first token
        truncated = len(input_ids) > max_length
        encoded.append(Encoded(input_ids[:max_length], scored[:max_length], truncated))
    return encoded


def _tokenised(chat: ChatFormat, texts: list[str]) -> Iterable[list[int]]:
    """The tokens of each text, made many at a time."""
    for first in range(0, len(texts), AT_ONCE):
        made = chat.tokenizer(texts[first : first + AT_ONCE], add_special_tokens=False, return_attention_mask=False)
        yield from made["input_ids"]
