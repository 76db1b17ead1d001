"""Which of several answers a model finds likeliest, without writing one: for labels and multiple choice.

    continuations(labels, …) ──> the tokens of each answer, its end included
    log_likelihoods(prompts, …) ──> log p of each answer to each prompt

A prompt is computed once for all answers, and on the fast path also what answers begin with alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunelab.data import Example, Message, encode, encode_prompt
from tunelab.errors import UserError, shortened
from tunelab.fast.tree import Tree

if TYPE_CHECKING:
    from tunelab.answer.decoders import MakeDecoders

POSITIONS = 1024  # of prompts and trees that are computed at once
WHOLE = 1 << 30


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
    found: list[Tensor] = [torch.empty(0)] * len(prompts)
    for indices in _batches(prompts, trees, padded):
        tree = trees[indices[0]]
        longest = max(len(prompts[index]) for index in indices)
        (decoder,) = decoders(len(indices), longest + len(tree.tokens))
        missing = torch.tensor([longest - len(prompts[index]) for index in indices])
        ids = torch.tensor([[0] * (longest - len(prompts[index])) + list(prompts[index]) for index in indices])
        decoder(ids, missing if missing.any() else None)
        for index, log_p in zip(indices, tree.sums(decoder.tree_log_p(tree)).cpu(), strict=True):
            found[index] = log_p
    return found


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
