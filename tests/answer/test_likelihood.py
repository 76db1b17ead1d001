"""The likelihood of answers, without writing one: what a plain forward of each says, whatever computes it."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.architectures import SETTINGS, tiny_model
from tests.helpers import ROWS
from tests.train.test_loop import config
from tunelab import BottleneckAdapter, LoRA, ModelSpec, PrefixTuning, finetune, load
from tunelab.answer import likelihood
from tunelab.answer.decoders import Resident, Result
from tunelab.answer.generation import PlainDecoder
from tunelab.answer.likelihood import continuations, likeliest, log_likelihoods
from tunelab.data import Message, encode_prompt
from tunelab.fast.branches import Branches
from tunelab.fast.tree import Tree

LABELS = ["card", "card lost", "card stolen", "cash", "c", "top up", "transfer", "transfers"]


def alone(model, prompt, ids):
    """log p of an answer to a prompt by one forward over both."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0]
    log_p = torch.log_softmax(logits[-len(ids) - 1 : -1].double(), dim=-1)
    return float(log_p[range(len(ids)), ids].sum())


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=8))
def test_a_tree_holds_every_continuation_and_what_they_begin_with_once(continuations):
    tree = Tree.of(continuations)
    assert [[tree.edges[edge][1] for edge in path] for path in tree.paths] == continuations
    prefixes = {tuple(ids[:end]) for ids in continuations for end in range(1, len(ids))}
    assert len(tree.tokens) == len(prefixes)
    assert len(tree.edges) == len({tuple(ids[:end]) for ids in continuations for end in range(1, len(ids) + 1)})
    sees = tree.sees()
    for node, depth in enumerate(tree.depths):
        assert sees[node].sum() == depth + 1  # itself and those before it, nobody beside it


@pytest.mark.parametrize("technique", [LoRA(r=4), PrefixTuning(num_virtual_tokens=4), BottleneckAdapter(size=8)])
def test_base_and_tuned_find_answers_as_likely_as_a_plain_forward_of_each_does(tiny, technique):
    run = finetune(config(tiny, steps=8).model_copy(update={"technique": technique}))
    base = load(run.base_spec)
    asked = [(Message("user", row["prompt"] * times),) for times, row in enumerate(ROWS[:5], 1)]
    prompts = [encode_prompt(turns, base.tokenizer) for turns in asked]
    ids = continuations(asked[0], LABELS, base.tokenizer)
    assert [continuations(turns, LABELS, base.tokenizer) for turns in asked] == [ids] * len(asked)
    tree = Tree.of(ids)
    found, resident = {}, Resident(base)
    for column in (0, 1):
        (one,) = resident.passes([Result.of(run)], columns=[column])
        found[column] = log_likelihoods(prompts, [tree] * len(prompts), one.decoders, padded=one.padded)
    fresh = load(run.base_spec).model
    tuned = technique.load(load(run.base_spec), run.adapter_path).eval()
    for column, model in ((0, fresh), (1, tuned)):
        for prompt, log_p in zip(prompts, found[column], strict=True):
            expected = [alone(model, prompt, one) for one in ids]
            assert log_p.tolist() == pytest.approx(expected, rel=1e-4)
    assert (torch.stack(found[0]) - torch.stack(found[1])).abs().max() > 0.1
    for column in (0, 1):
        (one,) = resident.passes([Result.of(run)], columns=[column])
        chosen = dict(likeliest(prompts, [tree] * len(prompts), one.decoders, padded=one.padded))
        assert chosen == {index: int(log_p.argmax()) for index, log_p in enumerate(found[column])}


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=12, unique_by=tuple), st.data()
)
def test_the_likeliest_is_that_of_all_and_what_can_not_be_it_is_not_computed(continuations, data):
    """Any log p of edges will do: a decoder that draws them."""
    nodes = []

    class Drawn:
        def __init__(self, rows):
            self.rows = rows
            self.drawn = random.Random(data.draw(st.integers(0, 999)))
            self.log_p = {}

        def __call__(self, ids, padding=None):
            return None

        def tree_log_p(self, tree):
            nodes.append(len(tree.tokens))
            paths = zip(tree.continuations, tree.paths, strict=True)
            begins = {edge: tuple(ids[: place + 1]) for ids, path in paths for place, edge in enumerate(path)}
            keys = [[(row, begins[edge]) for edge in range(len(tree.edges))] for row in range(self.rows)]
            for key in (key for row in keys for key in row):
                self.log_p.setdefault(key, -self.drawn.expovariate(1) * 3)
            return torch.tensor([[self.log_p[key] for key in row] for row in keys])

    tree, made = Tree.of(continuations), []

    def decoders(rows, _capacity):
        made.append(Drawn(rows))
        return [made[-1]]

    chosen = dict(likeliest([[1], [2]], [tree, tree], decoders, padded=True))
    decoder = made[-1]
    computed = sum(nodes)
    sums = tree.sums(decoder.tree_log_p(tree))  # what was not drawn before is at most what its beginning has
    assert computed <= len(tree.tokens)
    for row, place in chosen.items():
        assert float(sums[row, place]) == pytest.approx(float(sums[row].max()), abs=1e-4)


