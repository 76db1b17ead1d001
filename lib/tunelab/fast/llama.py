"""A Llama model with LoRA as one readable forward: what `PlainLoss` computes, several times faster on a CPU.

It reads the weights of the transformers model and of PEFT's LoRA layers where they are, replaces their computation and
leaves their format: saving, loading and switching off the adapter stay PEFT's. What makes it fast: q/k/v and gate/up
are stacked, the adapters lie beside the weights they adapt and are multiplied along with them, what all rows of a batch
begin with (a system prompt) is computed once, the last MLP and the head see scored positions only, right padding needs
no mask under a causal one, and no autograd graph is kept for frozen weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from tunelab.data.batches import Batch
from tunelab.fast.attention import signed
from tunelab.fast.blocks import AttentionBlock, AttentionPart, MLPBlock, MLPPart
from tunelab.fast.frozen import FrozenCache, FrozenLayers
from tunelab.fast.head import Head, Norm, ScoredHead
from tunelab.fast.layout import Heads, Layout, Mask, layout_of
from tunelab.fast.linear import Adapters, Joined
from tunelab.fast.structure import Layer, is_lora, read_layers
from tunelab.fast.weights import Packed, Plain, Unpacking, Weight, can_pack
from tunelab.machine import hardware
from tunelab.model import quantization
from tunelab.model.load import unwrapped

ROWS = 16  # scored positions are computed in multiples of it: every new shape of a product is compiled for 0.4 ms


@dataclass(frozen=True)
class _Step:
    """What all layers of one forward share."""

    layout: Layout
    rotation: tuple[Tensor, Tensor]  # cos and signed sin (N, 1, D)
    mask: Mask
    matrices: dict[Adapters | None, tuple[Tensor, Tensor]]  # A and B of each; none where they are switched off


class FastLlama:
    """The layers of a (PEFT-wrapped) `LlamaForCausalLM`, computed by `blocks.py`.

    `packed`: with weights that are laid out for the CPU beforehand, to answer and not to train (`weights.py`).

    Raises:
        Unsupported: the model or its adapter has something this forward does not compute.
    """

    def __init__(self, model: Any, packed: bool = False) -> None:
        causal = unwrapped(model)
        self.layers = read_layers(causal)
        config = causal.config
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
        self.head: Weight = Packed(self.head_matrix) if self.packed else Plain(self.head_matrix)
        self._packed = self._weights(Packed) if self.packed else None
        self.adapters = [part.adapters for layer in self.layers for part in layer.linears if part.adapters]
        self._switch = next((m for layer in self.layers for p in layer.linears for m in p.modules if is_lora(m)), None)

    @property
    def bytes_of_token(self) -> int:
        """What the keys and values of a token take."""
        return 2 * len(self.layers) * self.heads.keys * self.heads.size * self.embedding.element_size()

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

    def hidden(self, input_ids: Tensor, layout: Layout, scored: Tensor, frozen: FrozenLayers | None = None) -> Tensor:
        """Hidden states (M, C) before the last norm, at the flat rows `scored` (M,) of input_ids (N,). `frozen`: what
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
        x = self._attention(x, self.layers[-1], step)
        return self._mlp(x[scored], self.layers[-1], step)  # nothing after this looks at other positions

    def _matrices(self) -> dict[Adapters | None, tuple[Tensor, Tensor]]:
        """The adapters' matrices as their parameters are now; empty where they are switched off."""
        if self._switch is None or self._switch.disable_adapters:
            return {}
        made = Joined.apply(self.adapters, *(factor for adapters in self.adapters for factor in adapters.factors))
        return dict(zip(self.adapters, zip(made[::2], made[1::2], strict=True), strict=True))

    def _through(self, x: Tensor, layers: list[Layer], step: _Step) -> Tensor:
        for layer in layers:
            x = self._mlp(self._attention(x, layer, step), layer, step)
        return x

    def _attention(self, x: Tensor, layer: Layer, step: _Step) -> Tensor:
        qkv, out = layer.qkv.stack(step.matrices), layer.out.stack(step.matrices)
        norm_weight, heads = layer.norm_in.weight, self.heads
        part = AttentionPart(norm_weight, self.epsilon, qkv, out, heads, step.layout, step.rotation, step.mask)
        return AttentionBlock.apply(x, part, *part.matrices)

    def _mlp(self, x: Tensor, layer: Layer, step: _Step) -> Tensor:
        gate_up, down = layer.gate_up.stack(step.matrices), layer.down.stack(step.matrices)
        part = MLPPart(layer.norm_mlp.weight, self.epsilon, gate_up, down)
        return MLPBlock.apply(x, part, *part.matrices)

    def kept_bytes(self, layout: Layout, scored: int) -> int:
        """What the blocks keep for their backward (`save_for_backward` in `blocks.py`): per token x twice, mixed
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

    def forget_rows(self) -> None:
        if self.cache:
            self.cache = FrozenCache()

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        hidden, targets = self._hidden(batch)
        return hidden[: len(targets)], targets

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What `hidden` gives, with rows behind that stand for nothing: their number is a multiple of ROWS."""
        llama, ids, layout = self.llama, batch.input_ids, layout_of(batch)
        # the hidden state at i predicts token i + 1; the prefix holds no scored token, nor the one before the first
        row, position = batch.scored[:, 1:].nonzero(as_tuple=True)
        scored = row * (layout.shard + layout.length) + layout.shard + position - layout.prefix
        scored = functional.pad(scored, (0, -len(scored) % ROWS))
        frozen = self.cache.of(batch, layout) if self.cache else None
        flat = layout.lay(ids[0, : layout.prefix], ids[:, layout.prefix :])
        hidden = llama.hidden(flat, layout, scored, frozen)
        return Norm.apply(hidden, llama.norm.weight, llama.epsilon), ids[row, position + 1]
