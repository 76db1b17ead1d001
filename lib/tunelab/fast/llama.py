"""A Llama model with LoRA as one readable forward: what `PlainLoss` computes, several times faster on a CPU.

It reads the weights of the transformers model and of PEFT's LoRA layers where they are, replaces their computation and
leaves their format: saving, loading and switching off the adapter stay PEFT's. What makes it fast: q/k/v and gate/up
are stacked, the adapters lie beside the weights they adapt and are multiplied along with them, what all rows of a batch
begin with (a system prompt) is computed once, the last MLP and the head see scored positions only, right padding needs
no mask under a causal one, and no autograd graph is kept for frozen weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunelab.data.batches import Batch
from tunelab.fast.functions import (
    Adapters,
    AttentionBlock,
    AttentionPart,
    Head,
    Heads,
    Joined,
    Layout,
    Mask,
    MLPBlock,
    MLPPart,
    Norm,
    ScoredHead,
    Stack,
    signed,
)
from tunelab.fast.weights import Packed, Plain, Unpacking, Weight, can_pack
from tunelab.machine import hardware
from tunelab.model import quantization
from tunelab.model.load import unwrapped

SHORTEST_PREFIX = 8  # tokens; below, dealing it out costs more than it saves
ROWS = 16  # scored positions are computed in multiples of it: every new shape of a product is compiled for 0.4 ms


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

    def stack(self, step: _Step) -> Stack:
        """The layers as they compute, with their adapters or, where the step has none, without."""
        return Stack(self.joined, self.inputs, *step.matrices.get(self.adapters, ()))


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


@dataclass(frozen=True)
class _Step:
    """What all layers of one forward share."""

    layout: Layout
    rotation: tuple[Tensor, Tensor]  # cos and signed sin (N, 1, D)
    mask: Mask
    matrices: dict[Adapters | None, tuple[Tensor, Tensor]]  # A and B of each; none where they are switched off


class FastLlama:
    """The layers of a (PEFT-wrapped) `LlamaForCausalLM`, computed by `functions.py`.

    `packed`: with weights that are laid out for the CPU beforehand, to answer and not to train (`weights.py`).

    Raises:
        Unsupported: the model or its adapter has something this forward does not compute.
    """

    def __init__(self, model: Any, packed: bool = False) -> None:
        causal = unwrapped(model)
        config = causal.config
        _check(causal, config)
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.heads = Heads(config.num_attention_heads, config.num_key_value_heads, size)
        self.epsilon = config.rms_norm_eps
        self.embedding: Tensor = causal.model.embed_tokens.weight
        self.head_matrix: Tensor = causal.lm_head.weight
        # of quantised layers, were they unpacked
        self.unpacked_bytes = quantization.quantized_weights(causal) * self.embedding.element_size()
        self.packed = packed and self._can_unpack() and self._can_pack()
        self.norm = causal.model.norm
        self.rotary = causal.model.rotary_emb
        dtype = self.embedding.dtype
        self.layers = [_layer(layer, f"model.layers.{i}", dtype) for i, layer in enumerate(causal.model.layers)]
        self.head: Weight = Packed(self.head_matrix) if self.packed else Plain(self.head_matrix)
        self._packed = self._weights(Packed) if self.packed else None
        self.adapters = [part.adapters for layer in self.layers for part in layer.linears if part.adapters]
        self._switch = next((m for layer in self.layers for p in layer.linears for m in p.modules if _is_lora(m)), None)

    def weights(self) -> list[tuple[Weight, ...]]:
        """The frozen weights of each layer's `linears`, to answer with. Quantised ones are unpacked for it, all of them
        where the device they are on can afford that, else each when it is used."""
        if self._packed:
            return self._packed
        if self._can_unpack():
            return self._weights(Plain)
        return [tuple(Unpacking(part.matrix) for part in layer.linears) for layer in self.layers]

    def _can_unpack(self) -> bool:
        return not self.unpacked_bytes or hardware.affords(self.unpacked_bytes, self.embedding.device)

    def _can_pack(self) -> bool:
        return self.head_matrix.device.type == "cpu" and can_pack(self.head_matrix.dtype)

    def _weights(self, kind: Callable[[Tensor], Weight]) -> list[tuple[Weight, ...]]:
        return [tuple(kind(part.matrix()) for part in layer.linears) for layer in self.layers]

    @property
    def first_adapted(self) -> int:
        """The lowest layer with an adapter: what lies below is the same at every step. 0 where there is none."""
        return next((i for i, layer in enumerate(self.layers) if any(p.adapters for p in layer.linears)), 0)

    def hidden(self, input_ids: Tensor, layout: Layout, wanted: Tensor, frozen: FrozenLayers | None = None) -> Tensor:
        """Hidden states (M, C) before the last norm, at the flat rows `wanted` (M,) of input_ids (N,). `frozen`: what
        stands for the layers below the lowest adapter."""
        x = self.embedding[input_ids]
        cos, sin = self.rotation(layout.positions.to(x.device), x)
        rotation = (cos[:, None], signed(sin)[:, None])
        step = _Step(layout, rotation, layout.mask(self.heads.per_group, x), self._matrices())
        first = 0
        if frozen is not None:
            first = self.first_adapted
            x = frozen(lambda: self._through(x, self.layers[:first], step))
        x = self._through(x, self.layers[first:-1], step)
        x = self._attended(x, self.layers[-1], step)
        return self._mixed(x[wanted], self.layers[-1], step)  # nothing after this looks at other positions

    def _matrices(self) -> dict[Adapters | None, tuple[Tensor, Tensor]]:
        """The adapters' matrices as their parameters are now; empty where they are switched off."""
        if self._switch is None or self._switch.disable_adapters:
            return {}
        made = Joined.apply(self.adapters, *(factor for adapters in self.adapters for factor in adapters.factors))
        return dict(zip(self.adapters, zip(made[::2], made[1::2], strict=True), strict=True))

    def _through(self, x: Tensor, layers: list[Layer], step: _Step) -> Tensor:
        for layer in layers:
            x = self._mixed(self._attended(x, layer, step), layer, step)
        return x

    def _attended(self, x: Tensor, layer: Layer, step: _Step) -> Tensor:
        qkv, out = layer.qkv.stack(step), layer.out.stack(step)
        norm_weight, heads = layer.norm_in.weight, self.heads
        part = AttentionPart(norm_weight, self.epsilon, qkv, out, heads, step.layout, step.rotation, step.mask)
        return AttentionBlock.apply(x, part, *part.matrices)

    def _mixed(self, x: Tensor, layer: Layer, step: _Step) -> Tensor:
        part = MLPPart(layer.norm_mlp.weight, self.epsilon, layer.gate_up.stack(step), layer.down.stack(step))
        return MLPBlock.apply(x, part, *part.matrices)

    def kept_bytes(self, layout: Layout, scored: int) -> int:
        """What the blocks keep for their backward (`save_for_backward` in `functions.py`): per token x twice, mixed
        values, gate and up, what attention needs, and what the adapters' first factors give. Below the lowest adapter
        there is no backward, and the last MLP sees scored positions only."""
        item, hidden = self.embedding.element_size(), self.embedding.shape[1]
        mixed = self.heads.queries * self.heads.size
        total, kept = 0, False
        for layer in self.layers:
            mlp_tokens = scored if layer is self.layers[-1] else layout.tokens
            for parts, tokens, width, more in (
                ((layer.qkv, layer.out), layout.tokens, hidden + mixed, layout.kept(self.heads)),
                ((layer.gate_up, layer.down), mlp_tokens, hidden + sum(layer.gate_up.widths), 0),
            ):
                kept = kept or any(part.adapters for part in parts)
                if kept:
                    ranks = sum(sum(part.adapters.ranks) for part in parts if part.adapters)
                    total += tokens * (item * (width + ranks) + 4) + item * more
        return total

    def rotation(self, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin (T, D) at `positions` (T,)."""
        cos, sin = self.rotary(like, positions[None])
        return cos[0], sin[0]


FrozenLayers = Callable[[Callable[[], Tensor]], Tensor]


class FrozenCache:
    """What the layers below the lowest adapter make of each row, kept from its first batch on: it need not be computed
    again for a row that comes back, in the next epoch or the next evaluation. Right under a causal mask: what a row's
    tokens become depends on the row alone."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Tensor] = {}  # a row's tokens -> its hidden states (T, C)
        self.bytes = 0

    def of(self, batch: Batch, layout: Layout) -> FrozenLayers:
        """For a batch: hidden states (N, C) of its flat rows, from the cache, or as they are computed and then kept."""
        lengths = batch.lengths.tolist()
        keys = [ids[:n].cpu().numpy().tobytes() for ids, n in zip(batch.input_ids, lengths, strict=True)]

        def frozen(compute: Callable[[], Tensor]) -> Tensor:
            if all(key in self.rows for key in keys):
                return _laid_out([self.rows[key] for key in keys], layout)
            x = compute()
            if hardware.affords(self.bytes + x.nbytes, x.device):
                self._keep(keys, lengths, x, layout)
            return x

        return frozen

    def _keep(self, keys: list[bytes], lengths: list[int], x: Tensor, layout: Layout) -> None:
        dealt, own = layout.parts(x)
        shared = dealt.flatten(0, 1)[: layout.prefix]
        for key, length, row in zip(keys, lengths, own, strict=True):
            if key not in self.rows:
                self.rows[key] = torch.cat((shared, row[: length - layout.prefix]))
                self.bytes += self.rows[key].nbytes


def _laid_out(rows: list[Tensor], layout: Layout) -> Tensor:
    """Rows (T_i, C) as the flat rows (N, C) of a layout, padding zero."""
    own = rows[0].new_zeros(layout.rows, layout.length, rows[0].shape[1])
    for place, row in zip(own, rows, strict=True):
        place[: len(row) - layout.prefix] = row[layout.prefix :]
    return layout.lay(rows[0][: layout.prefix], own)


class FastLoss:
    """The loss of `PlainLoss`, for what `FastLlama` supports."""

    fast = True
    attention = "grouped"

    def __init__(self, model: Any, cache_frozen: bool = False) -> None:
        self.model, self.llama = model, FastLlama(model)
        self.scored_head = Head(self.llama.head_matrix)
        self.cache = FrozenCache() if cache_frozen and self.llama.first_adapted else None

    def __call__(self, batch: Batch) -> Tensor:
        hidden, targets = self._hidden(batch)
        return ScoredHead.apply(hidden, self.scored_head, targets)

    def kept_bytes(self, batch: Batch) -> tuple[int, int]:
        """What the forward of a batch keeps for its backward, and how many positions it computes."""
        layout = layout_of(batch)
        scored = batch.scored_tokens + -batch.scored_tokens % ROWS
        return self.llama.kept_bytes(layout, scored), layout.tokens

    def head(self, hidden: Tensor) -> Tensor:
        return self.llama.head.times(hidden)

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        hidden, targets = self._hidden(batch)
        return hidden[: len(targets)], targets

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What `hidden` gives, with rows behind that stand for nothing: their number is a multiple of ROWS."""
        llama, ids, layout = self.llama, batch.input_ids, layout_of(batch)
        # the hidden state at i predicts token i + 1; the prefix holds no scored token, nor the one before the first
        row, position = batch.scored[:, 1:].nonzero(as_tuple=True)
        wanted = row * (layout.share + layout.length) + layout.share + position - layout.prefix
        wanted = functional.pad(wanted, (0, -len(wanted) % ROWS))
        frozen = self.cache.of(batch, layout) if self.cache else None
        flat = layout.lay(ids[0, : layout.prefix], ids[:, layout.prefix :])
        hidden = llama.hidden(flat, layout, wanted, frozen)
        return Norm.apply(hidden, llama.norm.weight, llama.epsilon), ids[row, position + 1]


def layout_of(batch: Batch) -> Layout:
    """How the rows of a batch lie flat, with what they all begin with once."""
    rows, length = batch.input_ids.shape
    prefix = shared_prefix(batch)
    return Layout(prefix, rows, length - prefix)


def shared_prefix(batch: Batch) -> int:
    """How many tokens all rows begin with, those that predict a scored token left out; 0 where it is not worth it."""
    if len(batch.input_ids) == 1:
        return 0
    differs = (batch.input_ids != batch.input_ids[:1]).any(0)
    predicts = batch.scored.any(0).roll(-1)
    ends = (differs | predicts).nonzero()
    length = int(ends[0]) if len(ends) else 0
    return length if length >= SHORTEST_PREFIX else 0


def _check(causal: Any, config: Any) -> None:
    if config.model_type != "llama":
        raise Unsupported(f"model type {config.model_type}")
    if config.hidden_act != "silu" or config.attention_bias or config.mlp_bias:
        raise Unsupported("an activation other than SiLU, or biases")
    if config.attention_dropout:
        raise Unsupported("attention dropout")


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
    """Layers as one product. Their weights become views of the joined one: nothing is held twice."""
    import bitsandbytes as bnb

    for module in modules:
        _check_adapter(module)
    bases = [base_linear(module) for module in modules]
    factors, scale = _factors(modules)
    inputs, rank = bases[0].in_features, sum(a.shape[0] for a in factors[::2])
    shape = (sum(base.out_features for base in bases), inputs + rank)

    def side_by_side(weights: Iterable[Tensor], like: Tensor) -> Tensor:
        joined = like.new_empty(shape, dtype=dtype)
        torch.cat(list(weights), out=joined[:, :inputs])
        return joined

    if all(type(base) is nn.Linear for base in bases):
        kept = side_by_side((base.weight.data for base in bases), bases[0].weight)
        for base, weight in zip(bases, kept.split([base.out_features for base in bases]), strict=True):
            base.weight.data = weight[:, :inputs]
        adapters = Adapters(factors, scale, dtype, b=kept[:, inputs:].zero_()) if rank else None
        return Linears(names, modules, adapters, lambda: kept)
    if all(isinstance(base, bnb.nn.Linear4bit) for base in bases):
        adapters = Adapters(factors, scale, dtype) if rank else None

        def unpacked() -> Tensor:
            weights = [quantization.dequantize_weight(base, dtype) for base in bases]
            joined = side_by_side(weights, weights[0])
            if adapters:
                joined[:, inputs:] = adapters.b
            return joined

        return Linears(names, modules, adapters, unpacked)
    raise Unsupported(f"linear layers of type {type(bases[0]).__name__}")


def base_linear(module: Any) -> Any:
    """The frozen linear layer inside PEFT's, or the layer itself."""
    return module.get_base_layer() if _is_lora(module) else module


def _is_lora(module: Any) -> bool:
    from peft.tuners.lora import LoraLayer

    return isinstance(module, LoraLayer)


def _check_adapter(module: Any) -> None:
    if not _is_lora(module):
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


def _factors(modules: list[Any]) -> tuple[list[Tensor], float]:
    """A and B of the active adapter of each of the stacked layers, rank 0 where there is none, and the scale."""
    names = [module.active_adapters[0] if _is_lora(module) else None for module in modules]
    factors: list[Tensor] = []
    scales = set()
    for name, module in zip(names, modules, strict=True):
        base = base_linear(module)
        if name is not None and name in module.lora_A:
            factors += [module.lora_A[name].weight, module.lora_B[name].weight]
            scales.add(module.scaling[name])
        else:
            factors += [torch.empty(0, base.in_features), torch.empty(base.out_features, 0)]
    if len(scales) > 1:
        raise Unsupported(f"layers of one stack with different scales {sorted(scales)}")
    return factors, scales.pop() if scales else 1.0
