"""A decoder with LoRA as one readable forward: what `PlainLoss` computes, several times faster on a CPU.

Llama and those built like it: what a model has and Llama has not (norms of queries and keys, sliding windows, capped
scores) is read from its modules (`reading.py`). It takes the weights of the transformers model and of PEFT's LoRA
layers where they are, replaces their computation and leaves their format: saving, loading and switching off the adapter
stay PEFT's. What makes it fast: q/k/v and gate/up are stacked, the adapters lie beside the weights they adapt and are
multiplied along with them, what all rows of a batch begin with (a system prompt) is computed once, the last MLP and the
head see scored positions only, right padding needs no mask under a causal one, and no autograd graph is kept for frozen
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tunelab.data.batches import Batch
from tunelab.fast.attention import signed
from tunelab.fast.blocks import AttentionBlock, AttentionPart, MLPBlock, MLPPart
from tunelab.fast.frozen import FrozenCache, FrozenLayers
from tunelab.fast.fused import Sight, is_fused
from tunelab.fast.head import Head, Norm, ScoredHead
from tunelab.fast.layout import Layout, Mask, layout_of
from tunelab.fast.linear import Adapters, Joined
from tunelab.fast.reading import read
from tunelab.fast.structure import Layer, Linears, is_lora
from tunelab.fast.weights import Packed, Plain, Unpacking, Weight, can_pack
from tunelab.machine import hardware
from tunelab.model import quantization
from tunelab.model.load import unwrapped

ROWS = 16  # scored positions are computed in multiples of it: every new shape of a product is compiled for 0.4 ms


@dataclass(frozen=True)
class _Step:
    """What all layers of one forward share."""

    layout: Layout
    rotations: dict[str | None, tuple[Tensor, Tensor] | None]  # of each kind, cos and signed sin (N, 1, D)
    masks: dict[int | None, Mask | Sight]  # of each window
    matrices: dict[Adapters | None, tuple[Tensor, Tensor]]  # A and B of each; none where they are switched off


class FastLlama:
    """The layers of a (PEFT-wrapped) decoder of transformers, computed by `blocks.py`.

    It computes with the model as it is, and faster after `join`, which `release` undoes. `packed`: with weights that
    are laid out for the CPU beforehand, to answer and not to train (`weights.py`).

    Raises:
        Unsupported: the model or its adapter has something this forward does not compute.
    """

    def __init__(self, model: Any, packed: bool = False) -> None:
        causal = unwrapped(model)
        structure = read(causal)
        self.layers, self.heads, self.norm, self.finish = (
            structure.layers, structure.heads, structure.norm, structure.finish,
        )  # fmt: skip
        self.embedding, self.head_matrix = structure.embedding, structure.head
        self.rows_alone = structure.rows_alone
        self._scale, self._rotation = structure.embedding_scale, structure.rotation
        self._ropes = {layer.rope for layer in self.layers}
        self._windows = {layer.window for layer in self.layers}
        # of quantised layers, were they unpacked
        self.unpacked_bytes = quantization.quantized_weights(causal) * self.embedding.element_size()
        self.packed = packed and self._can_unpack() and self._can_pack()
        self.head: Weight = Packed(self.head_matrix) if self.packed else Plain(self.head_matrix)
        self._packed = self._weights(Packed) if self.packed else None
        self._switch = next((m for part in self._linears() for m in part.modules if is_lora(m)), None)

    def join(self) -> FastLlama:
        """This, with the weights that are multiplied together side by side for good, instead of for each use. They are
        held once: those of the model's own linear layers become views of them."""
        for part in self._linears():
            part.join()
        return self

    def release(self) -> None:
        """Give the model's linear layers weights of their own again."""
        for part in self._linears():
            part.separate()

    def _linears(self) -> Iterator[Linears]:
        return (part for layer in self.layers for part in layer.linears)

    @property
    def adapters(self) -> list[Adapters]:
        """Those of all stacks that have some."""
        return [part.adapters for part in self._linears() if part.adapters]

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
        x = self.embedded(input_ids)
        rotations = self.rotations(layout.positions.to(x.device), x)
        masks = {window: self._mask(layout, window, x) for window in self._windows}
        step = _Step(layout, rotations, masks, self._matrices())
        first = 0
        if frozen is not None:
            first = self.first_adapted
            x = frozen(lambda: self._through(x, self.layers[:first], step))
        x = self._through(x, self.layers[first:-1], step)
        x = self._attention(x, self.layers[-1], step)
        return self._mlp(x[scored], self.layers[-1], step)  # nothing after this looks at other positions

    def _mask(self, layout: Layout, window: int | None, like: Tensor) -> Mask | Sight:
        window = within(window, layout.prefix + layout.length)
        return Sight(window) if is_fused(like.device) else layout.mask(self.heads.per_group, like, window)

    def _matrices(self) -> dict[Adapters | None, tuple[Tensor, Tensor]]:
        """The adapters' matrices as their parameters are now; empty where they are switched off."""
        if self._switch is None or self._switch.disable_adapters:
            return {}
        adapters = self.adapters
        made = Joined.apply(adapters, *(factor for of_stack in adapters for factor in of_stack.factors))
        return dict(zip(adapters, zip(made[::2], made[1::2], strict=True), strict=True))

    def _through(self, x: Tensor, layers: list[Layer], step: _Step) -> Tensor:
        for layer in layers:
            x = self._mlp(self._attention(x, layer, step), layer, step)
        return x

    def _attention(self, x: Tensor, layer: Layer, step: _Step) -> Tensor:
        qkv, out = layer.qkv.stack(step.matrices), layer.out.stack(step.matrices)
        rotation, mask = step.rotations[layer.rope], step.masks[layer.window]
        part = AttentionPart(layer.around, qkv, out, self.heads, step.layout, rotation, mask, layer.head_norms)
        return AttentionBlock.apply(x, part, *part.matrices)

    def _mlp(self, x: Tensor, layer: Layer, step: _Step) -> Tensor:
        gate_up, down = layer.gate_up.stack(step.matrices), layer.down.stack(step.matrices)
        part = MLPPart(layer.around_mlp, gate_up, down, layer.activation)
        return MLPBlock.apply(x, part, *part.matrices)

    def kept_bytes(self, layout: Layout, scored: int, device: torch.device) -> int:
        """What the blocks keep for their backward (`save_for_backward` in `blocks.py`): per token x twice, mixed
        values, gate and up, what attention needs, what stands before a norm behind a sublayer, and what the adapters'
        first factors give. Below the lowest adapter there is no backward, and the last MLP sees scored positions only.
        `device`: where it will be computed.
        """
        item, hidden = self.embedding.element_size(), self.embedding.shape[1]
        mixed = self.heads.queries * self.heads.size
        total, kept = 0, False
        for layer in self.layers:
            mlp_tokens = scored if layer is self.layers[-1] else layout.tokens
            weights = not is_fused(device) and layout.keeps_weights(self.heads)
            attended = layout.kept(self.heads, weights, normed=layer.head_norms is not None)
            for parts, around, tokens, width, more in (
                ((layer.qkv, layer.out), layer.around, layout.tokens, hidden + mixed, attended),
                ((layer.gate_up, layer.down), layer.around_mlp, mlp_tokens, hidden + sum(layer.gate_up.widths), 0),
            ):
                kept = kept or any(part.adapters for part in parts)
                if kept:
                    norms = (around.norm_in is not None) + (around.norm_out is not None)
                    width += hidden if around.norm_out is not None else 0
                    ranks = sum(part.rank for part in parts)
                    total += tokens * (item * (width + ranks) + 4 * norms) + item * more
        return total

    def embedded(self, input_ids: Tensor) -> Tensor:
        """Hidden states (…, C) before the first layer."""
        x = self.embedding[input_ids]
        return x if self._scale == 1 else x.mul_(self._scale)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of what stands behind the last norm (…, C)."""
        made = self.head.times(hidden)
        return made if self.finish is None else self.finish(made)

    def rotations(self, positions: Tensor, like: Tensor) -> dict[str | None, tuple[Tensor, Tensor] | None]:
        """cos and signed sin (T, 1, D or less) at `positions` (T,), of each kind of layers."""
        found: dict[str | None, tuple[Tensor, Tensor] | None] = {}
        for rope in self._ropes:
            if rope is None:
                found[rope] = None
                continue
            cos, sin = self._rotation(rope, like, positions[None])
            found[rope] = cos[0, :, None], signed(sin[0])[:, None]
        return found


def within(window: int | None, tokens: int) -> int | None:
    """A window, where it hides something of so many tokens."""
    return window if window is not None and window < tokens else None


class FastLoss:
    """The loss of `PlainLoss`, for what `FastLlama` supports. It joins the model's weights; `release` undoes that."""

    fast = True
    why_plain = ""

    def __init__(self, model: Any, cache_frozen: bool = False) -> None:
        self.model, self.llama = model, FastLlama(model).join()
        self.attention = "sdpa" if is_fused(self.llama.embedding.device) else "grouped"
        self.scored_head = Head(self.llama.head_matrix, self.llama.finish)
        caches = cache_frozen and self.llama.first_adapted and self.llama.rows_alone
        self.cache = FrozenCache() if caches else None

    def __call__(self, batch: Batch) -> Tensor:
        hidden, targets = self._hidden(batch)
        return ScoredHead.apply(hidden, self.scored_head, targets)

    def kept_bytes(self, batch: Batch, device: torch.device) -> tuple[int, int]:
        """What the forward of a batch keeps for its backward on this device, and how many positions it computes."""
        layout = layout_of(batch)
        scored = batch.scored_tokens + -batch.scored_tokens % ROWS
        return self.llama.kept_bytes(layout, scored, device), layout.tokens

    def head(self, hidden: Tensor) -> Tensor:
        return self.llama.logits(hidden)

    def forget_rows(self) -> None:
        if self.cache:
            self.cache = FrozenCache()

    def release(self) -> None:
        self.llama.release()

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
        return Norm.apply(hidden, llama.norm.weight, llama.norm.epsilon), ids[row, position + 1]
