"""What a run is told to take before it starts: bytes by what they are for, and seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunelab.machine.mapped import most_mapped

if TYPE_CHECKING:
    import torch

    from tunelab.spec import TrainConfig

LIBRARIES = 500_000_000  # what PyTorch, transformers and PEFT take in a worker, before any model
SURROUNDINGS = 170_000_000  # tokenizer, rows, the rest of the libraries, and holes between tensors
EVAL_ROWS = 16  # rows of a batch when the held-out loss is measured
GPU_SURROUNDINGS = 100_000_000  # workspaces of the matrix products, and holes between tensors


class Unforeseen(Exception):
    """Why there is no forecast for a model, in words."""


@dataclass(frozen=True)
class Route:
    """By which way a stage is computed, 'auto' settled."""

    training: TrainConfig
    fast: bool
    attention: str  # of the plain path
    packed: bool  # the base's weights are kept quantised


@dataclass(frozen=True)
class Forecast:
    """Bytes of the peak, by what they are for."""

    weights: int  # the frozen base
    trained: int  # parameters that are trained, AdamW's moments, the best so far where they lie in the same memory
    gradients: int  # while the backward runs
    kept: int  # what the forward keeps for the backward
    working: int  # logits of a chunk, one layer's intermediate results
    apart: int  # the most at other moments: gradients in fp32 beside those in half precision, an evaluation's logits
    loading: int  # the most while the model is loaded and quantised, without the file it is read from
    mapped: int = 0  # of the file that the model is read from
    paged: int = 0  # moments that move to the machine's memory where a card is full; not part of `total`
    checkpoint: int = 0  # on the disk
    otherwise: int = 0  # weights, were a quantised base kept packed where it is kept unpacked, or the other way round
    checkpointing: bool = False
    libraries: int = LIBRARIES
    device: torch.device | None = None  # None: the CPU
    routes: tuple[Route, ...] = ()  # of each stage
    checkpoints: tuple[int, ...] = ()  # bytes of one, of each stage
    step_seconds: tuple[float, ...] = ()  # a mean step of each stage; empty where nothing could be timed
    slowest_seconds: tuple[float, ...] = ()  # one of its first epoch, when frozen layers are computed as well
    seconds_per_step: float = 0.0  # over all stages
    seconds_total: float = 0.0  # with start-up, evaluations and checkpoints
    untimed: str = ""  # what is told where there is no forecast of time

    @property
    def surroundings(self) -> int:
        """What stands beside the tensors: on a GPU with memory of its own the libraries are elsewhere."""
        own = self.device is not None and self.device.type == "cuda"
        return GPU_SURROUNDINGS if own else self.libraries + SURROUNDINGS

    @property
    def total(self) -> int:
        """The most at a time: the whole process, or on a GPU what lies in its memory."""
        backward = self.gradients + self.kept + self.working
        training = self.weights + self.trained + max(backward, self.apart)
        return self.surroundings + max(training, self.loading + most_mapped(self.mapped))

    def note(self, free: int) -> str:
        """What to tell about it, beside the bytes that are free on its device."""
        parts = {
            "weights": self.weights,
            "what is trained": self.trained + self.gradients,
            "activations": self.kept + self.working,
            "libraries": self.surroundings,
        }
        parts_text = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
        if self.otherwise:
            here, there = ("unpacked", "packed") if self.otherwise < self.weights else ("packed", "unpacked")
            parts_text += f"; the weights are kept {here}, {there} they would be {self.otherwise / 1e9:.2f}"
        if self.paged:
            parts_text += f"; {self.paged / 1e9:.2f} of paged moments besides, on the card as far as it has room"
        if self.checkpointing:
            parts_text += "; activations are computed again in the backward (gradient checkpointing)"
        short = "" if self.total <= free else f", and {free / 1e9:.1f} GB are free: lower batch_size or max_length"
        where = "" if self.device is None or self.device.type == "cpu" else f" on {self.device}"
        time = self.untimed or self.time_text
        return f"memory: about {self.total / 1e9:.2f} GB{where} at most ({parts_text}){short}. Time: {time}"

    @property
    def time_text(self) -> str:
        """'about 2.1 s a step, 4 minutes in all'."""
        answers = any(route.training.metric or route.training.samples for route in self.routes)
        more = ", and the time to write the answers that are measured or shown" if answers else ""
        return f"about {seconds_text(self.seconds_per_step)} a step, {seconds_text(self.seconds_total)} in all{more}"


def seconds_text(seconds: float) -> str:
    """Two digits of it, in the unit that people would choose."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s" if seconds >= 0.1 else f"{seconds * 1000:.2g} ms"
