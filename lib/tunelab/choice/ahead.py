"""What training a model would take on this machine: memory counted from its shapes, minutes timed or worked out.

A model at hand is timed as a run of it would be (`train.pace`). For one that is not, the time of the timed one is
scaled by the floating-point operations of both: forward and backward of the frozen body, and of the head where tokens
are scored:

    FLOP of a batch = 4 · (weights of the body) · tokens + 4 · (weights of the head) · scored tokens

Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1, without the gradients of frozen
weights. A model that the fast path does not know takes about three times as long.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.choice.published import Published
from tunelab.config import RunConfig
from tunelab.data import Encoded
from tunelab.machine import hardware
from tunelab.model import folder as folders
from tunelab.model.load import Base, choose_device, choose_dtype, empty_model, find, load_tokenizer
from tunelab.spec import DataSpec, ModelSpec, Stage, TrainConfig
from tunelab.techniques import LoRA
from tunelab.train.forecast import Unforeseen
from tunelab.train.memory import forecast, largest_batch, linear_weights, timed

if TYPE_CHECKING:
    from tunelab.train.forecast import Forecast

CUT = (2, 4)  # layers
SIZES = ("weights", "otherwise", "loading", "mapped", "trained", "checkpoint", "gradients", "kept", "working", "apart")
PLAIN_OVER_FAST = 3.0  # how much longer the plain path takes, about: between 2 and 5 over models and machines


@dataclass(frozen=True)
class Ahead:
    """What a run of a model would take; None where there is no forecast."""

    memory_bytes: int | None
    seconds: float | None
    exact: bool  # whether the seconds were timed on a model of its kind
    note: str = ""  # why there is none
    fits: bool = True  # whether what is free now is enough


@dataclass(frozen=True)
class Timed:
    """A forecast that was timed, and the operations of a batch: what others are scaled from."""

    forecast: Forecast
    operations: float


def outline_of(spec: ModelSpec) -> Base:
    """The base of a model that is on this machine, without its weights.

    Raises:
        UserError: it can't be found, or not be loaded so.
    """
    folder = find(spec)
    folders.check_config(folders.read_config(folder), spec)
    return _outline(spec, folder, load_tokenizer(spec))


def ahead_at_hand(base: Base, train: list[Encoded], training: TrainConfig) -> tuple[Ahead, Timed | None]:
    """What a run on a base without weights would take, with what others are scaled from."""
    config = _config(base.spec, training)
    rows = [(train, list[Encoded]())]
    try:
        counted = forecast(config, base, rows)
        found = timed(counted, config, base, rows)
    except Unforeseen as reason:
        return Ahead(None, None, True, str(reason)), None
    if found.untimed:
        return Ahead(found.total, None, True, found.untimed, _fits(found)), None
    ahead = Ahead(found.total, found.seconds_total, True, "", _fits(found))
    return ahead, Timed(found, _operations(base.model, train, training))


def ahead_of(
    model: Published, spec: ModelSpec, train: list[Encoded], training: TrainConfig, known: Timed | None, tokenizer: Any
) -> Ahead:
    """What a run of a model of the table would take, which is not on this machine. Its rows are split by another
    model's tokenizer, so the figures are near and not exact."""
    rows = [replace(row, input_ids=[token % model.vocabulary for token in row.input_ids]) for row in train]
    try:
        found, operations = _counted(model, spec, rows, training, tokenizer)
    except Unforeseen as reason:
        return Ahead(None, None, False, str(reason))
    if known is None:
        return Ahead(found.total, None, False, "no model at hand could be timed", _fits(found))
    slower = operations / known.operations
    slower *= (1.0 if found.routes[0].fast else PLAIN_OVER_FAST) / (
        1.0 if known.forecast.routes[0].fast else PLAIN_OVER_FAST
    )
    steps = known.forecast.seconds_per_step * training.steps
    loading = max(1.0, (found.loading + found.mapped) / max(1, known.forecast.loading + known.forecast.mapped))
    start = (known.forecast.seconds_total - steps) * loading
    return Ahead(found.total, steps * slower + start, False, "", _fits(found))


def _counted(
    model: Published, spec: ModelSpec, rows: list[Encoded], training: TrainConfig, tokenizer: Any
) -> tuple[Forecast, float]:
    """The forecast of memory, and the operations of a batch: of the model cut to a few layers and to a few more, and
    what grows with the layers drawn out to all of them. Counting the whole model takes ten times as long.

    Raises:
        Unforeseen: there is no forecast for this model.
    """
    from tunelab.model import quantization

    with tempfile.TemporaryDirectory() as name:
        places = [Path(name, str(layers)) for layers in CUT]
        for layers, folder in zip(CUT, places, strict=True):
            model.config(layers).save_pretrained(folder)
        bases = [_outline(spec, folder, tokenizer) for folder in places]
        if spec.quantization != "none":  # which depends on the size of the whole
            weights = _drawn_out(model, *(linear_weights(base) for base in bases))
            kept = quantization.should_dequantize(spec, weights, bases[0].dtype, bases[0].device)
            spec = spec.model_copy(update={"keep_dequantized": kept})
            bases = [replace(base, spec=spec) for base in bases]
        operations = [_operations(base.model, rows, training) for base in bases]
        config, all_rows = _config(spec, training), [(rows, list[Encoded]())]
        few, more = (forecast(config, base, all_rows, folder=at) for base, at in zip(bases, places, strict=True))
    sizes: dict[str, Any] = {name: _drawn_out(model, getattr(few, name), getattr(more, name)) for name in SIZES}
    return replace(few, **sizes, checkpoints=()), _drawn_out(model, *operations)


def _drawn_out(model: Published, few: float, more: float) -> int:
    """A count of all layers of a model, from that of CUT."""
    return round(few + (more - few) * (model.layers - CUT[0]) / (CUT[1] - CUT[0]))


def _outline(spec: ModelSpec, folder: Path, tokenizer: Any) -> Base:
    """A base without its weights; nobody asks which they were, and hashing them takes long."""
    device = choose_device(spec)
    dtype = choose_dtype(spec, device)
    return Base(spec, empty_model(folder, dtype), tokenizer, dtype, device, sha256="", published_name="", note="")


def _config(spec: ModelSpec, training: TrainConfig) -> RunConfig:
    """A run of the model; which rows it has does not matter here."""
    data = DataSpec(rows=({"prompt": "a", "completion": "b"},))
    return RunConfig(model=spec, technique=LoRA(), stages=(Stage(data=data, training=training),))


def _fits(found: Forecast) -> bool:
    device = found.device
    free = hardware.available_memory_bytes() if device is None else hardware.reachable_memory_bytes(device)
    return found.total <= free


def _operations(model: Any, train: Sequence[Encoded], training: TrainConfig) -> float:
    """Floating-point operations of the largest batch."""
    batch = largest_batch(list(train), training)
    head = model.get_output_embeddings().weight.numel()
    embeddings = model.get_input_embeddings().weight
    outside = {id(embeddings): embeddings.numel(), id(model.get_output_embeddings().weight): head}
    body = sum(p.numel() for p in model.parameters()) - sum(outside.values())
    return 4.0 * body * batch.input_ids.numel() + 4.0 * head * batch.scored_tokens
