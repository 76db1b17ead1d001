"""A run's model and the rows it is measured on: what base, tuned and others make of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from tunelab.errors import UserError
from tunelab.measure.answered import answers_file
from tunelab.measure.counting import Part, Planned
from tunelab.measure.settings import Measuring
from tunelab.measure.sides_compared import BASE, TUNED, ScoredMetric, Side, compare_sides
from tunelab.run.reports import Ability, Memorisation, Report, Safety
from tunelab.run.run import Run

if TYPE_CHECKING:
    from tunelab.data import Message
    from tunelab.measure.changes.rows import AnsweredRow
    from tunelab.measure.pool import Picked, Pool
    from tunelab.measure.probe.choices import Scores
    from tunelab.measure.sides import Answer, Sides
    from tunelab.measure.statistics import Measured as Judged
    from tunelab.measure.task import Task


class MeasuredRun:
    """A run's model and the rows it is measured on: both sides, and others who answer, measured when it is made."""

    def __init__(
        self, run: Run, picked: Picked, task: Task, settings: Measuring, on_progress: Callable[[str], None]
    ) -> None:
        from tunelab.data.encode import encode_all
        from tunelab.measure.probe.ability import INSTRUCTION_LENGTH
        from tunelab.measure.probe.read import instructions
        from tunelab.measure.scoring import rows_to_score
        from tunelab.measure.sides import Sides, longest_row

        self.run, self.picked, self.task, self.settings, self.say = run, picked, task, settings, on_progress
        self.began = time.perf_counter()
        self.sides: Sides = Sides(run, on_progress)
        base = self.sides.base
        self.answered = [one for one in picked.examples if self.sides.can_answer(one.asked)]
        self.rows = picked.blocks or rows_to_score(self.answered, base, longest_row(run))
        self.probe_length = longest_row(run, INSTRUCTION_LENGTH)
        probe = instructions()[: settings.instructions]
        self.general, _notes = encode_all(probe, base.tokenizer, self.probe_length)
        self.references = [self.sides.words(example.answer) for example in self.answered]
        self.notes: list[str] = [] if self.answered else settings.for_answers_alone
        self.plan = self._planned()
        self.base = self._side(tuned=False)
        self.tuned = self._side(tuned=True)
        self.others = self._others() if self.answered else {}

    def _planned(self) -> list[Planned]:
        """Every part of the measurement, as far as it is known before."""
        from tunelab.data.sets.general import safety_requests

        rows, settings = len(self.answered), self.settings
        answers = [Planned("answers", rows)] if rows else []
        plan = 2 * [Planned("losses", len(self.rows)), Planned("losses", len(self.general)), *answers]
        plan += answers * ((settings.system is not None) + bool(settings.examples))
        plan += 2 * [Planned("questions", settings.questions)] if settings.questions else []
        plan += [Planned("answers", rows)] * (4 * settings.memorisation + 2 * bool(settings.canaries))
        return plan + 2 * [Planned("answers", len(safety_requests()))] if settings.safety else plan

    def _begin(self, kind: str, rows: int, message: str) -> None:
        """Say that a part begins: the first of its kind in the plan."""
        place = next((place for place, one in enumerate(self.plan) if one.kind == kind), None)
        if place is not None:
            self.plan.pop(place)
        self.say(Part.made(message, Planned(kind, rows), self.plan))

    def _side(self, tuned: bool) -> Side:
        who = "tuned model" if tuned else "base"
        self._begin("losses", len(self.rows), f"measuring the {who} on {len(self.rows)} held-out rows")
        losses = self.sides.losses(self.rows, tuned, who)
        self._begin("losses", len(self.general), f"measuring the {who} on {len(self.general)} general instructions")
        general = self.sides.losses(self.general, tuned, who)
        answers = self._answers([one.asked for one in self.answered], tuned, who)
        return Side(
            losses=[value.loss for value in losses],
            tokens=[value.tokens for value in losses],
            answers=[answer.text for answer in answers],
            ended=[answer.ended for answer in answers],
            general_losses=[value.loss for value in general],
            general_tokens=[value.tokens for value in general],
        )

    def _answers(self, asked: Sequence[Sequence[Message]], tuned: bool, who: str) -> list[Answer]:
        if not asked:
            return []
        prompts = self.sides.prompts(asked)
        if self.settings.by == "answer":
            self._begin("answers", len(asked), f"reading {len(asked)} answers of the {who}")
            return self.sides.answers(prompts, self.settings.max_new_tokens, tuned, who)
        labels = self.task.labels
        if not labels:
            raise UserError(
                "by = 'likelihood': the answers of this run are no labels (few different ones, each in several rows). "
                "Measure by written answers: --by answer."
            )
        self._begin("answers", len(asked), f"reading the likelihood of {len(labels)} labels, {who}")
        return self.sides.likeliest(asked, prompts, labels, tuned, who)

    def _others(self) -> dict[str, list[str]]:
        """The answers that tuned is compared with beside the base's, by who gives them."""
        from tunelab.measure.task import told

        found: dict[str, list[str]] = {}
        if self.settings.system is not None:
            asked = [told(one.asked, self.settings.system) for one in self.answered]
            found |= self._prompted("base with a system prompt", asked)
        if self.settings.examples:
            found |= self._with_examples(self.settings.examples)
        for name, floor in self.task.floors().items():
            found[name] = [self.sides.words(text) for text in self.task.guesses(floor, self.answered)]
        return found

    def _prompted(self, name: str, asked: Sequence[Sequence[Message]]) -> dict[str, list[str]]:
        """The base's answers to other prompts; none, and a note, where one of them is too long for the model."""
        if not all(map(self.sides.can_answer, asked)):
            self.notes.append(f"the {name} was not measured: its prompts leave the model no position for an answer")
            return {}
        return {name: [answer.text for answer in self._answers(asked, False, name)]}

    def _with_examples(self, count: int) -> dict[str, list[str]]:
        """The base's answers with as many examples before the question as all prompts have room for."""
        from tunelab.measure.task import shown

        examples = self.task.examples(count)
        while examples:
            asked = [shown(one.asked, examples) for one in self.answered]
            if all(map(self.sides.can_answer, asked)):
                break
            examples = examples[:-1]
        if len(examples) < count:
            self.notes.append(f"of {count} examples before the question, {len(examples)} fit into the model's rows")
        if not examples:
            return {}
        return self._prompted(f"base with {len(examples)} example{'s' * (len(examples) > 1)}", asked)

    def ability(self) -> Ability | None:
        """General ability before and after, by questions; None where none are asked."""
        from tunelab.measure.probe.ability import compare_abilities
        from tunelab.measure.probe.read import read_probe

        if not self.settings.questions:
            return None
        probe = read_probe(self.settings.probe).first(self.settings.questions)

        def asked(tuned: bool) -> Scores:
            who, count = "tuned model" if tuned else "base", len(probe.questions)
            self._begin("questions", count, f"asking the {who} {count} general questions")
            return self.sides.choices(probe, tuned, self.probe_length)

        return compare_abilities(probe, asked(False), asked(True))

    def memorisation(self, pool: Pool) -> Memorisation | None:
        """What comes out of the rows it was trained on; None where nobody asked."""
        from tunelab.measure.drift import memorisation, read_canaries
        from tunelab.measure.sides import longest_row

        if not self.settings.memorisation:
            return None
        if not self.answered or not pool.train:
            self.notes.append("memorisation was not measured: the training rows can't be read, or nothing is answered")
            return None
        planted = read_canaries(self.settings.canaries) if self.settings.canaries else ()
        trained = [one for one in pool.train if self.sides.can_answer(one.asked)]
        return memorisation(self.sides, self._texts, trained, self.answered, longest_row(self.run), planted)

    def safety(self) -> Safety | None:
        """Harmful requests, declined or not; None where nobody asked."""
        from tunelab.measure.drift import safety

        return safety(self._texts) if self.settings.safety else None

    def _texts(self, asked: Sequence[Sequence[Message]], tuned: bool, what: str) -> list[str]:
        who = f"{'tuned model' if tuned else 'base'} to {what}"
        self._begin("answers", len(asked), f"reading {len(asked)} answers of the {who}")
        prompts = self.sides.prompts(asked)
        return [one.text for one in self.sides.answers(prompts, self.settings.max_new_tokens, tuned, who)]

    @cached_property
    def scored(self) -> list[ScoredMetric]:
        """Everybody's answers by each metric, the task's first; none where nothing is answered."""
        if not self.answered:
            return []
        answers = {TUNED: self.tuned.answers, BASE: self.base.answers, **self.others}
        return [ScoredMetric.of(metric, answers, self.references) for metric in self.task.metrics]

    def judged(self) -> Judged:
        """The task's figure, or the loss where nothing is answered, for a verdict."""
        from tunelab.measure.statistics import Measured
        from tunelab.measure.statistics.sums import mean

        if not self.scored:
            before, after = (side.loss_columns for side in (self.base, self.tuned))
            return Measured("loss per token", "nats", before, after, mean, higher_is_better=False)
        main = self.scored[0]
        return Measured(
            main.metric.title,
            main.metric.unit,
            main.sums[BASE],
            main.sums[TUNED],
            main.metric.value,
            main.metric.higher_is_better,
            main.others,
            self.tuned.ended.count(False) / len(self.answered),
        )

    def report(self, pool: Pool, flags: dict[str, str]) -> Report:
        """What all of it says; `flags` are those that only the caller knows of."""
        beside = {"ability": self.ability(), "memorisation": self.memorisation(pool), "safety": self.safety()}
        of_metrics = [note for one in self.scored for note in one.notes]
        return compare_sides(
            self.base,
            self.tuned,
            self.scored,
            **beside,
            selected_on=self.picked.selected_on,
            by=self.settings.by,
            data=pool.name,
            left_out=self.picked.left_out,
            too_long=len(self.picked.examples) - len(self.answered),
            notes=(*self.picked.notes, *self.task.notes, *of_metrics, *self.notes),
            max_new_tokens=self.settings.max_new_tokens,
            asked=self.settings.flags | flags,
            answers_file=answers_file(pool.name, self.answered_rows) if self.answered else None,
            seconds=time.perf_counter() - self.began,
        )

    @cached_property
    def answered_rows(self) -> list[AnsweredRow]:
        """Each row with all answers to it and their scores."""
        from tunelab.measure.answered import answered_rows

        return answered_rows(
            self.answered,
            self.references,
            self.base,
            self.tuned,
            self.others,
            self.scored,
            labelled=bool(self.task.labels),
        )
