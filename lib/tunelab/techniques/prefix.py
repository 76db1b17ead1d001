"""Prefix tuning: learned keys and values that every layer's attention sees before the text.

Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", section 4: for each of P virtual
tokens and each layer a key and a value (K heads, D) are trained; the model itself is frozen. The paper trains them
through an MLP for stability; here they start from the keys and values of real text instead (`virtual.py`), which needs
no MLP and works better. Before the first step the output is therefore that of the base with that text before it, not
the base's. It lives in the attention cache: it can't be merged, can't be trained with gradient checkpointing, and rows
with and without it can't share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tunelab.techniques.virtual import VirtualTokens, token_ids

if TYPE_CHECKING:
    from torch import nn

    from tunelab.data import Encoded
    from tunelab.model.load import Base
    from tunelab.spec import TrainConfig


class PrefixTuning(VirtualTokens):
    """Trained keys and values in every layer, in place of a long prompt."""

    kind: Literal["prefix"] = "prefix"
    num_virtual_tokens: int = Field(
        64, ge=1, le=1024, description="Length of the prefix in tokens; each costs context and a little time."
    )
    init_text: str | None = Field(
        None, description="Text whose keys and values the prefix starts from. None: the first training rows."
    )

    title: ClassVar[str] = "Prefix tuning"
    summary: ClassVar[str] = "Learned keys and values before the text, in every layer; the weights stay as they are."
    default_learning_rate: ClassVar[float] = 1e-2
    activations_can_be_recomputed: ClassVar[bool] = False
    merge_refusal: ClassVar[str | None] = (
        "prefix tuning stands in the attention cache, before the text, and not in the weights"
    )

    def check_training(self, training: TrainConfig) -> None:
        if training.gradient_checkpointing is True:
            raise ValueError(
                "prefix tuning hands its keys and values over in the attention cache, which gradient checkpointing "
                "switches off. Set gradient_checkpointing to false, and a smaller batch_size if memory is short"
            )

    def attach(self, base: Base, rows: Sequence[Encoded] = ()) -> nn.Module:
        import torch
        from peft.tuners.cartridge.utils import initialize_kv_prefix_from_past_key_values

        ids = token_ids(base, self.num_virtual_tokens, self.init_text, rows)
        with torch.no_grad():
            cache = base.model(input_ids=torch.tensor([ids], device=base.device), use_cache=True).past_key_values
        model = self.wrapped(base)
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        initialize_kv_prefix_from_past_key_values(model, past_key_values=layers)
        return model

    def peft_config(self, base: Base) -> Any:
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=self.num_virtual_tokens)
