"""A Llama model with LoRA as one readable forward: what `PlainLoss` computes, several times faster on a CPU.

It reads the weights of the transformers model and of PEFT's LoRA layers where they are, replaces their computation and
leaves their format: saving, loading and switching off the adapter stay PEFT's. What makes it fast: q/k/v and gate/up
are stacked, the adapters are fused into the linear layers, the head sees scored positions only, right padding needs no
mask under a causal one, and no autograd graph is kept for frozen weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunelab import quantization
from tunelab.data.batches import Batch
from tunelab.fast.functions import FrozenLinear, RMSNorm, Rotate, ScoredHead, StackedLoRALinear, SwiGLU, attend


class Unsupported(Exception):
    """Why the fast path can't compute this model; the plain one is used."""


@dataclass
class Linears:
    """Linear layers that read the same input, stacked: W (sum of out_i, C), and PEFT's LoRA layers where they are."""

    names: list[str]  # in the base model, e.g. "model.layers.0.self_attn.q_proj"
    modules: list[Any]  # nn.Linear, a bitsandbytes layer, or PEFT's LoRA layer around one of them
    weight: Callable[[], Tensor]

    @property
    def widths(self) -> list[int]:
        return [base_linear(module).out_features for module in self.modules]

    def __call__(self, x: Tensor) -> Tensor:
        """x (N, C) -> (N, sum of out_i)."""
        adapted = [_adapter(module) for module in self.modules]
        if not any(adapted):
            return FrozenLinear.apply(x, self.weight)
        factors: list[Tensor] = []
        scale = next(a[2] for a in adapted if a)
        for module, adapter in zip(self.modules, adapted, strict=True):
            if adapter:
                factors += adapter[:2]
            else:  # a layer without an adapter beside layers with one: rank 0
                out, size = base_linear(module).out_features, base_linear(module).in_features
                factors += [x.new_empty(0, size), x.new_empty(out, 0)]
        return StackedLoRALinear.apply(x, self.weight, scale, *factors)


@dataclass
class Layer:
    """One decoder layer's parts, by what they do."""

    norm_in: Any  # LlamaRMSNorm
    qkv: Linears
    out: Linears
    norm_mlp: Any
    gate_up: Linears
    down: Linears


