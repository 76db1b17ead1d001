"""What techniques add to the parts of a decoder, read from the modules that hold it.

There is no list of techniques. A `Change` is what stands around one linear layer: something low-rank beside it, factors
on what it takes and gives, lengths for the rows of its weight, a small module behind it. `Virtual` is what stands
before the text: embeddings, or keys and values in every layer. The modules are PEFT's and the library's own; each is
read in one function here, which refuses what is not computed. What is trained of the layer itself needs no reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tunelab.techniques.modules import Bottleneck


class Unsupported(Exception):
    """Why the fast path can't compute this model; the plain one is used."""


@dataclass(frozen=True)
class Change:
    """A linear layer (C -> O) with what is added to it."""

    base: Any
    a: Tensor | None = None  # (r, C): beside it, scale · B A x
    b: Tensor | None = None  # (O, r)
    scale: float = 1.0
    lengths: Tensor | None = None  # (O,), learned ones for the rows of W + scale · B A
    factors: Tensor | None = None  # (O,) on what it gives, its bias included
    input_factors: Tensor | None = None  # (C,)
    behind: Bottleneck | None = None
    is_on: Callable[[], bool] | None = None  # None: there is nothing that could be switched off


def change_of(module: Any) -> Change:
    """A linear layer and what stands around it.

    Raises:
        Unsupported: something that is not computed here stands around it.
    """
    from peft.tuners.ia3 import IA3Layer
    from peft.tuners.lora import LoraLayer

    if isinstance(module, LoraLayer):
        return _low_rank(module)
    if isinstance(module, IA3Layer):
        return _factors(module)
    if isinstance(module, Bottleneck):
        if module.draws:
            raise Unsupported("dropout of the adapter")
        return replace(change_of(module.layer), behind=module, is_on=lambda: module.enabled)
    return Change(module)


def _low_rank(module: Any) -> Change:
    """Of PEFT's LoRA, DoRA included."""
    plain = Change(module.get_base_layer(), is_on=lambda: not module.disable_adapters)
    name = _only_adapter(module)
    if name not in module.lora_A:
        return plain
    if not isinstance(module.lora_dropout[name], nn.Identity):
        raise Unsupported("dropout of the adapter")
    if getattr(module, "lora_bias", {}).get(name):
        raise Unsupported("an adapter with a bias")
    lengths = module.lora_magnitude_vector[name].weight if getattr(module, "use_dora", {}).get(name) else None
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    return replace(plain, a=a, b=b, scale=module.scaling[name], lengths=lengths)


def _factors(module: Any) -> Change:
    """Of PEFT's IA³."""
    plain = Change(module.get_base_layer(), is_on=lambda: not module.disable_adapters)
    name = _only_adapter(module)
    if name not in module.ia3_l:
        return plain
    if module.is_feedforward:
        return replace(plain, input_factors=module.ia3_l[name])
    return replace(plain, factors=module.ia3_l[name])


def _only_adapter(module: Any) -> str:
    if len(module.active_adapters) != 1:
        raise Unsupported("several adapters at once" if module.active_adapters else "an adapter that is not active")
    if module.merged:
        raise Unsupported("an adapter that is merged into the weights")
    return str(module.active_adapters[0])


@dataclass(frozen=True)
class Virtual:
    """Virtual tokens before every text."""

    model: Any  # PEFT's
    count: int  # P
    in_layers: bool  # keys and values in every layer, else embeddings

    @property
    def is_on(self) -> bool:
        return bool(self.model.has_active_enabled_adapter)

    @property
    def _learned(self) -> Tensor:
        return self.model.prompt_encoder[self.model.active_adapter].embedding.weight

    def embeddings(self, dtype: torch.dtype) -> Tensor:
        """(P, C), with their graph."""
        return self._learned.to(dtype)

    def keys_and_values(self, dtype: torch.dtype, layers: int, heads: int) -> list[Tensor]:
        """Those of each layer (2, K, P, D), keys as they are after their rotation, with their graph."""
        every = self._learned.to(dtype).view(self.count, layers, 2, heads, -1)
        return list(every.permute(1, 2, 3, 0, 4).unbind())


def virtual_of(model: Any) -> Virtual | None:
    """The virtual tokens that a model has, if it has some.

    Raises:
        Unsupported: they are made in a way that is not computed here.
    """
    from peft import PeftModel, PeftType

    if not isinstance(model, PeftModel) or not model.active_peft_config.is_prompt_learning:
        return None
    config: Any = model.active_peft_config
    parts = [name for name, _part in model.prompt_encoder[model.active_adapter].named_children()]
    kinds = (PeftType.PREFIX_TUNING, PeftType.PROMPT_TUNING)
    if config.peft_type not in kinds or parts != ["embedding"] or config.num_transformer_submodules != 1:
        raise Unsupported(f"virtual tokens of the kind {config.peft_type}")
    return Virtual(model, config.num_virtual_tokens, config.peft_type == PeftType.PREFIX_TUNING)
