"""A decoder with what is added to it as one readable forward: what `PlainLoss` computes, several times faster on a CPU.

Llama and those built like it: what a model has and Llama has not (norms of queries and keys, sliding windows, capped
scores) is read from its modules (`reading.py`), and so is what a technique adds (`changes.py`). It takes the weights of
the transformers model and of the adapters where they are, replaces their computation and leaves their format: saving,
loading and switching off stay the technique's. What makes it fast: q/k/v and gate/up are stacked, low-rank adapters lie
beside the weights they adapt and are multiplied along with them, what all rows of a batch begin with (a system prompt,
virtual tokens) is computed once, the last MLP and the head see scored positions only, right padding needs no mask under
a causal one, and no autograd graph is kept for frozen weights.
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
from tunelab.fast.blocks import Around, AttentionBlock, AttentionPart, Behind, MLPBlock, MLPPart
from tunelab.fast.changes import virtual_of
from tunelab.fast.frozen import FrozenCache, FrozenLayers
from tunelab.fast.fused import Sight, is_fused
from tunelab.fast.head import Head, Norm, ScoredHead
from tunelab.fast.layout import Layout, Mask, layout_of, rounded
from tunelab.fast.linear import Adapters, Joined
from tunelab.fast.reading import read
from tunelab.fast.replay import Asked, Replays, can_replay, held_bytes, rounds
from tunelab.fast.structure import Layer, Linears
from tunelab.fast.weights import Packed, Plain, Unpacking, Weight, can_pack
from tunelab.machine import hardware
from tunelab.model import quantization
from tunelab.model.load import unwrapped

ROWS = 16  # scored positions are computed in multiples of it: every new shape of a product is compiled for 0.4 ms


Rotations = dict[str | None, tuple[Tensor, Tensor] | None]  # of each kind of layers, cos and signed sin (N, 1, D)


@dataclass(frozen=True)
class _Step:
    """What all layers of one forward share."""

    layout: Layout
    rotations: Rotations
    masks: dict[int | None, Mask | Sight]  # of each window
    matrices: dict[Adapters | None, tuple[Tensor, Tensor]] | None  # A and B of each; None: all changes are off
    beside: list[Tensor] | None  # of each layer, the keys and values before those of every text (2, K, P, D)


class FastLlama:
    """The layers of a decoder of transformers, with what a technique has added, computed by `blocks.py`.

    It computes with the model as it is, and faster after `join`, which `release` undoes. `packed`: with weights that
    are laid out for the CPU beforehand, to answer and not to train (`weights.py`).

    Raises:
        Unsupported: the model, or what was added to it, has something this forward does not compute.
    """

    def __init__(self, model: Any, packed: bool = False) -> None:
        causal = unwrapped(model)
        structure = read(causal)
        self.layers, self.heads, self.norm, self.finish = (
            structure.layers, structure.heads, structure.norm, structure.finish,
        )  # fmt: skip
        self.embedding, self.head_matrix = structure.embedding, structure.head
        self._padding = structure.padding
        self.rows_alone = structure.rows_alone
        self._scale, self._input_scale = structure.embedding_scale, structure.input_scale
        self._rotation, self.virtual = structure.rotation, virtual_of(model)
        self._embedding_is_trained = self.embedding.requires_grad
        self._ropes = {layer.rope for layer in self.layers}
        self._windows = {layer.window for layer in self.layers}
        # of quantised layers, were they unpacked
        self.unpacked_bytes = quantization.quantized_weights(causal) * self.embedding.element_size()
        self.packed = packed and self._can_unpack() and self._can_pack()
        self.head: Weight = Packed(self.head_matrix) if self.packed else Plain(self.head_matrix)
        self._packed = self._weights(Packed) if self.packed else None
        self._switches = [c.is_on for part in self._linears() for c in part.changes if c.is_on is not None][:1]

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
        """The lowest layer with a change: what lies below is the same at every step. 0 where there is none."""
        if self.virtual is not None or self._embedding_is_trained:
            return 0
        return next((i for i, layer in enumerate(self.layers) if layer.changed), 0)

    @property
    def before(self) -> int:
        """How many virtual tokens stand before every text."""
        return self.virtual.count if self.virtual and self.virtual.is_on and not self.virtual.in_layers else 0

    @property
    def beside(self) -> int:
        """How many keys and values stand before those of every text, in every layer."""
        return self.virtual.count if self.virtual and self.virtual.is_on and self.virtual.in_layers else 0

    def hidden(
        self,
        input_ids: Tensor,
        layout: Layout,
        scored: Tensor,
        frozen: FrozenLayers | None = None,
        rotations: Rotations | None = None,
    ) -> Tensor:
        """Hidden states (M, C) before the last norm, at the flat rows `scored` (M,) of the texts input_ids (B, T).
        `frozen`: what stands for the layers below the lowest change; `rotations`: those of the layout, where they are
        there already."""
        x = self._laid_out(input_ids, layout)
        rotations = self.rotations_of(layout) if rotations is None else rotations
        masks = {window: self._mask(layout, window, x) for window in self._windows}
        step = _Step(layout, rotations, masks, self._matrices(), self._beside(x))
        first = 0
        if frozen is not None:
            first = self.first_adapted
            x = frozen(lambda: self._through(x, self.layers[:first], step))
        x = self._through(x, self.layers[first:-1], step, first)
        x = self._attention(x, self.layers[-1], step, len(self.layers) - 1)
        return self._mlp(x[scored], self.layers[-1], step)  # nothing after this looks at other positions

    def _mask(self, layout: Layout, window: int | None, like: Tensor) -> Mask | Sight:
        window = within(window, layout.beside + layout.prefix + layout.length)
        if self.is_fused(like.device):
            return Sight(window)
        return layout.mask(self.heads.per_group, like, window)

    def is_fused(self, device: torch.device) -> bool:
        """Whether PyTorch's kernels attend there; they know no keys that stand before those of every text."""
        return is_fused(device) and not self.beside

    def _laid_out(self, input_ids: Tensor, layout: Layout) -> Tensor:
        """Hidden states (N, C) before the first layer, of virtual tokens and texts (B, T)."""
        own = input_ids.shape[1] - layout.length  # what the texts begin with alike
        shared = self.embedded(input_ids[0, :own])
        if self.before:
            assert self.virtual is not None
            shared = torch.cat((self.virtual.embeddings(shared.dtype) * self._input_scale, shared))
        return layout.lay(shared, self.embedded(input_ids[:, own:]))

    def _beside(self, like: Tensor) -> list[Tensor] | None:
        if not self.beside:
            return None
        assert self.virtual is not None
        return self.virtual.keys_and_values(like.dtype, len(self.layers), self.heads.keys)

    @property
    def is_on(self) -> bool:
        """Whether what was added is switched on, if that can be."""
        return all(is_on() for is_on in self._switches) and (self.virtual is None or self.virtual.is_on)

    def _matrices(self) -> dict[Adapters | None, tuple[Tensor, Tensor]] | None:
        """The adapters' matrices as their parameters are now; None where all changes are switched off."""
        if not self.is_on:
            return None
        adapters = self.adapters
        if not adapters:
            return {}
        made = Joined.apply(adapters, *(factor for of_stack in adapters for factor in of_stack.factors))
        return dict(zip(adapters, zip(made[::2], made[1::2], strict=True), strict=True))

    def _through(self, x: Tensor, layers: list[Layer], step: _Step, first: int = 0) -> Tensor:
        for index, layer in enumerate(layers, first):
            x = self._mlp(self._attention(x, layer, step, index), layer, step)
        return x

    def _attention(self, x: Tensor, layer: Layer, step: _Step, index: int) -> Tensor:
        qkv, out = layer.qkv.stack(step.matrices), layer.out.stack(step.matrices)
        rotation, mask = step.rotations[layer.rope], step.masks[layer.window]
        beside = None if step.beside is None else step.beside[index]

        def block(around: Around) -> Tensor:
            part = AttentionPart(around, qkv, out, self.heads, step.layout, rotation, mask, layer.head_norms, beside)
            return AttentionBlock.apply(x, part, *part.trained)

        return _with_behind(x, layer.around, block, layer.out, step)

    def _mlp(self, x: Tensor, layer: Layer, step: _Step) -> Tensor:
        gate_up, down = layer.gate_up.stack(step.matrices), layer.down.stack(step.matrices)

        def block(around: Around) -> Tensor:
            part = MLPPart(around, gate_up, down, layer.activation)
            return MLPBlock.apply(x, part, *part.trained)

        return _with_behind(x, layer.around_mlp, block, layer.down, step)

    def kept_bytes(self, layout: Layout, scored: int, device: torch.device) -> int:
        """What the blocks keep for their backward (`_keep` in `blocks.py`): per token x twice, mixed values, gate and
        up, what attention needs, what stands before a norm, factors or a small module behind a sublayer, and what the
        adapters' first factors give. Below the lowest change there is no backward, and the last MLP sees scored
        positions only. `device`: where it will be computed.
        """
        item, hidden = self.embedding.element_size(), self.embedding.shape[1]
        mixed = self.heads.queries * self.heads.size
        total, kept = 0, self.virtual is not None or self._embedding_is_trained
        for layer in self.layers:
            mlp_tokens = scored if layer is self.layers[-1] else layout.tokens
            again = layer.head_norms is not None or layer.qkv.scaled
            weights = not self.is_fused(device) and layout.keeps_weights(self.heads)
            attended = layout.kept(self.heads, weights, again)
            attended += layout.tokens * mixed * (layer.out.changes[0].input_factors is not None)
            of_heads = () if layer.head_norms is None else layer.head_norms.trained
            for parts, around, norms, tokens, width, more in (
                ((layer.qkv, layer.out), layer.around, of_heads, layout.tokens, hidden + mixed, attended),
                ((layer.gate_up, layer.down), layer.around_mlp, (), mlp_tokens, hidden + sum(layer.gate_up.widths), 0),
            ):
                inside = kept or bool(around.trained or norms) or any(part.trained_inside for part in parts)
                kept = inside or parts[1].behind is not None
                if inside:
                    ranks = sum(part.rank for part in parts)
                    total += tokens * (item * (width + ranks) + 4 * (around.norm_in is not None)) + item * more
                if kept:
                    results = _results_kept(parts[1], around)
                    total += tokens * (item * hidden * results + 4 * (around.norm_out is not None))
        return total

    def embedded(self, input_ids: Tensor) -> Tensor:
        """Hidden states (…, C) before the first layer, of tokens."""
        x = functional.embedding(input_ids, self.embedding, self._padding)
        scale = self._scale * self._input_scale
        return x if scale == 1 else x.mul_(scale)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (…, V) of what stands behind the last norm (…, C)."""
        made = self.head.times(hidden)
        return made if self.finish is None else self.finish(made)

    def rotations_of(self, layout: Layout) -> Rotations:
        """Those of all flat rows."""
        return self.rotations(layout.positions.to(self.embedding.device), self.embedding)

    def rotations(self, positions: Tensor, like: Tensor) -> Rotations:
        """cos and signed sin (T, 1, D or less) at `positions` (T,), of each kind of layers."""
        found: Rotations = {}
        for rope in self._ropes:
            if rope is None:
                found[rope] = None
                continue
            cos, sin = self._rotation(rope, like, positions[None])
            found[rope] = cos[0, :, None], signed(sin[0])[:, None]
        return found


def _results_kept(last: Linears, around: Around) -> int:
    """How many times what a sublayer's last layers give is kept, as one thing after the other is made of it."""
    return (around.norm_out is not None or last.scaled) + (last.behind is not None)


