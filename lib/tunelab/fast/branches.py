"""A tree of continuations behind the prompts of a decoder, of which each row computes only what is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tunelab.fast.decode import FastDecoder
from tunelab.fast.tree import ROOT, Tree

HEAD_AT_ONCE = 256  # nodes whose logits are held at a time


class Branches:
    """Nodes of a tree that follow what each row of a decoder has read. The decoder is used up: what it has read is
    followed by the nodes, each row's own."""

    def __init__(self, decoder: FastDecoder, tree: Tree) -> None:
        assert decoder.length, "a tree follows a prompt"
        self.tree, self.rows = tree, decoder.rows
        self._decoder, self._prompt, self._depths = decoder, decoder.length, tree.depths
        # of each row, node -> where its key and those of the nodes before it lie
        self._line: list[dict[int, list[int]]] = [{ROOT: []} for _ in range(decoder.rows)]
        self._places = torch.arange(decoder.length).expand(decoder.rows, -1)  # (rows, S) of every key

    @torch.inference_mode()
    def begin(self) -> list[Tensor]:
        """Of each row log p (edges,) of the edges that follow the prompt, `tree.after[ROOT]`, in fp32."""
        return self._log_p(self._decoder.last_hidden, [[ROOT]] * self.rows)

    @torch.inference_mode()
    def follow(self, wanted: Sequence[Sequence[int]]) -> list[Tensor]:
        """Of each row log p (edges,) of the edges behind the nodes it wants, node by node those in `tree.after`, in
        fp32. A row wants a node once, and the node before it earlier, or earlier in the same list."""
        count, start = max(map(len, wanted)), self._decoder.length
        ids = torch.zeros(self.rows, count, dtype=torch.long)  # where a row wants fewer nodes, any token does
        places = torch.full((self.rows, count), self._prompt, dtype=torch.long)
        sees = torch.zeros(self.rows, count, start + count, dtype=torch.bool)
        sees[:, :, : self._prompt] = True
        for row, nodes in enumerate(wanted):
            line = self._line[row]
            for place, node in enumerate(nodes):
                line[node] = [*line[self.tree.parents[node]], start + place]
                ids[row, place], places[row, place] = self.tree.tokens[node], self._prompt + self._depths[node]
                sees[row, place, line[node]] = True
        hidden = self._decoder.follow(ids, places, sees, self._places)
        self._places = torch.cat([self._places, places], 1)
        return self._log_p(torch.cat([hidden[row, : len(nodes)] for row, nodes in enumerate(wanted)]), wanted)

    def _log_p(self, hidden: Tensor, nodes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Of each row log p (edges,) of the edges behind its nodes, whose hidden states (nodes of all rows, C) follow
        each other."""
        after = [self.tree.after[node] for each in nodes for node in each]
        found = []
        for start in range(0, len(after), HEAD_AT_ONCE):
            logits = self._decoder.logits(hidden[start : start + HEAD_AT_ONCE]).float()
            edges = [(place, edge) for place, each in enumerate(after[start : start + HEAD_AT_ONCE]) for edge in each]
            places = torch.tensor([place for place, _edge in edges], device=logits.device)
            tokens = torch.tensor([self.tree.edges[edge][1] for _place, edge in edges], device=logits.device)
            found.append((logits[places, tokens] - logits.logsumexp(-1)[places]).cpu())
        sizes = [sum(len(self.tree.after[node]) for node in each) for each in nodes]
        return list(torch.cat(found).split(sizes))
