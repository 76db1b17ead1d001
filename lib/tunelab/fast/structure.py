"""A Llama model's layers as the fast path computes them: which of its linear layers stand side by side, where their
weights and LoRA factors are, and what makes a model one that the fast path can't compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunelab.fast.linear import Adapters, Stack
from tunelab.model import quantization


class Unsupported(Exception):
    """Why the fast path can't compute this model; the plain one is used."""


@dataclass
class Linears:
    """Linear layers that read the same input, stacked."""

    names: list[str]  # in the base model, e.g. "model.layers.0.self_attn.q_proj"
    modules: list[Any]  # nn.Linear, a bitsandbytes layer, or PEFT's LoRA layer around one of them
    adapters: Adapters | None
    joined: Callable[[], Tensor]  # their weights W one below the other, the adapters' B beside them: (O, C + R)

    @property
    def inputs(self) -> int:
        return base_linear(self.modules[0]).in_features

    @property
    def widths(self) -> list[int]:
        return [base_linear(module).out_features for module in self.modules]

    def matrix(self) -> Tensor:
        """W (O, C) alone."""
        return self.joined()[:, : self.inputs]

    def stack(self, matrices: Mapping[Adapters | None, tuple[Tensor, Tensor]]) -> Stack:
        """The layers as they compute, with their adapters or, where `matrices` has none of theirs, without."""
        return Stack(self.joined, self.inputs, *matrices.get(self.adapters, ()))


@dataclass
class Layer:
    """One decoder layer's parts, by what they do."""

    norm_in: Any  # LlamaRMSNorm
    qkv: Linears
    out: Linears
    norm_mlp: Any
    gate_up: Linears
    down: Linears

    @property
    def linears(self) -> tuple[Linears, ...]:
        return (self.qkv, self.out, self.gate_up, self.down)


def read_layers(causal: Any) -> list[Layer]:
    """The decoder layers of a `LlamaForCausalLM`, PEFT's LoRA layers in it or not. Its weights become views of stacked
    ones: nothing is held twice.

    Raises:
        Unsupported: the model or its adapter has something that the fast path does not compute.
    """
    _check_model(causal.config)
    dtype = causal.model.embed_tokens.weight.dtype
    return [_layer(layer, f"model.layers.{i}", dtype) for i, layer in enumerate(causal.model.layers)]


def base_linear(module: Any) -> Any:
    """The frozen linear layer inside PEFT's, or the layer itself."""
    return module.get_base_layer() if is_lora(module) else module


def is_lora(module: Any) -> bool:
    """Whether it is PEFT's LoRA layer around a linear one."""
    from peft.tuners.lora import LoraLayer

    return isinstance(module, LoraLayer)


def _check_model(config: Any) -> None:
    if config.model_type != "llama":
        raise Unsupported(f"model type {config.model_type}")
    if config.hidden_act != "silu" or config.attention_bias or config.mlp_bias:
        raise Unsupported("an activation other than SiLU, or biases")
    if config.attention_dropout:
        raise Unsupported("attention dropout")


def _check_adapter(module: Any) -> None:
    if not is_lora(module):
        if any(p.requires_grad for p in module.parameters()):
            raise Unsupported("trained base weights")
        return
    if len(module.active_adapters) > 1:
        raise Unsupported("several adapters at once")
    for name in module.active_adapters:
        if getattr(module, "use_dora", {}).get(name):
            raise Unsupported("DoRA")
        if name in module.lora_dropout and not isinstance(module.lora_dropout[name], nn.Identity):
            raise Unsupported("dropout of the adapter")


def _layer(layer: Any, name: str, dtype: torch.dtype) -> Layer:
    def stacked(*parts: str) -> Linears:
        modules = [layer.get_submodule(part) for part in parts]
        return _stack([f"{name}.{part}" for part in parts], modules, dtype)

    return Layer(
        norm_in=layer.input_layernorm,
        qkv=stacked("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        out=stacked("self_attn.o_proj"),
        norm_mlp=layer.post_attention_layernorm,
        gate_up=stacked("mlp.gate_proj", "mlp.up_proj"),
        down=stacked("mlp.down_proj"),
    )


def _stack(names: list[str], modules: list[Any], dtype: torch.dtype) -> Linears:
    """Layers as one product."""
    for module in modules:
        _check_adapter(module)
    bases = [base_linear(module) for module in modules]
    factors, scale = _factors(modules)
    inputs, rank = bases[0].in_features, sum(a.shape[0] for a in factors[::2])
    if all(type(base) is nn.Linear for base in bases):
        joined = _joined_in_place(bases, rank, dtype)
        adapters = Adapters(factors, scale, dtype, b=joined[:, inputs:].zero_()) if rank else None
        return Linears(names, modules, adapters, lambda: joined)
    if all(quantization.is_nf4(base) for base in bases):
        adapters = Adapters(factors, scale, dtype) if rank else None
        return Linears(names, modules, adapters, lambda: _unpacked(bases, adapters, dtype))
    raise Unsupported(f"linear layers of type {type(bases[0]).__name__}")


def _joined_in_place(bases: list[nn.Linear], rank: int, dtype: torch.dtype) -> Tensor:
    """The weights one below the other, with `rank` columns to fill beside them; the layers' own become views of it."""
    joined = _below_each_other([base.weight.data for base in bases], rank, dtype)
    for base, weight in zip(bases, joined.split([base.out_features for base in bases]), strict=True):
        base.weight.data = weight[:, : base.in_features]
    return joined


def _unpacked(bases: list[Any], adapters: Adapters | None, dtype: torch.dtype) -> Tensor:
    """The same of quantised weights: made for one use."""
    weights = [quantization.dequantize_weight(base, dtype) for base in bases]
    joined = _below_each_other(weights, 0 if adapters is None else adapters.b.shape[1], dtype)
    if adapters:
        joined[:, bases[0].in_features :] = adapters.b
    return joined


def _below_each_other(weights: list[Tensor], rank: int, dtype: torch.dtype) -> Tensor:
    """Weights (O_i, C) in one matrix (O, C + rank), whose last columns are not filled."""
    inputs = weights[0].shape[1]
    joined = weights[0].new_empty((sum(len(weight) for weight in weights), inputs + rank), dtype=dtype)
    torch.cat(weights, out=joined[:, :inputs])
    return joined


def _factors(modules: list[Any]) -> tuple[list[Tensor], float]:
    """A and B of the active adapter of each of the stacked layers, rank 0 where there is none, and the scale."""
    names = [module.active_adapters[0] if is_lora(module) else None for module in modules]
    factors: list[Tensor] = []
    scales = set()
    for name, module in zip(names, modules, strict=True):
        base = base_linear(module)
        if name is not None and name in module.lora_A:
            factors += [module.lora_A[name].weight, module.lora_B[name].weight]
            scales.add(module.scaling[name])
        else:
            device = base.weight.device
            factors += [torch.empty(size, device=device) for size in ((0, base.in_features), (base.out_features, 0))]
    if len(scales) > 1:
        raise Unsupported(f"layers of one stack with different scales {sorted(scales)}")
    return factors, scales.pop() if scales else 1.0
