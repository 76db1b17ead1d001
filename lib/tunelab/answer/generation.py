"""Answering: one decoding loop for any number of columns, each token streamed as it is made.

    decoders (one per group of rows) ──> decode() ──> a list of new tokens per step

A `Decoder` gives next-token logits for its rows. `FastDecoder` holds all rows of LoRA adapters on one base;
`PlainDecoder` is any model's own forward with its cache, inside whatever switches its adapter on or off. Sampled
columns draw the same seeded noise, so that they differ by their models and not by their luck.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from tunelab.data import chat_format
from tunelab.fast.tree import ROOT, Tree
from tunelab.model.load import unwrapped
from tunelab.model.positions import positions

NO_LIMIT = 2**31
TOGETHER = 32  # continuations of a prompt that the plain decoder takes at once: (32, T, V) logits exist for them


class Decoder(Protocol):
    """Next-token logits for `rows` prompts and what follows them."""

    rows: int

    def tree_log_p(self, tree: Tree) -> Tensor:
        """log p (rows, E) of every edge of a tree that follows everything given before, in fp32, on the CPU or where
        the model is. The decoder stays where it is."""

    def __call__(self, input_ids: Tensor, padding: Tensor | None = None) -> Tensor:
        """Logits (rows, V) after input_ids (rows, T), which follow everything given before. With the first ones,
        `padding` (rows,) says how many tokens at the left of each row are none."""


class PlainDecoder:
    """The model's own forward and cache, inside `around()` (adapter on, or off)."""

    def __init__(self, model: Any, around: Callable[[], AbstractContextManager[Any]], rows: int = 1) -> None:
        self.model, self.around, self.rows = model, around, rows
        self.cache: Any = None
        self.mask: Tensor | None = None
        self.given = torch.empty(0, dtype=torch.long)  # (rows, T) so far
        self.last_logits = torch.empty(0, dtype=torch.float32)  # (rows, V)
        self.last_position = (positions(unwrapped(model).config) or NO_LIMIT) - 1

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor, padding: Tensor | None = None) -> Tensor:
        # virtual tokens stand before the first ones; afterwards they are in the cache, and must not come again
        model = self.model if self.cache is None else unwrapped(self.model)
        ids = input_ids.to(self.model.device)
        self.given = ids if self.cache is None else torch.cat((self.given, ids), dim=1)
        with self.around():
            out = model(
                input_ids=ids,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
                **self._places(ids, padding),
            )
        self.cache, self.last_logits = out.past_key_values, out.logits[:, -1]
        return self.last_logits

    @torch.inference_mode()
    def tree_log_p(self, tree: Tree) -> Tensor:
        """As `FastDecoder.tree_log_p`, by each continuation on its own: any model's cache can be copied, and hardly any
        takes a tree."""
        found = torch.empty(self.rows, len(tree.edges), dtype=torch.float32)
        root = functional.log_softmax(self.last_logits.float(), dim=-1).cpu()
        first = [edge for edge, (node, _token) in enumerate(tree.edges) if node == ROOT]
        found[:, first] = root[:, [tree.edges[edge][1] for edge in first]]
        longer = [path for path in tree.paths if len(path) > 1]
        for row in range(self.rows):
            for start in range(0, len(longer), TOGETHER):
                paths = longer[start : start + TOGETHER]
                log_p = functional.log_softmax(self._behind(row, tree, paths).float(), dim=-1).cpu()
                for own, path in zip(log_p, paths, strict=True):
                    found[row, path[1:]] = own[range(len(path) - 1), [tree.edges[edge][1] for edge in path[1:]]]
        return found

    def _behind(self, row: int, tree: Tree, paths: Sequence[list[int]]) -> Tensor:
        """Logits (paths, T, V) behind every token but the last of paths that follow a row, padded on the right."""
        tokens = [[tree.edges[edge][1] for edge in path[:-1]] for path in paths]
        longest = max(map(len, tokens))
        ids = torch.tensor([one + [0] * (longest - len(one)) for one in tokens]).to(self.model.device)
        cache = copy.deepcopy(self.cache)
        try:
            cache.batch_select_indices(torch.tensor([row] * len(paths), device=ids.device))
        except AttributeError:  # of a layer that keeps no keys
            return self._from_the_start(row, ids)
        mask = None if self.mask is None else torch.cat((self.mask[[row] * len(paths)], torch.ones_like(ids)), dim=1)
        places = self._within(mask, ids)
        with self.around():
            return unwrapped(self.model)(input_ids=ids, past_key_values=cache, use_cache=True, **places).logits

    def _from_the_start(self, row: int, ids: Tensor) -> Tensor:
        """Logits (paths, T, V) of ids (paths, T), with the row's prompt computed again before each."""
        prompt = self.given[row] if self.mask is None else self.given[row][self.mask[row].bool()]
        whole = torch.cat((prompt.expand(len(ids), -1), ids), dim=1)
        with self.around():
            return self.model(input_ids=whole, use_cache=False, logits_to_keep=ids.shape[1]).logits

    def _places(self, ids: Tensor, padding: Tensor | None) -> dict[str, Tensor]:
        """Mask and positions that leave the padding out; nothing where there is none."""
        if padding is not None:
            self.mask = (torch.arange(ids.shape[1])[None] >= padding[:, None]).long().to(ids.device)
        elif self.mask is not None:
            self.mask = torch.cat((self.mask, torch.ones_like(ids)), dim=1)
        return self._within(self.mask, ids)

    def _within(self, mask: Tensor | None, ids: Tensor) -> dict[str, Tensor]:
        """A mask (rows, T) of everything, and the positions of the last tokens, `ids`."""
        if mask is None:
            return {}
        # a row that has ended goes on beside longer ones, beyond the last position; what it says is not read any more
        own = (mask.cumsum(1) - 1).clamp(min=0, max=self.last_position)
        return {"attention_mask": mask, "position_ids": own[:, -ids.shape[1] :]}