def _with_behind(x: Tensor, around: Around, block: Callable[[Around], Tensor], last: Linears, step: _Step) -> Tensor:
    """A sublayer of x, with the small module behind its last layers, if there is one that is on."""
    behind = last.behind
    if behind is None or step.matrices is None:
        return block(around)
    y = block(Around(around.norm_in, is_open=True))
    y = Behind.apply(y, behind.adapted, *behind.adapter.parameters())
    if around.norm_out is not None:
        y = Norm.apply(y, around.norm_out.parameter, around.norm_out)
    return torch.add(x, y, alpha=around.multiplier)


def within(window: int | None, tokens: int) -> int | None:
    """A window, where it hides something of so many tokens."""
    return window if window is not None and window < tokens else None


class FastLoss:
    """The loss of `PlainLoss`, for what `FastLlama` supports. It joins the model's weights, unless others may be put in
    their place (`joins`); `release` undoes that."""

    fast = True
    why_plain = ""

    def __init__(self, model: Any, cache_frozen: bool = False, joins: bool = True) -> None:
        self.model, self.llama = model, FastLlama(model)
        if joins:
            self.llama.join()
        self.attention = "sdpa" if self.llama.is_fused(self.llama.embedding.device) else "grouped"
        self.scored_head = Head(self.llama.head_matrix, self.llama.finish)
        caches = cache_frozen and self.llama.first_adapted and self.llama.rows_alone
        self.cache = FrozenCache() if caches else None
        self._can_replay = joins and not caches and self.llama.rows_alone
        self.replays = Replays(model) if self._replays_on(self.llama.embedding.device) else None

    def __call__(self, batch: Batch) -> Tensor:
        asked = self.asked(batch)
        # a Function is asked for the gradient of what is trained even where nobody wants one
        if self.replays is None or not torch.is_grad_enabled() or not self.llama.is_on:
            return self.computed(asked, frozen=self.cache.of(batch, asked.layout) if self.cache else None)
        return self.replays(self, asked)

    def computed(
        self,
        asked: Asked,
        counted: Tensor | None = None,
        frozen: FrozenLayers | None = None,
        rotations: Rotations | None = None,
    ) -> Tensor:
        """The loss of a batch; `counted`: which of its targets count (`ScoredHead`)."""
        matrix = self.scored_head.matrix
        matrix = matrix if torch.is_grad_enabled() else matrix.detach()
        hidden = self._hidden(asked, frozen, rotations)
        return ScoredHead.apply(hidden, self.scored_head, asked.targets, matrix, counted)

    def kept_bytes(self, batch: Batch, device: torch.device) -> tuple[int, int]:
        """What the forward of a batch keeps for its backward on this device, and how many positions it computes."""
        layout = self._layout(batch, device)
        return self.llama.kept_bytes(layout, self._places(batch.scored_tokens, device), device), layout.tokens

    def _replays_on(self, device: torch.device) -> bool:
        return self._can_replay and can_replay(self.model, device)

    def replayed_bytes(self, device: torch.device) -> int:
        """What recordings hold on this device beside what a batch takes; 0 where nothing is recorded."""
        return held_bytes(self.model) if self._replays_on(device) else 0

    def head(self, hidden: Tensor) -> Tensor:
        return self.llama.logits(hidden)

    def forget_rows(self) -> None:
        if self.cache:
            self.cache = FrozenCache()

    def release(self) -> None:
        self.replays = None
        self.llama.release()

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        asked = self.asked(batch)
        hidden = self._hidden(asked, self.cache.of(batch, asked.layout) if self.cache else None)
        return hidden[: len(asked.targets)], asked.targets

    def asked(self, batch: Batch) -> Asked:
        """What is to be computed of a batch. It is looked into on the CPU, where it comes from there."""
        here, device = batch.here, batch.input_ids.device
        layout = self._layout(here, device)
        # the hidden state at i predicts token i + 1; the prefix holds no scored token, nor the one before the first
        row, position = here.scored[:, 1:].nonzero(as_tuple=True)
        shared = layout.prefix - self.llama.before
        places = row * (layout.shard + layout.length) + layout.shard + position - shared
        places = functional.pad(places, (0, self._places(len(row), device) - len(row)))
        ids = functional.pad(batch.input_ids, (0, shared + layout.length - here.input_ids.shape[1]))
        return Asked(ids, layout, places.to(device), here.input_ids[row, position + 1].to(device))

    def _layout(self, batch: Batch, device: torch.device) -> Layout:
        return layout_of(batch.here, self.llama.before, self.llama.beside, self._rounds(device))

    def _rounds(self, device: torch.device) -> bool:
        """Whether batches are brought to few sizes. On a GPU each size has its price (`replay.py`), and a product of a
        new shape has to be looked up. A row must not depend on how long the others are."""
        return rounds(device) and self.llama.rows_alone

    def _places(self, scored: int, device: torch.device) -> int:
        """How many positions are computed for so many scored ones."""
        return rounded(scored) if self._rounds(device) else scored + -scored % ROWS

    def _hidden(self, asked: Asked, frozen: FrozenLayers | None, rotations: Rotations | None = None) -> Tensor:
        """What `hidden` gives, with rows behind that stand for nothing."""
        llama = self.llama
        hidden = llama.hidden(asked.ids, asked.layout, asked.places, frozen, rotations)
        return Norm.apply(hidden, llama.norm.parameter, llama.norm)
