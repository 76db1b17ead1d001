"""How many tokens a model can see in a row: its positions.

Learned positions (GPT-2, OPT) end in an IndexError beyond the last one. Rotated ones (Llama) have no end, and answers
beyond the longest row the model was trained on go wrong without a word. Where positions are only distances (ALiBi,
state-space models) there is no limit. An attention window says how far a token looks back, not how long a row may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.errors import UserError

if TYPE_CHECKING:
    from tunelab.spec import ModelSpec

SHORTEST_ROW = 16  # tokens, as in `ModelSpec.max_length`
STRETCHED = ("linear", "dynamic")  # rope types whose `max_position_embeddings` is of the model before it was stretched


@dataclass(frozen=True)
class RowLimit:
    """The longest row a model and a technique take, and what to say of it where it is less than was asked for."""

    tokens: int
    note: str = ""

    @property
    def notes(self) -> list[str]:
        return [self.note] if self.note else []


def positions(config: Any) -> int | None:
    """How many positions a model of this configuration has; None: no limit."""
    config = config.get_text_config()
    if getattr(config, "alibi", False) and config.model_type == "falcon":
        return None  # it declares some all the same
    # MPT's distances are a table of fixed length
    declared = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)
    if not isinstance(declared, int) or declared <= 0:
        return None
    return max(declared, _stretched(config, declared))


def _stretched(config: Any, declared: int) -> int:
    """How far RoPE scaling stretches the positions a configuration declares.

    Source: transformers' documentation of `rope_scaling`: with 'linear' and 'dynamic' the declared ones are those
    before stretching, with 'yarn' the original ones stand beside. ('llama3' and 'longrope' declare the stretched ones;
    so do models with a RoPE for each type of layer.)
    """
    rope = getattr(config, "rope_parameters", None) or {}
    kind, factor = rope.get("rope_type"), rope.get("factor")
    if not factor:
        return declared
    if kind in STRETCHED:
        return int(declared * factor)
    return int(rope.get("original_max_position_embeddings", declared) * factor) if kind == "yarn" else declared


def row_limit(folder: Path, spec: ModelSpec, taken: int = 0, asked: int | None = None) -> RowLimit:
    """How long rows may be: `asked` tokens (None: the spec's `max_length`), or what the positions of the model in
    `folder` leave when a technique takes `taken` of them.

    Raises:
        UserError: the technique leaves too few.
    """
    from tunelab.model.folder import read_config

    asked = spec.max_length if asked is None else asked
    available = positions(read_config(folder))
    if available is None or asked + taken <= available:
        return RowLimit(asked)
    if available - taken < SHORTEST_ROW:
        raise UserError(
            f"num_virtual_tokens = {taken}: the model has {available} positions, and a row needs some of them. Choose "
            f"at most {max(1, available // 2)}."
        )
    virtual = f", of which virtual tokens take {taken}" if taken else ""
    return RowLimit(
        available - taken,
        f"max_length = {available - taken}, not {asked}: the model has {available} positions{virtual}",
    )


def answer_length(base_config: Any, prompt: int, max_new_tokens: int, taken: int = 0) -> int:
    """How many tokens an answer may have: `max_new_tokens`, or what the positions of the model leave behind a prompt of
    `prompt` tokens and `taken` virtual ones.

    Raises:
        UserError: they leave none.
    """
    available = positions(base_config)
    if available is None:
        return max_new_tokens
    left = available - taken - prompt
    if left < 1:
        virtual = f" ({taken} of them taken by virtual tokens)" if taken else ""
        raise UserError(
            f"The prompt has {prompt} tokens; the model has {available} positions{virtual}, and the answer needs some "
            f"as well. Shorten the prompt, its system part included, to less than {available - taken} tokens."
        )
    return min(max_new_tokens, left)
