"""Which of several answers a model finds likeliest, without writing one: for labels and multiple choice.

    continuations(labels, …) ──> the tokens of each answer, its end included
    log_likelihoods(prompts, …) ──> log p of each answer to each prompt
    likeliest(prompts, …) ──> the answer with the highest one, without computing those that can't be it

A prompt is computed once for all answers, and on the fast path also what answers begin with alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from tunelab.answer.generation import padded_left
from tunelab.data import Example, Message, encode, encode_prompt
from tunelab.errors import UserError, shortened
from tunelab.fast.branches import Branches
from tunelab.fast.decode import FastDecoder
from tunelab.fast.tree import ROOT, Tree

if TYPE_CHECKING:
    from tunelab.answer.decoders import MakeDecoders
    from tunelab.answer.generation import Decoder

POSITIONS = 1024  # of prompts and trees that are computed at once
WHOLE = 1 << 30
FEW = 48  # nodes of a tree: so many are computed at once, though some of them may turn out to be of no use
ROUNDING = 0.05  # nats: what another batch may change


def continuations(asked: Sequence[Message], answers: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """The tokens of each answer to a prompt as training has them, with those that end it.

    Raises:
        UserError: the template writes the prompt anew when it is answered, or nothing of an answer is learned.
    """
    prompt = encode_prompt(asked, tokenizer)
    found = []
    for answer in answers:
        row = encode(Example((*asked, Message("assistant", answer))), tokenizer, WHOLE)
        if row is None or row.input_ids[: len(prompt)] != prompt:
            raise UserError(
                f"The answer {shortened(answer, 40)} can't be scored by its likelihood: "
                + ("nothing of it is learned." if row is None else "the chat template changes the prompt with it.")
                + " Measure by written answers."
            )
        last = max(place for place, scored in enumerate(row.scored) if scored)
        found.append(row.input_ids[len(prompt) : last + 1])
    return found


def log_likelihoods(
    prompts: Sequence[list[int]],
    trees: Sequence[Tree],
    decoders: MakeDecoders,
    *,
    padded: bool,
) -> list[Tensor]:
    """Of each prompt, log p (continuations of its tree,) in nats. Prompts that share a tree (the same object) are
    computed together, those of similar length at once. `decoders` makes one decoder, of one column."""
    found: list[Tensor] = [torch.empty(0, dtype=torch.float32)] * len(prompts)
    for indices, tree, decoder in _read(prompts, trees, decoders, padded, branching=False):
        for index, log_p in zip(indices, tree.sums(decoder.tree_log_p(tree)).cpu(), strict=True):
            found[index] = log_p
    return found


def likeliest(
    prompts: Sequence[list[int]],
    trees: Sequence[Tree],
    decoders: MakeDecoders,
    *,
    padded: bool,
) -> Iterator[tuple[int, int]]:
    """The index of each prompt and the place of its likeliest continuation, the first of equals, as they are found. As
    `log_likelihoods`, but what is less likely by its beginning than another as a whole is not computed: on the fast
    path token by token and for each prompt alone, else by the first token."""
    branching = all(isinstance(decoder, FastDecoder) for decoder in decoders(1, 1))
    for indices, tree, decoder in _read(prompts, trees, decoders, padded, branching):
        if isinstance(decoder, FastDecoder):
            places = [row.best for row in _explored(Branches(decoder, tree))]
        else:
            places = _best(tree, decoder).tolist()
        yield from zip(indices, places, strict=True)


class _Row:
    """What is known of a tree's continuations after one prompt."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.totals = numpy.full(len(tree.edges), -math.inf)  # log p of all that leads to each edge, and of itself
        self._last = [path[-1] for path in tree.paths]
        self._open: set[int] = set()  # nodes that can be asked for: the edge to them is known

    def learn(self, nodes: Sequence[int], log_p: Sequence[float]) -> None:
        """What the edges after these nodes have."""
        tree, told = self.tree, iter(log_p)
        for node in nodes:
            before = 0.0 if node == ROOT else self.totals[tree.led_to[node]]
            self._open.discard(node)
            for edge in tree.after[node]:
                self.totals[edge] = before + next(told)
                if edge in tree.leads_to:
                    self._open.add(tree.leads_to[edge])

    def wanted(self) -> list[int]:
        """The nodes to go on with, parents before children; none where the best is found. First all that begins as the
        best beginning does: what is less likely already than a whole continuation is left out then."""
        led_to = self.tree.led_to
        least = self.totals[self._last].max() - ROUNDING
        still = sorted(node for node in self._open if self.totals[led_to[node]] >= least)
        if still and math.isinf(least):
            return self._behind([max(still, key=lambda node: self.totals[led_to[node]])])
        behind = self._behind(still)
        return behind if len(behind) <= FEW else still

    def _behind(self, nodes: Sequence[int]) -> list[int]:
        """The nodes, and all that follow them."""
        found = set(nodes)
        for node, parent in enumerate(self.tree.parents):  # parents stand before children
            if parent in found:
                found.add(node)
        return sorted(found)

    @property
    def best(self) -> int:
        """The place of the likeliest continuation."""
        return int(self.totals[self._last].argmax())