class FastLlama:
    """The layers of a (PEFT-wrapped) `LlamaForCausalLM`, computed by `functions.py`.

    Raises:
        Unsupported: the model or its adapter has something this forward does not compute.
    """

    def __init__(self, model: Any) -> None:
        causal = model.get_base_model() if hasattr(model, "peft_config") else model
        config = causal.config
        _check(causal, config)
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.epsilon = config.rms_norm_eps
        self.embedding: Tensor = causal.model.embed_tokens.weight
        self.head: Tensor = causal.lm_head.weight
        self.norm = causal.model.norm
        self.rotary = causal.model.rotary_emb
        self.layers = [_layer(layer, f"model.layers.{i}") for i, layer in enumerate(causal.model.layers)]

    def hidden(self, input_ids: Tensor) -> Tensor:
        """Hidden states (B, T, C) before the last norm. Padding must stand on the right; there is no mask to give."""
        rows, length = input_ids.shape
        x = self.embedding[input_ids].reshape(rows * length, -1)
        cos, sin = self.rotation(torch.arange(length, device=x.device), x)
        ahead = torch.ones(length, length, dtype=torch.bool, device=x.device).triu_(1)
        for layer in self.layers:
            q, k, v = self.project(layer, x, rows, length, cos, sin)
            x = x + layer.out(attend(q, k, v, ahead).view(rows * length, -1))
            x = x + self.mlp(layer, x)
        return x.view(rows, length, -1)

    def rotation(self, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin (T, D) at `positions` (T,)."""
        cos, sin = self.rotary(like, positions[None])
        return cos[0], sin[0]

    def project(
        self, layer: Layer, x: Tensor, rows: int, length: int, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated q (B, H, T, D) and k (B, K, T, D), and v (B, K, T, D), of the layer's input x (B · T, C)."""
        normed = RMSNorm.apply(x, layer.norm_in.weight, self.epsilon)
        qkv = layer.qkv(normed).view(rows, length, self.heads + 2 * self.groups, self.size).transpose(1, 2)
        q_and_k = Rotate.apply(qkv[:, : self.heads + self.groups], cos, sin)
        return q_and_k[:, : self.heads], q_and_k[:, self.heads :], qkv[:, self.heads + self.groups :]

    def mlp(self, layer: Layer, x: Tensor) -> Tensor:
        return layer.down(SwiGLU.apply(layer.gate_up(RMSNorm.apply(x, layer.norm_mlp.weight, self.epsilon))))


class FastLoss:
    """The loss of `PlainLoss`, for what `FastLlama` supports."""

    fast = True
    attention = "grouped"

    def __init__(self, model: Any) -> None:
        self.llama = FastLlama(model)

    def __call__(self, batch: Batch) -> Tensor:
        llama = self.llama
        hidden = llama.hidden(batch.input_ids)
        mask = batch.scored[:, 1:]
        scored = hidden[:, :-1][mask]
        normed = RMSNorm.apply(scored, llama.norm.weight, llama.epsilon)
        return ScoredHead.apply(normed, llama.head, batch.input_ids[:, 1:][mask])


def _check(causal: Any, config: Any) -> None:
    if config.model_type != "llama":
        raise Unsupported(f"model type {config.model_type}")
    if config.hidden_act != "silu" or config.attention_bias or config.mlp_bias:
        raise Unsupported("an activation other than SiLU, or biases")
    if config.attention_dropout:
        raise Unsupported("attention dropout")


def _layer(layer: Any, name: str) -> Layer:
    return Layer(
        norm_in=layer.input_layernorm,
        qkv=_stack(layer, name, "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        out=_stack(layer, name, "self_attn.o_proj"),
        norm_mlp=layer.post_attention_layernorm,
        gate_up=_stack(layer, name, "mlp.gate_proj", "mlp.up_proj"),
        down=_stack(layer, name, "mlp.down_proj"),
    )


def _stack(layer: Any, layer_name: str, *parts: str) -> Linears:
    """The parts as one product. Their weights become views of the stacked one: nothing is held twice."""
    import bitsandbytes as bnb

    names = [f"{layer_name}.{part}" for part in parts]
    modules = [layer.get_submodule(part) for part in parts]
    bases = [base_linear(module) for module in modules]
    for module in modules:
        _check_adapter(module)
    if all(type(base) is nn.Linear for base in bases):
        stacked = torch.cat([base.weight.data for base in bases])
        start = 0
        for base in bases:
            base.weight.data = stacked[start : start + base.out_features]
            start += base.out_features
        return Linears(names, modules, lambda: stacked)
    if all(isinstance(base, bnb.nn.Linear4bit) for base in bases):
        dtype = bases[0].compute_dtype
        return Linears(names, modules, lambda: torch.cat([quantization.dequantize_weight(b, dtype) for b in bases]))
    raise Unsupported(f"linear layers of type {type(bases[0]).__name__}")


def base_linear(module: Any) -> Any:
    """The frozen linear layer inside PEFT's, or the layer itself."""
    from peft.tuners.lora import LoraLayer

    return module.get_base_layer() if isinstance(module, LoraLayer) else module


def _check_adapter(module: Any) -> None:
    from peft.tuners.lora import LoraLayer

    if not isinstance(module, LoraLayer):
        if any(p.requires_grad for p in module.parameters()):
            raise Unsupported("trained base weights")
        return
    for name in module.active_adapters:
        if getattr(module, "use_dora", {}).get(name):
            raise Unsupported("DoRA")
        if name in module.lora_dropout and not isinstance(module.lora_dropout[name], nn.Identity):
            raise Unsupported("dropout of the adapter")


def _adapter(module: Any) -> tuple[Tensor, Tensor, float] | None:
    """A (r, C), B (out, r) and the scale of the active adapter; None where there is none, or it is switched off."""
    from peft.tuners.lora import LoraLayer

    if not isinstance(module, LoraLayer) or module.disable_adapters:
        return None
    name = module.active_adapters[0]
    if name not in module.lora_A:
        return None
    a: Any = module.lora_A[name]
    b: Any = module.lora_B[name]
    return a.weight, b.weight, module.scaling[name]
