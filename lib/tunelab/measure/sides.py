"""A run's model, loaded once, and what base and tuned make of rows, answers and questions. What either has been asked
before comes from disk.

    Sides(run) ──> losses(rows, tuned)   answers(prompts, tuned)   likeliest(prompts, labels, tuned)   choices(probe, …)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from tunelab.data import chat_format, encode_prompt
from tunelab.errors import UserError
from tunelab.measure.counting import Counting
from tunelab.measure.known import Known, known_base, known_result
from tunelab.measure.scoring import RowSum, known_losses
from tunelab.run.run import Run

if TYPE_CHECKING:
    from tunelab.answer.decoders import Pass
    from tunelab.data import Encoded, Message
    from tunelab.fast.tree import Tree
    from tunelab.measure.probe.choices import Scores
    from tunelab.measure.probe.read import Probe
    from tunelab.model.load import Base


class Answer(NamedTuple):
    """What was answered, and whether it ended by itself."""

    text: str
    ended: bool


class Sides:
    """Base and tuned model of a run, in evaluation mode.

    Raises:
        UserError: the run has no adapter, or its base can't be loaded or is another one now.
    """

    def __init__(self, run: Run, say: Callable[[str], None] = lambda message: None) -> None:
        from tunelab.answer.decoders import Resident, Result
        from tunelab.answer.generation import end_ids
        from tunelab.fast import choose_loss
        from tunelab.fast.llama import FastLoss

        self.run, self.say, self.technique = run, say, run.config.technique
        self.base, self.model = loaded(run)
        self.loss = choose_loss(self.model, self.technique)
        self.ends = end_ids(self.base.tokenizer, self.base.model)
        self._result = Result.of(run)
        llama = self.loss.llama if isinstance(self.loss, FastLoss) else None
        self._resident = Resident.measured(self.base, self._result, self.model, llama)
        self._known = {
            False: known_base(run, self.base, self.loss.fast),
            True: known_result(run, self.base, self.loss.fast),
        }

    def known(self, tuned: bool) -> Known:
        return self._known[tuned]

    def _switched(self, tuned: bool) -> Any:
        return nullcontext() if tuned else self.technique.off(self.model)

    def losses(self, rows: Sequence[Encoded], tuned: bool, who: str | None = None) -> list[RowSum]:
        """-log p of each row's scored tokens; of whom it says how many are done, if it is told."""
        with self._switched(tuned):
            what = f"losses of the {who}"
            said = self.say if who else lambda message: None
            return known_losses(
                self.loss, rows, self.base, self.known(tuned), lambda known: Counting(what, len(rows), said, known).add
            )

    def choices(self, probe: Probe, tuned: bool, max_length: int) -> Scores:
        """Which endings of the questions are chosen."""
        from tunelab.measure.probe.choices import score_choices

        with self._switched(tuned):
            return score_choices(
                probe, self.loss, self.base, max_length=max_length, known=self.known(tuned), on_progress=self.say
            )

    # answers

    def prompts(self, asked: Sequence[Sequence[Message]]) -> list[list[int]]:
        """The tokens of each conversation up to its answer."""
        return [encode_prompt(turns, self.base.tokenizer) for turns in asked]

    def can_answer(self, asked: Sequence[Message]) -> bool:
        """Whether the prompt leaves the model a position to answer from."""
        from tunelab.model.positions import positions

        available = positions(self.base.model.config)
        if available is None:
            return True
        return len(encode_prompt(asked, self.base.tokenizer)) < available - self.technique.positions_taken

    def words(self, text: str) -> str:
        """A reference as an answer would be read."""
        return chat_format(self.base.tokenizer).words(text)

    def answers(self, prompts: Sequence[list[int]], max_new_tokens: int, tuned: bool, who: str) -> list[Answer]:
        """The greedy answer to each prompt."""
        from tunelab.answer.generation import answer_many, text_of
        from tunelab.model.positions import answer_length

        taken, config, tokenizer = self.technique.positions_taken, self.base.model.config, self.base.tokenizer
        longest = [answer_length(config, len(ids), max_new_tokens, taken) for ids in prompts]
        words = chat_format(tokenizer).words

        def measure(missing: list[int]) -> Iterator[tuple[int, list[object]]]:
            known = len(prompts) - len(missing)
            said = Counting(f"answers of the {who}", len(prompts), self.say, known)
            one = self._pass(tuned)
            some, limits = [prompts[index] for index in missing], [longest[index] for index in missing]
            made = answer_many(some, one.decoders, end_ids=self.ends, max_new_tokens=limits, padded=one.padded)
            for places, found in made:
                for place, columns in zip(places, found, strict=True):
                    # one that ended has an end token there, which is left out
                    ended = len(columns[0]) < limits[place]
                    yield missing[place], [words(text_of(tokenizer, columns[0])), ended]
                said.add(len(places))

        ends = sorted(self.ends)
        asked = [[ids, limit, ends] for ids, limit in zip(prompts, longest, strict=True)]
        return [Answer(*value) for value in self.known(tuned).ask("answers", asked, measure)]

    def likeliest(
        self,
        asked: Sequence[Sequence[Message]],
        prompts: Sequence[list[int]],
        labels: Sequence[str],
        tuned: bool,
        who: str,
    ) -> list[Answer]:
        """The label with the highest likelihood after each prompt.

        Raises:
            UserError: the labels can't be scored after a prompt.
        """
        from tunelab.answer.likelihood import likeliest

        trees = self._trees(asked, labels)
        for tree, ids in zip(trees, prompts, strict=True):
            self._check_room(tree, ids)

        def measure(missing: list[int]) -> Iterator[tuple[int, int]]:
            known = len(prompts) - len(missing)
            said = Counting(f"likelihoods of labels, {who}", len(prompts), self.say, known)
            one = self._pass(tuned)
            some = [prompts[index] for index in missing]
            found = likeliest(some, [trees[index] for index in missing], one.decoders, padded=one.padded)
            for index, place in found:
                said.add(1)
                yield missing[index], place

        keys = {id(tree): tree.continuations for tree in trees}
        key = [[ids, keys[id(tree)]] for ids, tree in zip(prompts, trees, strict=True)]
        chosen = self.known(tuned).ask("likeliest", key, measure)
        return [Answer(self.words(labels[index]), True) for index in chosen]

    def _trees(self, asked: Sequence[Sequence[Message]], labels: Sequence[str]) -> list[Tree]:
        """The labels after each prompt; one tree for all prompts after which they have the same tokens."""
        from tunelab.answer.likelihood import continuations
        from tunelab.fast.tree import Tree

        tokenizer, made, trees = self.base.tokenizer, dict[tuple[int, ...], Tree](), []
        for turns in asked:
            (first,) = continuations(turns, labels[:1], tokenizer)
            if tuple(first) not in made:
                made[tuple(first)] = Tree.of(continuations(turns, labels, tokenizer))
            trees.append(made[tuple(first)])
        return trees

    def _check_room(self, tree: Tree, ids: list[int]) -> None:
        from tunelab.model.positions import positions

        available, longest = positions(self.base.model.config), max(map(len, tree.paths))
        if available is not None and len(ids) + longest > available - self.technique.positions_taken:
            raise UserError(
                f"A prompt of {len(ids):,} tokens leaves no room for a label of {longest} within the model's "
                f"{available:,} positions. Measure by written answers, or with fewer examples."
            )

    def _pass(self, tuned: bool) -> Pass:
        (one,) = self._resident.passes([self._result], columns=[int(tuned)])
        return one


def loaded(run: Run) -> tuple[Base, Any]:
    """The base of a run, and the model with the run's result on it, in evaluation mode."""
    from tunelab.model.load import load

    base = load(run.base_spec)
    run.check_base(base.spec.repo_id, base.sha256)
    return base, run.config.technique.load(base, run.adapter_path).eval()


def longest_row(run: Run, max_length: int | None = None) -> int:
    """The longest row in tokens that the run's model takes, at most `max_length`; None: the run's own."""
    from tunelab.model.load import find
    from tunelab.model.positions import row_limit

    model = run.base_spec
    return row_limit(find(model), model, run.config.technique.positions_taken, max_length).tokens
