"""On a CUDA GPU: the loss of a batch and its gradients recorded once, and replayed for every batch of the same sizes.

A small batch is computed on a GPU in less time than it takes to ask for it: a step of a model of a billion weights is
2,500 kernels, 12 ms of computing, and 100 ms and more of calls. A recorded one (a CUDA graph) is one call. It reads its
input where the recorded batch lay, so a batch is copied there, and it writes gradients where the recorded ones were
written; whoever asks is given copies, so that nothing depends on when they are used. To record a batch takes as long
as to compute it without.

What is recorded holds addresses: of the weights, of what is trained, of the adapters' matrices. Where one of them has
moved since, or is trained no more, the recordings are dropped. Batches are brought to few sizes (`layout.rounded`): 21
in the 125 steps of an epoch of 1,000 short rows. All recordings share one pool of memory, what one batch takes.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from tunelab.fast.layout import Layout
from tunelab.machine import hardware
from tunelab.model import quantization

Recorder = Callable[[Callable[[], None]], Callable[[], None]]  # work -> what does it
MOST = 64  # recordings kept, the latest used
WORKSPACES = 130_000_000  # bytes of cuBLAS for the stream that records; on an H200
SMALL = 0.125  # what is trained over all weights, at most: its gradients are held once more
FP16_SCALE = 256.0  # of the loss in fp16, until it is known how whoever asks scales it


class Loss(Protocol):
    """What is recorded: a `FastLoss`."""

    llama: Any

    def computed(self, asked: Asked, counted: Tensor | None = None, *, rotations: Any = None) -> Tensor:
        """The loss of what is asked, with its graph."""


@dataclass(frozen=True)
class Asked:
    """What a loss has to compute of a batch."""

    ids: Tensor  # (B, T), padded on the right
    layout: Layout
    places: Tensor  # (M,), flat rows that predict a scored token; those behind the N targets stand for nothing
    targets: Tensor  # (N,)

    @property
    def sizes(self) -> tuple[Any, ...]:
        return self.layout, tuple(self.ids.shape), len(self.places)

    def counted(self) -> tuple[Asked, Tensor]:
        """The same with a target for every place, and which of them count: ones and zeros (M,) in fp32."""
        missing = len(self.places) - len(self.targets)
        counted = torch.ones(len(self.targets), device=self.targets.device, dtype=torch.float32)
        return replace(self, targets=functional.pad(self.targets, (0, missing))), functional.pad(counted, (0, missing))


def rounds(device: torch.device) -> bool:
    """Whether batches are brought to few sizes on this device."""
    return device.type == "cuda"


def can_replay(model: Any, device: torch.device) -> bool:
    """Whether a loss of this model can be recorded: on a CUDA GPU, where what is trained is small."""
    if device.type != "cuda":
        return False
    parameters = list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return 0 < trained <= SMALL * sum(quantization.numbers_of(p) for p in parameters)


def held_bytes(model: Any) -> int:
    """What the recordings of a loss of this model hold, beside the memory of one batch."""
    return WORKSPACES + sum(p.numel() * p.dtype.itemsize for p in model.parameters() if p.requires_grad)


class Replays:
    """The recordings of one `FastLoss`, which is not held here: what holds each other stays after both are let go."""

    def __init__(self, model: Any) -> None:
        self.parameters = list(model.parameters())
        self.is_warm = False  # what is made at the first use is made
        self.made: OrderedDict[Any, _Recording] = OrderedDict()
        self.addresses: list[tuple[int, bool]] = []
        self.shared: _Shared | None = None

    def __call__(self, loss: Loss, asked: Asked) -> Tensor:
        """The loss of what is asked, with its graph."""
        addresses = [(p.data_ptr(), p.requires_grad) for p in self.parameters]
        if addresses != self.addresses or self.shared is None:
            self.is_warm, self.made, self.addresses = False, OrderedDict(), addresses
            self.shared = _Shared([p for p in self.parameters if p.requires_grad], loss.llama.embedding)
        recording = self.made.get(asked.sizes)
        if recording is not None:
            self.made.move_to_end(asked.sizes)
            recording.give(asked)
        elif self.is_warm and self._can_record(loss, asked):
            recording = self.made[asked.sizes] = _Recording(loss, asked, self.shared, self.shared.recorder)
            if len(self.made) > MOST:
                self.made.popitem(last=False)
        else:  # in the same way, so that nothing depends on what was recorded before, to the last bit
            recording = _Recording(loss, asked, self.shared, _at_once)
        self.is_warm = True
        return _Replayed.apply(recording, *self.shared.trained)

    def _can_record(self, loss: Loss, asked: Asked) -> bool:
        assert self.shared is not None
        device = asked.ids.device
        kept = loss.llama.kept_bytes(asked.layout, len(asked.places), device)
        return hardware.affords(kept, device) and not _are_awaited(self.shared.trained)


class _Shared:
    """What all recordings of a loss write: gradients, one after the other in one tensor for each precision.

    In fp16 they are those of the loss times a scale, for what is small in between would be lost: as whoever asks
    scaled it the last time (`Trainer`).
    """

    def __init__(self, trained: list[Any], like: Tensor) -> None:
        self.trained, self.recorder = trained, recorder_of(like.device)
        self.half = like.dtype == torch.float16
        self.scale = like.new_full((), FP16_SCALE if self.half else 1.0, dtype=torch.float32, requires_grad=False)
        counts = {p.dtype: sum(q.numel() for q in trained if q.dtype == p.dtype) for p in trained}
        self.flat = {dtype: torch.zeros(count, dtype=dtype, device=like.device) for dtype, count in counts.items()}
        self.views = self.of(self.flat)

    def of(self, flat: dict[torch.dtype, Tensor]) -> list[Tensor]:
        """Each gradient in tensors like `flat`, in the order of what is trained: views."""
        parts = {
            dtype: iter(whole.split([p.numel() for p in self.trained if p.dtype == dtype]))
            for dtype, whole in flat.items()
        }
        return [next(parts[p.dtype]).view(p.shape) for p in self.trained]


class _Recording:
    """The loss and gradients of batches of the same sizes."""

    def __init__(self, loss: Loss, asked: Asked, shared: _Shared, recorder: Recorder) -> None:
        self.shared = shared
        every, counted = asked.counted()
        self.asked = Asked(asked.ids.clone(), asked.layout, asked.places.clone(), every.targets.clone())
        self.counted = counted.clone()
        self.rotations = loss.llama.rotations_of(asked.layout)  # read at every replay, as all that is made before
        self.total = asked.ids.new_zeros((), dtype=torch.float32)
        self.present: list[bool] = []

        def work() -> None:
            total = loss.computed(self.asked, self.counted, rotations=self.rotations)
            found = torch.autograd.grad(total * shared.scale, shared.trained, allow_unused=True)
            self.present = [one is not None for one in found]
            views = [view for view, one in zip(shared.views, found, strict=True) if one is not None]
            torch._foreach_copy_(views, [one for one in found if one is not None])
            self.total.copy_(total.detach())

        self.replay = recorder(work)

    def give(self, asked: Asked) -> None:
        """Put a batch where the recorded one lay."""
        every, counted = asked.counted()
        self.asked.ids.copy_(every.ids)
        self.asked.places.copy_(every.places)
        self.asked.targets.copy_(every.targets)
        self.counted.copy_(counted)


class _Replayed(Function):
    """The loss of the batch that a recording was given; apply to (recording, *what is trained)."""

    @staticmethod
    def forward(ctx: Any, recording: _Recording, *trained: Tensor) -> Tensor:
        recording.replay()
        shared = recording.shared
        ctx.recording, ctx.scale = recording, shared.scale.clone()
        ctx.flat = {dtype: whole.clone() for dtype, whole in shared.flat.items()}
        return recording.total.clone()

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> Any:
        shared, factor = ctx.recording.shared, d_total / ctx.scale
        if shared.half:
            shared.scale.copy_(torch.where(d_total > 0, d_total, shared.scale))
        # not in place: a graph may be kept, and asked again
        flat = {dtype: (whole.float() * factor).to(dtype) for dtype, whole in ctx.flat.items()}
        found = zip(shared.of(flat), ctx.recording.present, strict=True)
        return None, *(gradient if there else None for gradient, there in found)


def _are_awaited(trained: list[Any]) -> bool:
    """Whether somebody holds a loss of before. What adds up the gradients of a parameter then belongs to the stream of
    that loss, which would wait for the recording: that is an error, and one that spoils what the process computes."""

    def notes() -> list[dict[str, Any]]:
        with torch.enable_grad():
            return [p.view_as(p).grad_fn.next_functions[0][0].metadata for p in trained]

    mark = object()
    for note in notes():
        note["mark"] = mark  # goes with what adds up, unless a graph keeps it
    return any(note.get("mark") is mark for note in notes())


def _at_once(work: Callable[[], None]) -> Callable[[], None]:
    """Does the work without a recording; what it is given is used once, so there is nothing left to do."""
    work()
    return lambda: None


def recorder_of(device: torch.device) -> Recorder:
    """Something that records work on a GPU without doing it and gives a function that does it, in memory that is shared
    by all it records."""
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(work: Callable[[], None]) -> Callable[[], None]:
        graph, collecting = torch.cuda.CUDAGraph(), gc.isenabled()
        torch.cuda.synchronize(device)
        gc.disable()  # an older recording that is let go meanwhile would end this one
        try:
            with torch.cuda.stream(stream):
                # other threads may use the GPU meanwhile: a page that looks at its memory
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    work()
                finally:
                    graph.capture_end()
        finally:
            if collecting:
                gc.enable()
        return graph.replay  # recording computes nothing

    return record