def _explored(branches: Branches) -> list[_Row]:
    """Every row of the branches, as far as it takes to find its best."""
    rows = [_Row(branches.tree) for _ in range(branches.rows)]
    for row, log_p in zip(rows, branches.begin(), strict=True):
        row.learn([ROOT], log_p.tolist())
    while any(wanted := [row.wanted() for row in rows]):
        for row, nodes, log_p in zip(rows, wanted, branches.follow(wanted), strict=True):
            row.learn(nodes, log_p.tolist())
    return rows


def _best(tree: Tree, decoder: Decoder) -> Tensor:
    """The place (rows,) of the likeliest continuation."""
    whole = tree.continuations
    begins = [ids[0] for ids in whole]
    first = decoder.tree_log_p(Tree.of([[token] for token in dict.fromkeys(begins)])).cpu()
    column = {token: place for place, token in enumerate(dict.fromkeys(begins))}
    bounds = first[:, [column[token] for token in begins]].double()  # (rows, continuations): log p is at most this
    found = torch.full_like(bounds, -torch.inf)
    wanted = (bounds == bounds.max(dim=1, keepdim=True).values).any(dim=0)  # first, what begins best after a prompt
    for _round in range(2):
        if places := wanted.nonzero().flatten().tolist():
            part = Tree.of([whole[place] for place in places])
            found[:, places] = part.sums(decoder.tree_log_p(part)).cpu().double()
        best = found.max(dim=1, keepdim=True).values
        wanted = (bounds >= best - ROUNDING).any(dim=0) & torch.isinf(found).all(dim=0)  # then, what may be better yet
    return found.argmax(dim=1)


def _read(
    prompts: Sequence[list[int]], trees: Sequence[Tree], decoders: MakeDecoders, padded: bool, branching: bool
) -> Iterator[tuple[list[int], Tree, Decoder]]:
    """Indices of prompts that share a tree, the tree, and a decoder that has read them. `branching`: a tree is computed
    in parts."""
    for indices in _batches(prompts, trees, padded, branching):
        tree = trees[indices[0]]
        ids, missing = padded_left([prompts[index] for index in indices])
        (decoder,) = decoders(len(indices), ids.shape[1] + len(tree.tokens))
        decoder(ids, missing)
        yield indices, tree, decoder


def _batches(prompts: Sequence[list[int]], trees: Sequence[Tree], padded: bool, branching: bool) -> list[list[int]]:
    """Indices of prompts that are computed together."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index])):
        groups.setdefault((id(trees[index]), 0 if padded else len(prompts[index])), []).append(index)
    batches = []
    for group in groups.values():
        longest, nodes = len(prompts[group[-1]]), len(trees[group[-1]].tokens)
        each = max(longest, min(nodes, FEW)) if branching else longest + nodes
        size = max(1, POSITIONS // each)
        batches += [group[start : start + size] for start in range(0, len(group), size)]
    return batches
