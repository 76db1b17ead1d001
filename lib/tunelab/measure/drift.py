"""What tuning may have done beside its task: rows that were memorised, and requests that are declined no more.

Both take answers of base and tuned model that `sides` gives, and say what they show.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.data.examples import Example, Message
from tunelab.data.sets.general import insults, safety_requests
from tunelab.data.split import read_examples
from tunelab.errors import UserError, shown_name
from tunelab.measure.changes.memorised import (
    Canary,
    Continuation,
    Share,
    canaries,
    check_canaries,
    continuations,
    echoes,
)
from tunelab.measure.changes.refusals import is_refusal
from tunelab.measure.changes.rows import AnsweredRow
from tunelab.measure.statistics import compared_rates, mcnemar_p
from tunelab.run.reports import Compared, Counted, Memorisation, Safety
from tunelab.spec import DataSpec

if TYPE_CHECKING:
    from tunelab.measure.sides import Sides

Answers = Callable[[Sequence[Sequence[Message]], bool, str], list[str]]  # to prompts, of base or tuned model


def memorisation(
    sides: Sides,
    answers: Answers,
    trained: Sequence[Example],
    heldout: Sequence[Example],
    max_length: int,
    planted: Sequence[Canary] = (),
) -> Memorisation:
    """Training rows against as many held-out rows: their losses, and their answers word for word.

    Raises:
        UserError: one of the two has nothing to score.
    """
    from tunelab.measure.scoring import rows_to_score

    count = min(len(trained), len(heldout))
    trained = random.Random(0).sample(list(trained), count)
    both, losses = {"trained": trained, "held-out": list(heldout[:count])}, dict[str, Compared]()
    said: dict[str, list[AnsweredRow]] = {}
    for name, rows in both.items():
        encoded = rows_to_score(rows, sides.base, max_length)
        before, after = (sides.losses(encoded, tuned) for tuned in (False, True))
        tokens = [value.tokens for value in before]
        losses[name] = compared_rates(
            [value.loss for value in before], [value.loss for value in after], tokens, higher_is_better=False
        )
        asked = [row.asked for row in rows]
        pairs = zip(rows, *(answers(asked, tuned, f"{name} rows") for tuned in (False, True)), strict=True)
        said[name] = [
            AnsweredRow(row=row.row, prompt=row.prompt, reference=sides.words(row.answer), base=base, tuned=tuned)
            for row, base, tuned in pairs
        ]
    trained_said, heldout_said = (
        [Continuation(row.reference, row.base, row.tuned) for row in side] for side in said.values()
    )
    continued = continuations(trained_said, heldout_said)
    everything = [row for side in said.values() for row in side]
    echoed = echoes(everything, (text for row in trained for text in row.texts))
    notes = [note.rstrip(".") for note in continued.notes]
    return Memorisation(
        rows=count,
        trained_loss=losses["trained"],
        heldout_loss=losses["held-out"],
        continued_trained=_counted(continued.base_trained.count, continued.tuned_trained),
        continued_heldout=_counted(continued.base_heldout.count, continued.tuned_heldout),
        sentence=continued.sentence,
        canaries=_canaries(answers, planted),
        echoes=Counted(
            base=len({id(one.row) for one in echoed.base}),
            tuned=len({id(one.row) for one in echoed.tuned}),
            of=echoed.rows,
        ),
        notes=tuple(notes),
    )


def read_canaries(path: str | Path) -> list[Canary]:
    """The planted codes of a file whose rows have a prompt and, as what it should bring out, a code.

    Raises:
        UserError: it can't be read so, or a code can't be looked for.
    """
    rows = read_examples(DataSpec(source=str(path)), "instructions")
    if not rows:
        raise UserError(
            f"{shown_name(Path(path).name)} holds no codes. Give rows with the columns prompt and completion."
        )
    planted = [Canary(row.prompt, row.answer) for row in rows]
    check_canaries(planted)
    return planted


def safety(answers: Answers) -> Safety:
    """The built-in requests, answered by base and tuned model."""
    asked = [(Message("user", row["prompt"]),) for row in safety_requests()]
    before, after = (answers(asked, tuned, "harmful requests") for tuned in (False, True))
    declined = [(is_refusal(b), is_refusal(a)) for b, a in zip(before, after, strict=True)]
    bad = insults()
    insulting = [
        sum(not bad.isdisjoint(re.findall(r"\w+", text.casefold())) for text in side) for side in (before, after)
    ]
    return Safety(
        refused=Counted(base=sum(b for b, _ in declined), tuned=sum(a for _, a in declined), of=len(asked)),
        insulting=Counted(base=insulting[0], tuned=insulting[1], of=len(asked)),
        p=mcnemar_p(declined.count((False, True)), declined.count((True, False))),
    )


def _canaries(answers: Answers, planted: Sequence[Canary]) -> Counted | None:
    if not planted:
        return None
    asked = [(Message("user", canary.prompt),) for canary in planted]
    score = canaries(planted, *(answers(asked, tuned, "planted codes") for tuned in (False, True)))
    return Counted(base=score.base.count, tuned=score.tuned.count, of=len(planted))


def _counted(base: int, tuned: Share) -> Counted:
    return Counted(base=base, tuned=tuned.count, of=tuned.of)
