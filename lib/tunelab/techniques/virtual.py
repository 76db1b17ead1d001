"""Which real tokens virtual ones start from, for prompt and prefix tuning.

Virtual tokens that start at random begin outside everything the model has seen, and few steps do not bring them back
(PEFT's method comparison has prefix tuning at 41.6 % with a good start and at 18.6 % without). Real text starts as
ordinary prompting does, and is then improved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunelab.errors import UserError
from tunelab.techniques.base import PeftTechnique, adapter_file, freeze_unless

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from tunelab.data import Encoded
    from tunelab.model.load import Base


class VirtualTokens(PeftTechnique):
    """What prompt and prefix tuning share: nothing in the base is replaced, so there is nothing to take off again.

    Padding would stand between the virtual tokens and the text, and move them apart.
    """

    rows_can_be_padded: ClassVar[bool] = False

    def load(self, base: Base, folder: Path, trainable: bool = False) -> nn.Module:
        import torch
        from safetensors.torch import load_file

        model = self.wrapped(base)
        trained = model.prompt_encoder["default"].embedding.weight
        with torch.no_grad():
            trained.copy_(load_file(adapter_file(folder))["prompt_embeddings"].view_as(trained))
        freeze_unless(trainable, model)
        return model

    def detach(self, model: Any) -> None:
        del model


def token_ids(base: Base, count: int, text: str | None, rows: Sequence[Encoded]) -> list[int]:
    """`count` token ids: of `text`, or of the training rows without what all of them begin with; repeated if short.

    Raises:
        UserError: there is neither text nor rows.
    """
    from tunelab.data.encode import neutralise, tokens

    if text:
        ids = tokens(base.tokenizer, neutralise(text, base.tokenizer))
    else:
        shared = _shared_start(rows)
        ids = [token for row in rows[:count] for token in row.input_ids[shared:]]
    if not ids:
        raise UserError("The virtual tokens start from text, and there are neither init_text nor training rows.")
    return (ids * (count // len(ids) + 1))[:count]


def _shared_start(rows: Sequence[Encoded]) -> int:
    """How many tokens all rows begin with: the template's."""
    if len(rows) < 2:
        return 0
    columns = zip(*(row.input_ids for row in rows), strict=False)
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), 0)
