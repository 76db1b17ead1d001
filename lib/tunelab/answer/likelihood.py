"""Which of several answers a model finds likeliest, without writing one: for labels and multiple choice.

    continuations(labels, …) ──> the tokens of each answer, its end included
    log_likelihoods(prompts, …) ──> log p of each answer to each prompt
    likeliest(prompts, …) ──> the answer with the highest one, without computing those that can't be it

A prompt is computed once for all answers, and on the fast path also what answers begin with alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunelab.answer.generation import padded_left
from tunelab.data import Example, Message, encode, encode_prompt
from tunelab.errors import UserError, shortened
from tunelab.fast.tree import Tree

if TYPE_CHECKING:
    from tunelab.answer.decoders import MakeDecoders
    from tunelab.answer.generation import Decoder

POSITIONS = 1024  # of prompts and trees that are computed at once
WHOLE = 1 << 30
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
    for indices, tree, decoder in _read(prompts, trees, decoders, padded):
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
    `log_likelihoods`, but what is less likely by its first token than another as a whole is not computed."""
    for indices, tree, decoder in _read(prompts, trees, decoders, padded):
        yield from zip(indices, _best(tree, decoder).tolist(), strict=True)


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
    prompts: Sequence[list[int]], trees: Sequence[Tree], decoders: MakeDecoders, padded: bool
) -> Iterator[tuple[list[int], Tree, Decoder]]:
    """Indices of prompts that share a tree, the tree, and a decoder that has read them."""
    for indices in _batches(prompts, trees, padded):
        tree = trees[indices[0]]
        ids, missing = padded_left([prompts[index] for index in indices])
        (decoder,) = decoders(len(indices), ids.shape[1] + len(tree.tokens))
        decoder(ids, missing)
        yield indices, tree, decoder


def _batches(prompts: Sequence[list[int]], trees: Sequence[Tree], padded: bool) -> list[list[int]]:
    """Indices of prompts that are computed together."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index])):
        groups.setdefault((id(trees[index]), 0 if padded else len(prompts[index])), []).append(index)
    batches = []
    for group in groups.values():
        each = len(prompts[group[-1]]) + len(trees[group[-1]].tokens)
        size = max(1, POSITIONS // each)
        batches += [group[start : start + size] for start in range(0, len(group), size)]
    return batches
