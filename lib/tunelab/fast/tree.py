"""Several continuations of one prompt as a tree: what they begin with alike is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

ROOT = -1  # the prompt


@dataclass(frozen=True)
class Tree:
    """Continuations, token by token. A node is a token that something follows; an edge is a token that is scored, after
    a node or the prompt."""

    tokens: list[int]  # (N,) of each node, parents before children
    parents: list[int]  # (N,) the node before each, or ROOT
    edges: list[tuple[int, int]]  # (E,) the node before each scored token, or ROOT, and the token
    paths: list[list[int]]  # of each continuation its edges

    @classmethod
    def of(cls, continuations: Sequence[Sequence[int]]) -> Tree:
        """The tree of continuations, each of one token at least."""
        tokens: list[int] = []
        parents: list[int] = []
        edges: dict[tuple[int, int], int] = {}
        nodes: dict[int, int] = {}  # the edge that leads to a node -> the node
        paths = []
        for ids in continuations:
            assert ids, "a continuation without a token can't be scored"
            node, path = ROOT, []
            for place, token in enumerate(ids):
                edge = edges.setdefault((node, token), len(edges))
                path.append(edge)
                if place + 1 < len(ids):
                    if edge not in nodes:
                        nodes[edge] = len(tokens)
                        tokens.append(token)
                        parents.append(node)
                    node = nodes[edge]
            paths.append(path)
        return cls(tokens, parents, list(edges), paths)

    @property
    def depths(self) -> list[int]:
        """(N,) how many nodes stand before each."""
        found: list[int] = []
        for parent in self.parents:
            found.append(0 if parent == ROOT else found[parent] + 1)
        return found

    @cached_property
    def after(self) -> dict[int, list[int]]:
        """The edges after each node, and after ROOT."""
        found: dict[int, list[int]] = {node: [] for node in range(ROOT, len(self.tokens))}
        for edge, (node, _token) in enumerate(self.edges):
            found[node].append(edge)
        return found

    @cached_property
    def led_to(self) -> list[int]:
        """(N,) the edge that leads to each node."""
        edges = {edge: place for place, edge in enumerate(self.edges)}
        return [edges[parent, token] for parent, token in zip(self.parents, self.tokens, strict=True)]

    @cached_property
    def leads_to(self) -> dict[int, int]:
        """The node that an edge leads to, of those after which something follows."""
        return {edge: node for node, edge in enumerate(self.led_to)}

    @property
    def continuations(self) -> list[list[int]]:
        """The tokens of each continuation."""
        return [[self.edges[edge][1] for edge in path] for path in self.paths]

    def sees(self) -> Tensor:
        """(N, N), bool: whether a node (row) is another one (column) or stands behind it."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent != ROOT:
                seen[node] |= seen[parent]
        return seen

    def sums(self, edges: Tensor) -> Tensor:
        """log p of each continuation (rows, continuations) from that of every edge (rows, E)."""
        return torch.stack([edges[:, path].sum(1) for path in self.paths], 1)
