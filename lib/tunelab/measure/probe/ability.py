"""General ability before and after tuning: the same questions and instructions, both sides, row by row.

A fall of accuracy or a rise of the loss is forgetting. Accuracy is what benchmarks of general ability report (Luo et
al. 2023, "An Empirical Study of Catastrophic Forgetting"), and moves in steps; the loss moves first. Right and wrong
are kept for each question, for McNemar's test of paired answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from tunelab.measure.probe.choices import Scores, score_choices
from tunelab.measure.probe.read import NO_CATEGORY, Probe, instructions
from tunelab.measure.scoring import row_losses
from tunelab.run.reports import Ability, Category, Compared, percent

if TYPE_CHECKING:
    from tunelab.losses import Loss
    from tunelab.model.load import Base

INSTRUCTION_LENGTH = 2048  # tokens: every instruction fits, whatever a run's max_length


class InstructionLosses(BaseModel):
    """What one side makes of the instructions: -log p of each answer, summed, in nats, and its scored tokens."""

    model_config = ConfigDict(frozen=True)
    losses: list[float]
    tokens: list[int]
    notes: tuple[str, ...] = ()


def measure_ability(
    probe: Probe,
    loss: Loss,
    base: Base,
    off: Callable[[Any], AbstractContextManager[Any]],
    *,
    max_length: int | None = None,
    with_instructions: bool = True,
    on_progress: Callable[[str], None] = lambda message: None,
) -> Ability:
    """The loss's model, tuned, against the same model without its adapter, which it is inside `off(model)` (a
    technique's `off`). `max_length`: the longest row in tokens; None: the model's positions.

    Raises:
        UserError: a question's ending does not fit into a row.
    """

    def side(who: str) -> tuple[Scores, InstructionLosses | None]:
        def say(message: str) -> None:
            on_progress(f"general ability of the {who}: {message}")

        scores = score_choices(probe, loss, base, max_length=max_length, on_progress=say)
        return scores, instruction_losses(loss, base, max_length) if with_instructions else None

    after, losses_after = side("tuned model")
    with off(loss.model):
        before, losses_before = side("base")
    return compare_abilities(probe, before, after, losses_before, losses_after)


def compare_abilities(
    probe: Probe,
    before: Scores,
    after: Scores,
    losses_before: InstructionLosses | None = None,
    losses_after: InstructionLosses | None = None,
) -> Ability:
    """Two sides of the same probe; the loss with its 95 % BCa interval."""
    from tunelab.measure.statistics import mcnemar_p

    both = losses_before is not None and losses_after is not None
    pairs = list(zip(before.right, after.right, strict=True))
    notes = (*probe.notes, *before.notes, *after.notes, *(losses_after.notes if losses_after else ()))
    return Ability(
        probe=probe.name,
        right_before=before.right,
        right_after=after.right,
        chosen_before=[answer.chosen for answer in before.answers],
        chosen_after=[answer.chosen for answer in after.answers],
        categories=_by_category(probe, before.right, after.right),
        p=mcnemar_p(pairs.count((0, 1)), pairs.count((1, 0))),
        instruction_loss=_compared(losses_before, losses_after) if both else None,
        notes=tuple(dict.fromkeys(notes)),
    )


def instruction_losses(loss: Loss, base: Base, max_length: int | None = None) -> InstructionLosses:
    """What the loss's model, as it is now, makes of the instructions."""
    from tunelab.data.encode import encode_all

    rows, notes = encode_all(instructions(), base.tokenizer, min(max_length or INSTRUCTION_LENGTH, INSTRUCTION_LENGTH))
    losses = [value.loss for value in row_losses(loss, rows, base)]
    said = tuple(f"instructions: {note}" for note in notes)
    return InstructionLosses(losses=losses, tokens=[sum(row.scored[1:]) for row in rows], notes=said)


def _compared(before: InstructionLosses | None, after: InstructionLosses | None) -> Compared:
    """Loss per scored token: sums over sums, so that long answers count by their length."""
    from tunelab.measure.statistics import compared_rates

    assert before is not None
    assert after is not None
    assert before.tokens == after.tokens, "both sides have to read the same rows"
    return compared_rates(before.losses, after.losses, after.tokens, higher_is_better=False)


def _by_category(probe: Probe, before: Sequence[int], after: Sequence[int]) -> dict[str, Category]:
    places: dict[str, list[int]] = {}
    for place, question in enumerate(probe.questions):
        places.setdefault(question.category, []).append(place)
    if set(places) == {NO_CATEGORY}:
        return {}
    return {
        name or "no category": Category(
            questions=len(of), before=percent([before[i] for i in of]), after=percent([after[i] for i in of])
        )
        for name, of in places.items()
    }