def padded_left(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
    """Prompts (rows, T), padded on the left, and how many tokens of each row are none; None where all are as long."""
    longest = max(map(len, prompts))
    missing = torch.tensor([longest - len(prompt) for prompt in prompts])
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    return ids, missing if missing.any() else None


def chosen_tokens(logits: Tensor, temperature: float, noises: Sequence[torch.Generator]) -> Tensor:
    """The next token (rows,) by logits (rows, V). `temperature` 0 is greedy. Above it, token i is the argmax of
    logits / temperature + Gumbel noise, which samples from the softmax exactly (Maddison et al. 2014); rows that have
    the same generator draw the same noise."""
    if temperature > 0:
        drawn = {}
        for noise in noises:
            if noise not in drawn:
                uniform = torch.rand(logits.shape[1], generator=noise, dtype=torch.float32).clamp_(min=1e-20)
                drawn[noise] = uniform.log().neg_().log_()
        logits = logits / temperature - torch.stack([drawn[noise] for noise in noises])
    return logits.argmax(-1)


class Noises:
    """Generators of noise by their seeds, each made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[int, torch.Generator] = {}

    def __getitem__(self, seed: int) -> torch.Generator:
        if seed not in self._made:
            self._made[seed] = torch.Generator().manual_seed(seed)
        return self._made[seed]


@dataclass(frozen=True)
class Row:
    """What one row answers, and for how long."""

    prompt: list[int]
    longest: int  # tokens of the answer
    seed: int = 0
    is_cancelled: Callable[[], bool] = lambda: False


def decode(
    decoders: Sequence[Decoder],
    prompts: Sequence[list[int]],
    *,
    end_ids: frozenset[int],
    max_new_tokens: int | Sequence[int],
    temperature: float = 0.0,
    seed: int = 0,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[list[int | None]]:
    """As `decode_rows`, where every decoder has a row for each prompt, or several: the new token of every row, step by
    step. `max_new_tokens`: of every answer, or of the one to each prompt."""
    times = sum(decoder.rows for decoder in decoders) // len(prompts)
    each = zip(prompts, _of_each(max_new_tokens, len(prompts)), strict=True)
    rows = [Row(prompt, longest, seed, cancelled) for prompt, longest in each] * times
    return decode_rows(decoders, rows, end_ids=end_ids, temperature=temperature)


def decode_rows(
    decoders: Sequence[Decoder], rows: Sequence[Row], *, end_ids: frozenset[int], temperature: float = 0.0
) -> Iterator[list[int | None]]:
    """The new token of every row, step by step; None for a row that has ended. An end token is yielded once. The
    decoders' rows are those given, in their order; prompts of different lengths are padded on the left.

    `temperature`: as in `chosen_tokens`, one noise vector per step and seed.
    """
    noises = Noises()
    of_each = [decoder.rows for decoder in decoders]
    inputs, padding = [], []
    for start, count in zip(itertools.accumulate([0, *of_each]), of_each, strict=False):
        ids, missing = padded_left([row.prompt for row in rows[start : start + count]])
        inputs.append(ids)
        padding.append(missing)
    ended = [False] * len(rows)
    for made in itertools.count(1):
        ended = [over or row.is_cancelled() for over, row in zip(ended, rows, strict=True)]
        if all(ended):
            return
        logits = torch.cat([d(ids, pad).float().cpu() for d, ids, pad in zip(decoders, inputs, padding, strict=True)])
        padding = [None] * len(decoders)
        chosen = chosen_tokens(logits, temperature, [noises[row.seed] for row in rows])
        step: list[int | None] = [None if over else int(t) for over, t in zip(ended, chosen, strict=True)]
        yield step
        ended = [
            token is None or token in end_ids or made >= row.longest for token, row in zip(step, rows, strict=True)
        ]
        inputs = list(chosen[:, None].split(of_each))


def answer_many(
    prompts: Sequence[list[int]],
    decoders: Callable[[int, int], Sequence[Decoder]],
    *,
    end_ids: frozenset[int],
    max_new_tokens: int | Sequence[int],
    padded: bool = True,
    at_once: int = 32,
) -> Iterator[tuple[list[int], list[list[list[int]]]]]:
    """Greedy answers to many prompts: their indices, and for each the tokens of every column, end tokens left out.

    Prompts of similar length are decoded at once, padded on the left; where that would change answers (`padded` False),
    those of the same length. `decoders(rows, capacity)` makes the decoders of some columns for `rows` prompts of up to
    `capacity` tokens. `max_new_tokens`: of every answer, or of the one to each prompt.
    """
    longest_answers = _of_each(max_new_tokens, len(prompts))
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for _length, group in itertools.groupby(by_length, key=lambda index: None if padded else len(prompts[index])):
        together = list(group)
        for start in range(0, len(together), at_once):
            indices = together[start : start + at_once]
            limits = [longest_answers[index] for index in indices]
            made = decoders(len(indices), len(prompts[indices[-1]]) + max(limits))
            tokens: list[list[int]] = [[] for _ in range(sum(decoder.rows for decoder in made))]
            asked = [prompts[index] for index in indices]
            for step in decode(made, asked, end_ids=end_ids, max_new_tokens=limits):
                for row, token in enumerate(step):
                    if token is not None and token not in end_ids:
                        tokens[row].append(token)
            # rows stand column by column: every prompt by the first column, then every prompt by the second, …
            yield indices, [tokens[place :: len(indices)] for place in range(len(indices))]


def _of_each(value: int | Sequence[int], count: int) -> list[int]:
    return [value] * count if isinstance(value, int) else list(value)


def text_of(tokenizer: Any, ids: list[int]) -> str:
    """The text of an answer so far; a character whose bytes are not complete yet is left out, and so is what the chat
    template writes before the token that ends an answer."""
    return chat_format(tokenizer).shown(str(tokenizer.decode(ids, skip_special_tokens=True)).rstrip("\ufffd"))


def end_ids(tokenizer: Any, model: Any) -> frozenset[int]:
    """The tokens that end an answer: that of the chat template, the end of text, and those of the model's generation
    settings."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ids, *chat_format(tokenizer).end_ids) if i is not None)
