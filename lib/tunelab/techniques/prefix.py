"""Prefix tuning: learned keys and values that every layer's attention sees before the text.

Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", section 4: for each of P virtual
tokens and each layer a key and a value (K heads, D) are trained; the model itself is frozen. The paper trains them
through an MLP for stability; here they start from the keys and values of real text instead (`virtual.py`), which needs
no MLP and works better. Before the first step the output is therefore that of the base with that text before it, not
the base's. It lives in the attention cache: it can't be merged, can't be trained with gradient checkpointing, and rows
with and without it can't share a batch.

How many heads of keys and values a layer keeps, and how wide, is looked up in the cache of one short forward: with
multi-query attention (Falcon) it is one head, and no setting of the model says so. Attention that looks back over a
window (Gemma 3, Mistral) forgets a prefix as long as the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tunelab.errors import UserError
from tunelab.techniques import places
from tunelab.techniques.virtual import VirtualTokens, check_start, refused_where_it_fails, token_ids

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
        from peft.tuners.cartridge.utils import initialize_kv_prefix_from_past_key_values

        ids = token_ids(base, self.num_virtual_tokens, self.init_text, rows)
        self._check_window(base)
        with refused_where_it_fails(self, base):
            kept = [(layer.keys, layer.values) for layer in cache_of(base, ids)]
            model = self.wrapped(base)
            initialize_kv_prefix_from_past_key_values(model, past_key_values=kept)
            check_start(self, base, model, ids)
        return model

    def outline(self, base: Base) -> nn.Module:
        self._check_window(base)
        return super().outline(base)

    def peft_config(self, base: Base) -> Any:
        from peft import PrefixTuningConfig

        layers, heads, size = self._shape(base)
        return PrefixTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=self.num_virtual_tokens,
            num_layers=layers,
            num_attention_heads=heads,
            token_dim=heads * size,
        )

    def wrapped(self, base: Base) -> Any:
        model = super().wrapped(base)
        layers, heads, size = self._shape(base)
        made = model.peft_config["default"]
        if (made.num_layers, made.num_attention_heads, made.token_dim) != (layers, heads, heads * size):
            raise UserError(
                f"Prefix tuning: this model keeps {heads} heads of keys and values in {layers} layers, and PEFT would "
                f"make a prefix for {made.num_attention_heads} heads in {made.num_layers}, by what config.json says "
                "(num_key_value_heads, head_dim). Put that right, or choose LoRA."
            )
        return model

    def _shape(self, base: Base) -> tuple[int, int, int]:
        """How many layers keep keys and values, how many heads of them each, and how wide one is.

        Raises:
            UserError: they differ, so that PEFT's prefix has no place for them.
        """
        with refused_where_it_fails(self, base):
            kept = cache_of(base, [0, 0])
        shapes = {tuple(part.shape[1::2]) for layer in kept for part in (layer.keys, layer.values)}
        if len(shapes) > 1:
            found = ", ".join(f"{heads} × {size}" for heads, size in sorted(shapes))
            raise UserError(
                "Prefix tuning needs keys and values of one shape in every layer; this model of type "
                f"'{base.model.config.model_type}' has {found} (heads × width). Choose LoRA."
            )
        ((heads, size),) = shapes
        return len(kept), heads, size

    def _check_window(self, base: Base) -> None:
        """Refuse a prefix that attention would have forgotten before the text begins.

        Raises:
            UserError: with the longest one it keeps in sight.
        """
        with refused_where_it_fails(self, base):
            windows = [layer.sliding_window for layer in cache_of(base, [0, 0]) if layer.is_sliding]
        if windows and self.num_virtual_tokens >= min(windows):
            raise UserError(
                f"num_virtual_tokens = {self.num_virtual_tokens}: attention of this model looks back over a window of "
                f"{min(windows)} tokens, so a prefix as long as that is out of sight. Choose at most "
                f"{max(1, min(windows) // 2)}."
            )


def cache_of(base: Base, ids: list[int]) -> list[Any]:
    """What each layer keeps of a text, `keys` and `values` (1, heads, T, width).

    Raises:
        UserError: a layer keeps something else.
    """
    import torch

    if base.model.device.type == "meta" and places.fused_experts(base.model):
        base.model.set_experts_implementation("batched_mm")  # the one that looks into no tensor
    # an outline is made where every new tensor is a meta one; models also make some to look into
    with torch.no_grad(), torch.device("cpu"):
        text = torch.tensor([ids], device=base.model.device)
        # without a mask some would look whether the text holds padding
        out = base.model(input_ids=text, attention_mask=torch.ones_like(text), use_cache=True)
    layers = list(getattr(getattr(out, "past_key_values", None), "layers", ()))
    other = next((n for n, layer in enumerate(layers) if getattr(layer, "keys", None) is None), None)
    if not layers or other is not None:
        raise UserError(
            f"Prefix tuning needs attention's keys and values in every layer; a model of type "
            f"'{base.model.config.model_type}' keeps {'none' if other is None else f'none in layer {other}'}. Choose "
            "LoRA."
        )
    return layers
