"""How long and how carefully to train, for who does not want to set each setting: three choices of a `TrainConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from tunelab.spec import TrainConfig


@dataclass(frozen=True)
class Pace:
    """A choice; `words` says what it is for."""

    words: str
    training: TrainConfig


PACES: dict[str, Pace] = {
    "quick": Pace(
        "60 steps: does it learn anything from these rows? Minutes.",
        TrainConfig(steps=60, samples=2),
    ),
    "balanced": Pace(
        "250 steps; up to a tenth of what is learned is general, against forgetting; the best step is kept.",
        TrainConfig(steps=250, eval_every=25, eval_rows=64, replay_share=0.1, samples=2),
    ),
    "careful": Pace(
        "Up to 800 steps, until the held-out loss falls no more; up to a fifth of what is learned is general.",
        TrainConfig(
            steps=800,
            eval_every=40,
            eval_rows=128,
            replay_share=0.2,
            early_stopping_patience=4,
            checkpoint_every=40,
            forgetting_rows=8,
            samples=2,
        ),
    ),
}


def pace_of(training: TrainConfig) -> str | None:
    """The name of the choice that this configuration is; None: it is one of its own."""
    return next((name for name, pace in PACES.items() if pace.training == training), None)
