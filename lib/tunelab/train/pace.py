"""How long a step takes, told before the first one: by small models of the run's kind, timed on this machine.

The model is cut to one layer and to four, without its weights; the technique is attached, and both train on batches of
the run, by the path that the run will take. What three layers more cost is three layers; what one layer costs besides
is the head, the embeddings, and what surrounds a batch:

    seconds of L layers = of one layer + (L - 1) / 3 · (of four layers - of one layer)

It takes about as long as two steps of the run, and on a CPU what came out is kept on disk. There only the time in which
this thread computed counts, so that what else runs on the machine is not measured along with it. Where a part of the
model does not stand for all of it (mixtures of experts, layers of several kinds), or there is no memory for it beside
the model, nothing is timed, and the reason is told.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tunelab.data.batches import Batch, BatchOrder, collate
from tunelab.fast import choose_loss
from tunelab.losses import Objective
from tunelab.machine import containers, hardware, libraries, processes
from tunelab.machine.measured import measured
from tunelab.model import quantization
from tunelab.model.load import unwrapped
from tunelab.techniques import FullFineTuning, places
from tunelab.train.checkpoints import trained_parameters
from tunelab.train.forecast import EVAL_ROWS, Route
from tunelab.train.optimizer import fp32_copy, make_optimizer, unpaged

if TYPE_CHECKING:
    from tunelab.data import Encoded
    from tunelab.model.load import Base
    from tunelab.spec import TrainConfig
    from tunelab.techniques import Technique

LAYERS = 4  # of the larger of the two models
SAMPLES = 2  # batches that stand for those of the run: a small one and a large one
POSITIONS = 1024  # a larger batch is timed with fewer of its rows
LOOKED_AT = 1000  # steps of a run whose batches are looked at
TURNS = 4  # at most; the fastest of each counts
BUDGET_SECONDS = 0.7  # for each of the two models: no turn is begun after it
BUDGET_SHARE = 0.02  # of the run's time, if that is less
COMPUTES = ("tunelab", "transformers", "peft")  # what the time depends on beside PyTorch
WAITING = 1.1  # wall time over that of the thread: what is more is another process's


@dataclass(frozen=True)
class Pace:
    """Seconds: of an optimiser step, the mean of its stage, and of measuring the held-out loss once."""

    step: float
    evaluation: float
    slowest: float  # a step of the first epoch, in which what lies below the adapters is computed


class Untimed(Exception):
    """Why there is no forecast of time, in words."""


@dataclass(frozen=True)
class Parts:
    """What was timed, in seconds: of one layer and all that is no layer, and of one layer more."""

    rest: float  # forward and backward of a batch
    layer: float
    forward_rest: float  # forward alone, of the batches that measure the held-out loss
    forward_layer: float
    update_rest: float  # moving the weights
    update_layer: float


def pace(base: Base, technique: Technique, train: list[Encoded], held: list[Encoded], route: Route) -> Pace:
    """How fast a stage trains on this machine; of the base only the configuration and the shapes are looked at.

    Raises:
        Untimed: a part of the model does not stand for it, or there is too little memory.
    """
    rows, kind, training = _Rows(route.training, train, held), _Kind(base, technique, route), route.training
    kind.check()
    if base.device.type == "cpu":
        parts = Parts(**measured("pace", kind.key | rows.key, lambda: asdict(_measure(kind, rows)), _plausible))
    else:  # the clock of the wall, by which other work on the GPU is measured as well
        parts = _measure(kind, rows)
    layers: int = base.model.config.num_hidden_layers
    # below the lowest adapter there is only a forward, and where its results are kept, once for each row
    below = 0 if kind.everywhere else min(technique.layers)  # type: ignore[attr-defined]
    kept = route.fast and training.cache_frozen
    below_forward = below * parts.forward_layer * rows.positions / rows.held_positions
    batch = parts.rest + (layers - below - 1) * parts.layer
    forward = parts.forward_rest + (layers - (below if kept else 0) - 1) * parts.forward_layer
    update = parts.update_rest + (layers - below - 1) * parts.update_layer
    computed = min(1.0, 1 / rows.epochs) if kept else 1.0
    step, slowest = (rows.per_step * (batch + n * below_forward) * rows.scale + update for n in (computed, 1.0))
    share = min(1.0, containers.cpus() or 1.0)  # of a core: less than one is held still in between
    return Pace(step / share, forward * rows.held_scale / share, slowest / share)


class _Rows:
    """A stage's batches, and the few that are timed."""

    def __init__(self, training: TrainConfig, train: list[Encoded], held: list[Encoded]) -> None:
        lengths = [len(row.input_ids) for row in train]
        parts = training.gradient_accumulation_steps * processes.count()
        order = BatchOrder(lengths, training.batch_size, training.seed, training.length_buckets, parts)
        seen = min(training.steps, LOOKED_AT)
        batches = [batch for step in range(seen) for batch in order.batches(step)]
        self.per_step = len(batches) / seen / processes.count()  # in each process
        self.epochs = training.steps / order.per_epoch
        self.count = round(training.steps * self.per_step)
        sizes = [len(batch) * max(lengths[row] for row in batch) for batch in batches]
        by_size = sorted(range(len(batches)), key=sizes.__getitem__)
        chosen = sorted({by_size[len(by_size) * (2 * n + 1) // (2 * SAMPLES)] for n in range(SAMPLES)})
        self.samples = [_cut_rows([train[row] for row in batches[index]]) for index in chosen]
        self.positions = sum(batch.input_ids.numel() for batch in self.samples) / len(self.samples)  # of a sample
        self.scale = sum(sizes) / len(sizes) / self.positions
        evaluated = sorted(held[: training.eval_rows], key=lambda row: len(row.input_ids))
        groups = [evaluated[start : start + EVAL_ROWS] for start in range(0, len(evaluated), EVAL_ROWS)]
        self.held = _cut_rows(groups[len(groups) // 2]) if groups else self.samples[-1]
        self.held_positions = self.held.input_ids.numel()
        self.held_scale = sum(len(group) * len(group[-1].input_ids) for group in groups) / self.held_positions

    @property
    def key(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for batch in (*self.samples, self.held):
            digest.update(batch.input_ids.numpy().tobytes() + batch.scored.numpy().tobytes())
        return {"batches": digest.hexdigest()}


def _cut_rows(rows: list[Encoded]) -> Batch:
    """The rows as a batch, as many of them as POSITIONS hold."""
    longest = max(len(row.input_ids) for row in rows)
    return collate(rows[-max(1, POSITIONS // longest) :], 0)


@dataclass(frozen=True)
class _Kind:
    """What the small models have in common with the one that will be trained."""

    base: Base
    technique: Technique
    route: Route

    @property
    def everywhere(self) -> bool:
        """Whether every layer is adapted."""
        return getattr(self.technique, "layers", "all") == "all"

    def check(self) -> None:
        """Refuse a model whose layers can't be timed by a few of them.

        Raises:
            Untimed: with the reason.
        """
        model = self.base.model
        if any(places.of_experts(name) for name, _parameter in model.named_parameters()):
            raise Untimed("in a mixture of experts it depends on which of them the tokens take")
        shapes: dict[int, list[tuple[str, torch.Size]]] = {}
        for name, parameter in model.named_parameters():
            if (block := places.block_of(name)) is not None:
                shapes.setdefault(block, []).append((name.replace(f".{block}.", ".", 1), parameter.shape))
        if any(one != shapes[0] for one in shapes.values()):
            raise Untimed("the layers of this model are of several kinds")

    def bytes(self, count: int) -> int:
        """Memory that a model of so many layers takes, before it is quantised."""
        inside, outside = 0, 0
        for name, parameter in self.base.model.named_parameters():
            size = quantization.numbers_of(parameter)
            inside, outside = (inside, outside + size) if places.block_of(name) is None else (inside + size, outside)
        numbers = outside + inside * count // self.base.model.config.num_hidden_layers
        item = self.base.dtype.itemsize
        # trained: a gradient, a copy in fp32 with a gradient of its own, and two moments
        return numbers * (2 * item + 16 if isinstance(self.technique, FullFineTuning) else item)

    @property
    def key(self) -> dict[str, Any]:
        device = self.base.device
        config = json.loads(self.base.model.config.to_json_string())
        config.pop("quantization_config", None)  # only a loaded model has it
        settings = {"steps", "seed", "eval_every", "checkpoint_every", "learning_rate", "schedule", "warmup_steps"}
        technique = self.technique.model_dump(mode="json")
        return {
            "model": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
            "technique": technique if self.everywhere else technique | {"layers": "some"},
            "training": self.route.training.model_dump(mode="json", exclude=settings),
            "route": [self.route.fast, self.route.attention, self.route.packed],
            "quantization": self.base.spec.quantization,
            "dtype": self.base.dtype_name,
            "device": device.type,
            "versions": {name: version(name) for name in COMPUTES},
            "threads": hardware.threads(),
        }

    def model(self, count: int) -> _Small:
        """A model of so many layers, all of them adapted, ready to train."""
        technique = self.technique
        if not self.everywhere:
            technique = technique.model_copy(update={"layers": tuple(range(count))})
        return _Small(replace(self.base, model=self._bare(count)), technique, self.route.training)

    def _bare(self, count: int) -> Any:
        from transformers import AutoModelForCausalLM

        config = copy.deepcopy(self.base.model.config)
        for name, value in list(vars(config).items()):
            if isinstance(value, list) and len(value) == config.num_hidden_layers:  # of what kind each layer is
                setattr(config, name, value[:count])
        config.num_hidden_layers = count
        vars(config).pop("quantization_config", None)
        attention = self.route.attention
        with libraries.building(), torch.device(self.base.device), _Constant():
            model = AutoModelForCausalLM.from_config(
                config, dtype=self.base.dtype, attn_implementation=attention, trust_remote_code=False
            )
        model.requires_grad_(False).eval()
        if self.route.packed:
            quantization.quantize_linears(model, self.base.spec, self.base.dtype)
        return model


class _Constant(TorchFunctionMode):
    """Inside, this thread draws no random weights: billions of them take longer than what is timed."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (Tensor.normal_, Tensor.uniform_):
            return args[0].fill_(0.01)
        return function(*args, **(kwargs or {}))


class _Small:
    """A small model with its technique, as `Trainer` trains it."""

    def __init__(self, base: Base, technique: Technique, training: TrainConfig) -> None:
        self.device, self.training = base.device, training
        self.model: Any = technique.outline(base).train()
        if training.gradient_checkpointing is True:
            unwrapped(self.model).gradient_checkpointing_enable({"use_reentrant": False})
        self.loss = choose_loss(self.model, technique, training)
        model = self.model
        self.objective = Objective(self.loss, training, lambda: technique.off(model))
        self.weights = trained_parameters(self.model)
        self.copies = {name: fp32_copy(weight) for name, weight in self.weights.items()}
        # pages are never given back, and what moves to the machine's memory depends on the whole
        settings = training.model_copy(update={"optimizer": unpaged(training.optimizer)})
        self.optimizer = make_optimizer(self.copies, settings, 1e-6)

    def batch(self, batch: Batch) -> None:
        for weight in self.weights.values():
            weight.grad = None
        self.objective(batch)[0].backward()

    def update(self) -> None:
        for name, copied in self.copies.items():
            gradient = self.weights[name].grad
            copied.grad = None if gradient is None else gradient.float()
        torch.nn.utils.clip_grad_norm_(self.copies.values(), self.training.max_grad_norm)
        self.optimizer.step()
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.copies[name])

    @torch.no_grad()
    def forward(self, batch: Batch) -> None:
        self.model.eval()
        self.loss(batch)
        self.model.train()


def _measure(kind: _Kind, rows: _Rows) -> Parts:
    layers: int = kind.base.model.config.num_hidden_layers
    counts = (1, LAYERS) if layers > LAYERS else (layers,)
    device = kind.base.device
    if kind.bytes(counts[-1]) > hardware.available_memory_bytes(device) / 2:
        raise Untimed("there is too little free memory to time a part of the model beside it")
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _threads(device):
        one, *larger = (_timed_and_gone(kind, count, rows, layers) for count in counts)
    several = larger[0] if larger else one
    more = [max(0.0, b - a) / (LAYERS - 1) for a, b in zip(one, several, strict=True)]
    return Parts(one[0], more[0], one[1], more[1], one[2], more[2])


def _timed_and_gone(kind: _Kind, count: int, rows: _Rows, layers: int) -> tuple[float, float, float]:
    seconds = _timed(kind.model(count), rows, layers)
    gc.collect()  # modules with adapters form cycles, and the next model needs the memory
    hardware.release_free_memory()
    return seconds


def _timed(small: _Small, rows: _Rows, layers: int) -> tuple[float, float, float]:
    """Seconds of forward and backward of a sample, of a forward of held-out rows, and of an update."""
    samples = [batch.to(small.device) for batch in rows.samples]
    held = rows.held.to(small.device)
    small.batch(samples[0])  # what is done once is done then
    works: list[Callable[[], None]] = [lambda b=b: small.batch(b) for b in samples]  # type: ignore[misc]
    works += [lambda: small.forward(held), small.update]
    best = [_seconds(work, small.device) for work in works]
    spent, budget = sum(best), min(BUDGET_SECONDS, BUDGET_SHARE * rows.count * layers * best[0])
    for _ in range(TURNS - 1):
        if spent > budget:
            break
        again = [_seconds(work, small.device) for work in works]
        best, spent = [min(pair) for pair in zip(best, again, strict=True)], spent + sum(again)
    return sum(best[:-2]) / len(samples), best[-2], best[-1]


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    started, own = time.perf_counter(), time.thread_time()
    work()
    if device.type == "cpu" and sys.platform != "win32":  # where the clock of a thread moves 64 times a second
        return min(time.perf_counter() - started, WAITING * (time.thread_time() - own))
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - started


@contextmanager
def _threads(device: torch.device) -> Iterator[None]:
    """Inside, PyTorch computes with as many threads as a run has."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(hardware.threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _plausible(kept: Any) -> bool:
    names = Parts.__annotations__.keys()
    return (
        isinstance(kept, dict)
        and kept.keys() == names
        and all(isinstance(value, float) and 0 <= value < math.inf for value in kept.values())
    )
