"""Which real tokens virtual ones start from, for prompt and prefix tuning.

Virtual tokens that start at random begin outside everything the model has seen, and few steps do not bring them back
(PEFT's method comparison has prefix tuning at 41.6 % with a good start and at 18.6 % without). Real text starts as
ordinary prompting does, and is then improved. That they act as that text does is looked at before anything is trained:
a model whose cache or positions work otherwise is refused, not trained wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from tunelab.errors import UserError, explain
from tunelab.techniques.base import REASON_LENGTH, PeftTechnique, adapter_file, freeze_unless

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from tunelab.data import Encoded
    from tunelab.model.load import Base

EXACT, ROUNDED = 1e-2, 0.25  # relative, over all logits; in half precision a mixture may choose other experts


class VirtualTokens(PeftTechnique):
    """What prompt and prefix tuning share: nothing in the base is replaced, so there is nothing to take off again.

    Padding would stand between the virtual tokens and the text, and move them apart.
    """

    rows_can_be_padded: ClassVar[bool] = False
    strength_refusal: ClassVar[str] = "its virtual tokens stand before the text or they don't"
    num_virtual_tokens: int

    @property
    def positions_taken(self) -> int:
        return self.num_virtual_tokens

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


@contextmanager
def refused_where_it_fails(technique: VirtualTokens, base: Base) -> Iterator[None]:
    """Inside, what a model raises becomes the reason why it can't have virtual tokens.

    Raises:
        UserError: with that reason.
    """
    try:
        yield
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        if explain(error):  # it is for want of memory
            raise
        reason = " ".join(str(error).split())[:REASON_LENGTH]
        raise UserError(
            f"{technique.title} does not work on a model of type '{base.model.config.model_type}' "
            f"({type(error).__name__}: {reason}). Choose LoRA."
        ) from error


def check_start(technique: VirtualTokens, base: Base, model: Any, ids: list[int]) -> None:
    """Refuse a model in which the virtual tokens don't act as the text `ids` they start from.

    Raises:
        UserError: with how far they are from it.
    """
    import torch

    last, text = torch.tensor([ids[:1]], device=base.device), torch.tensor([ids + ids[:1]], device=base.device)
    with torch.no_grad():
        whole = base.model(input_ids=text, attention_mask=torch.ones_like(text), use_cache=False)
        behind = model(input_ids=last, attention_mask=torch.ones_like(last), use_cache=False)
    expected, got = (out.logits[0, -1].float() for out in (whole, behind))
    error = float((got - expected).norm() / expected.norm())
    if not error <= (EXACT if base.dtype == torch.float32 else ROUNDED):
        raise UserError(
            f"{technique.title} does not work on a model of type '{base.model.config.model_type}': its virtual tokens "
            f"don't act as the text they start from (logits differ by {error:.0%}). Choose LoRA."
        )


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
