"""What is measured at each evaluation beside the held-out loss: answers and their metric, and the loss on general
instructions. How a model answers is handed in (`Beside.look`), so that training knows no metric and no decoder; what it
found and what it took is put together here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunelab.data.encode import Encoded
from tunelab.run.events import Noticed
from tunelab.train.forecast import seconds_text

NOTICED_SHARE = 0.1  # of the steps' time: what costs more is told
NOTICED_SECONDS = 0.5  # what an evaluation takes less is not worth a word


@dataclass(frozen=True)
class Look:
    """What a model answers: the metric of it (None: not measured), and the answers that are shown, with their
    prompts."""

    metric: float | None = None
    samples: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Beside:
    """What a stage measures beside its held-out loss; by default nothing.

    look: what the tuned model, or its base (False), answers now; it is in evaluation mode.
    metric: the name of what `look` measures on `metric_rows` rows; None: it measures nothing.
    general: encoded instructions that forgetting is seen by.
    """

    look: Callable[[bool], Look] | None = None
    metric: str | None = None
    metric_rows: int = 0
    higher_is_better: bool = True
    general: Sequence[Encoded] = ()

    def seen(self, tuned: bool, loss_of: Callable[[Sequence[Encoded]], float]) -> Seen:
        """What the model makes of it now; `loss_of` some rows is its loss per scored token, of base or tuned model."""
        began = time.perf_counter()
        look = self.look(tuned) if self.look else Look()
        answered = time.perf_counter()
        loss = loss_of(self.general) if self.general else None
        spent = time.perf_counter() - answered
        return Seen(look, answered - began if self.look else 0.0, loss, spent if self.general else 0.0)

    def rank(self, metric: float | None) -> float:
        """The metric as a number that is higher where it is better; nothing and NaN are the worst."""
        if metric is None or math.isnan(metric):
            return -math.inf
        return metric if self.higher_is_better else -metric


@dataclass(frozen=True)
class Seen:
    """What was measured of one model at one evaluation, and what it took."""

    look: Look = Look()
    answer_seconds: float = 0.0
    general_loss: float | None = None
    general_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        return self.answer_seconds + self.general_seconds


class Price:
    """Tells once when measuring takes much of a stage's time."""

    def __init__(self) -> None:
        self.steps_seconds, self.steps, self.said = 0.0, 0, False

    def step(self, seconds: float) -> None:
        """Count an optimiser step since the last evaluation."""
        self.steps_seconds, self.steps = self.steps_seconds + seconds, self.steps + 1

    def of(self, seen: Seen, step: int) -> Noticed | None:
        """What there is to say of an evaluation of the tuned model after these steps."""
        share, steps = seen.seconds / max(self.steps_seconds, 1e-9), self.steps
        self.steps_seconds, self.steps = 0.0, 0
        # a single step stands before the first evaluation of a stage
        if self.said or steps < 2 or share <= NOTICED_SHARE or seen.seconds < NOTICED_SECONDS:
            return None
        self.said = True
        parts = {"answers": seen.answer_seconds, "general instructions": seen.general_seconds}
        taken = ", ".join(f"{name} {seconds_text(seconds)}" for name, seconds in parts.items() if seconds)
        less = ["metric_rows or samples"] * bool(seen.answer_seconds) + ["forgetting_rows"] * bool(seen.general_seconds)
        return Noticed(
            step=step,
            message=f"what is measured beside the held-out loss ({taken} each time) takes {share:.0%} of the time of "
            f"the {steps} steps between two evaluations: lower {' or '.join(less)}, or raise eval_every",
        )
