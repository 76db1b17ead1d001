"""Base models, which go on with a text and were never taught to answer: told from instruction models by their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.model.folder import json_of

if TYPE_CHECKING:
    from tunelab.data.chat import ChatFormat

INSTEAD = "If there is an instruction version of it, that answers better from the start"


def untaught_notes(chat: ChatFormat, folder: Path) -> list[str]:
    """What to know where the model in a folder looks like one that was never taught to answer, and which form its
    prompts get: it has no chat template, or one whose turns end with a token at which its own settings do not stop."""
    if chat.plain_prompt is not None:
        return [
            "the tokenizer has no chat template: this looks like a base model, which goes on with a text and was never "
            f"taught to answer. Prompts get the form {chat.plain_prompt!r}, in training and when it is asked. {INSTEAD}"
        ]
    stops = _stops(folder)
    if not stops or chat.end is None or chat.end.appended or chat.end.id in stops:
        return []
    return [
        f"the chat template ends a turn with {_name(chat, chat.end.id)}, and the model's own settings stop at "
        f"{', '.join(_name(chat, one) for one in stops)} alone: this looks like a base model with a template. Prompts "
        f"get that template. {INSTEAD}"
    ]


def _stops(folder: Path) -> list[int]:
    """The tokens at which the settings beside a model stop; none where they name none."""
    named: Any = json_of(folder / "generation_config.json").get("eos_token_id")
    return [one for one in (named if isinstance(named, list) else [named]) if isinstance(one, int) and one >= 0]


def _name(chat: ChatFormat, token: int) -> str:
    return str(chat.tokenizer.convert_ids_to_tokens(token)) if token < len(chat.tokenizer) else str(token)