def test_labels_that_begin_worse_than_another_ends_are_not_computed(tiny):
    base = load(config(tiny).model)
    asked = []

    class Counted(PlainDecoder):
        def tree_log_p(self, tree):
            asked.append(len(tree.tokens))
            return super().tree_log_p(tree)

    with torch.no_grad():
        best = int(base.model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].argmax())
    ids = [[best], *([token, 9, 8, 7] for token in range(20, 60) if token != best)]
    found = dict(
        likeliest([[5, 6, 7]], [Tree.of(ids)], lambda rows, _c: [Counted(base.model, nullcontext, rows)], padded=True)
    )
    assert found == {0: 0}
    assert sum(asked) == 0  # the first tokens alone decide


@pytest.mark.parametrize("seed", range(6))
def test_on_the_fast_path_the_likeliest_is_that_of_all_though_few_are_computed(tiny, seed, monkeypatch):
    draw, asked, follow = random.Random(seed), [], Branches.follow

    def counted(self, wanted):
        asked.extend(map(len, wanted))
        return follow(self, wanted)

    monkeypatch.setattr(Branches, "follow", counted)
    monkeypatch.setattr(likelihood, "FEW", 3)
    (one,) = Resident(load(config(tiny).model)).passes([], columns=[0])
    tree = Tree.of([[draw.randrange(3, 12) for _ in range(draw.randrange(1, 8))] for _ in range(60)])
    prompts = [[draw.randrange(3, 200) for _ in range(draw.randrange(1, 9))] for _ in range(9)]
    expected = log_likelihoods(prompts, [tree] * 9, one.decoders, padded=one.padded)
    found = dict(likeliest(prompts, [tree] * 9, one.decoders, padded=one.padded))
    assert found == {index: int(log_p.argmax()) for index, log_p in enumerate(expected)}
    assert 0 < sum(asked) < 0.6 * 9 * len(tree.tokens)


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"mamba"}))  # which answers without a cache of this kind
def test_of_every_architecture(name, tmp_path):
    base = load(ModelSpec(repo_id=tiny_model(name, tmp_path / name), dtype="float32"))
    prompts = [[5, 6, 7, 8, 9], [10, 11, 12, 13, 14, 15, 16]]
    ids = [[20, 21, 22, 2], [20, 21, 23, 2], [24, 2], [20, 2]]
    tree = Tree.of(ids)

    def decoders(rows, _capacity):
        return [PlainDecoder(base.model, nullcontext, rows)]

    for padded in (True, False):
        found = log_likelihoods(prompts, [tree, tree], decoders, padded=padded)
        for prompt, log_p in zip(prompts, found, strict=True):
            assert log_p.tolist() == pytest.approx([alone(base.model, prompt, one) for one in ids], rel=1e-4)


def test_prompts_may_have_answers_of_their_own(tiny):
    base = load(config(tiny).model)
    prompts, answers = [[5, 6, 7], [8, 9]], [[[10, 11], [12]], [[13, 14, 15], [10], [13, 2]]]
    (one,) = Resident(base).passes([], columns=[0])
    found = log_likelihoods(prompts, [Tree.of(each) for each in answers], one.decoders, padded=one.padded)
    for prompt, each, log_p in zip(prompts, answers, found, strict=True):
        assert log_p.tolist() == pytest.approx([alone(base.model, prompt, ids) for ids in each], rel=1e-4)
