"""Whether a run is as fast as was forecast: one that is much slower says so, once, and what the reason may be."""

from __future__ import annotations

import statistics
import time
from collections import deque

import torch

from tunelab.run.events import Noticed, StepDone
from tunelab.train.forecast import seconds_text

STEPS = 10  # that are looked at together
MUCH_SLOWER = 2.0
MATTERS_SECONDS = 10.0  # less is lost in what remains: not worth a word
OWN_SHARE = 0.7  # of the cores' time: a run that has less shares them


class Watch:
    """Looks at every step of a stage. `expected_seconds`: of a mean step; 0 where there is no forecast."""

    def __init__(self, expected_seconds: float, steps_left: int, device: torch.device) -> None:
        self.expected, self.steps_left, self.device = expected_seconds, steps_left, device
        self.noticed = not expected_seconds
        self.last: deque[float] = deque(maxlen=STEPS)
        self.clocks: deque[tuple[float, float]] = deque([_clocks()], maxlen=STEPS + 1)  # wall and CPU, between steps

    def after(self, done: StepDone) -> Noticed | None:
        """What there is to say after this step."""
        self.steps_left -= 1
        self.last.append(done.seconds)
        self.clocks.append(_clocks())
        if self.noticed or len(self.last) < STEPS:
            return None
        # on a GPU sizes of batches that come for the first time are recorded, which takes as long as several steps
        typical = statistics.median(self.last) if self.device.type == "cpu" else min(self.last)
        lost = (typical - self.expected) * (self.steps_left + STEPS)
        if typical < MUCH_SLOWER * self.expected or lost < MATTERS_SECONDS:
            return None
        self.noticed = True
        times = f"a step takes {seconds_text(typical)}, {seconds_text(self.expected)} were forecast"
        return Noticed(step=done.step, message=f"{times}: {self._reason()}")

    def _reason(self) -> str:
        slower = "this machine computes more slowly than when it was measured (heat, or saving power?)"
        if self.device.type != "cpu":
            return f"other work uses the GPU, or {slower}"
        (wall, own), (wall_now, own_now) = self.clocks[0], self.clocks[-1]
        cores, threads = (own_now - own) / max(wall_now - wall, 1e-9), torch.get_num_threads()
        if cores < OWN_SHARE * threads:
            return f"the run has {cores:.1f} of {threads} cores, so other work runs on this machine"
        return slower


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
