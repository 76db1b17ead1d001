"""How much memory a run will take, told by shapes before anything is loaded.

    forecast(config) ──> Forecast: weights, what is trained, what the forward keeps for the backward, the logits

What autograd keeps is counted, not guessed: the technique is attached to the model on PyTorch's meta device, where
tensors have shapes and no contents, and one forward in the shape of the largest batch says what it saves (the plain
path), or the fast path says it by its formula. `python -m benchmarks.memory` compares forecast and measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunelab.errors import UserError
from tunelab.machine import hardware

if TYPE_CHECKING:
    import torch

    from tunelab.config import RunConfig
    from tunelab.data import Encoded
    from tunelab.data.batches import Batch
    from tunelab.model.load import Base
    from tunelab.spec import TrainConfig
    from tunelab.techniques import Technique

LIBRARIES = 500_000_000  # what PyTorch, transformers and PEFT take in a worker, before any model
SURROUNDINGS = 170_000_000  # tokenizer, rows, the rest of the libraries, and holes between tensors
NF4_BYTES = 0.516  # per weight: 4 bits, and scales that are quantised themselves
EVAL_ROWS = 16  # rows of a batch when the held-out loss is measured


@dataclass(frozen=True)
class Forecast:
    """Bytes of the peak, by what they are for."""

    weights: int  # the frozen base
    trained: int  # parameters that are trained, AdamW's moments, the best ones so far
    gradients: int  # while the backward runs
    kept: int  # what the forward keeps for the backward
    working: int  # logits of a chunk, one layer's intermediate results
    apart: int  # the most at other moments: gradients in fp32 beside those in half precision, an evaluation's logits
    loading: int  # the most while the model is loaded and quantised
    otherwise: int = 0  # weights, were a quantised base kept packed where it is kept unpacked, or the other way round
    checkpointing: bool = False
    libraries: int = LIBRARIES

    @property
    def total(self) -> int:
        """The most at a time, the whole process."""
        backward = self.gradients + self.kept + self.working
        training = self.weights + self.trained + max(backward, self.apart)
        return self.libraries + SURROUNDINGS + max(training, self.loading)

    def note(self, free: int) -> str:
        """What to tell about it, beside the bytes that are free."""
        parts = {
            "weights": self.weights,
            "what is trained": self.trained + self.gradients,
            "activations": self.kept + self.working,
            "libraries": self.libraries + SURROUNDINGS,
        }
        told = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
        if self.otherwise:
            here, there = ("unpacked", "packed") if self.otherwise < self.weights else ("packed", "unpacked")
            told += f"; the weights are kept {here}, {there} they would be {self.otherwise / 1e9:.2f}"
        if self.checkpointing:
            told += "; activations are computed again in the backward (gradient checkpointing)"
        short = "" if self.total <= free else f", and {free / 1e9:.1f} GB are free: lower batch_size or max_length"
        return f"memory: about {self.total / 1e9:.2f} GB at most ({told}){short}"


def forecast(
    config: RunConfig,
    base: Base,
    stages: Sequence[tuple[list[Encoded], list[Encoded]]],
    *,
    checkpointing: bool | None = None,
    libraries: int = LIBRARIES,
) -> Forecast:
    """What training `config` on `base` takes, for each stage's encoded training and held-out rows; `checkpointing`
    overrides the stages' own. Of the base's weights only the shapes are looked at, in a model of its own.

    Raises:
        UserError: the model can't be found, or the technique does not fit it.
    """
    import torch

    from tunelab.model.load import empty_model, find

    base = replace(base, model=empty_model(find(config.model), base.dtype))
    with torch.device("meta"):
        weights = _weights(config, base)
        model = config.technique.outline(base)
    every = []
    for stage, (train, held) in zip(config.stages, stages, strict=True):
        settled = stage.training.gradient_checkpointing is True if checkpointing is None else checkpointing
        parts = _training(base, model, config.technique, stage.training, train, held, settled)
        every.append(Forecast(**weights, **parts, checkpointing=settled, libraries=libraries))
    return max(every, key=lambda one: one.total)


def read_and_forecast(config: RunConfig) -> Forecast:
    """The forecast of a configuration alone: its rows are read and encoded, its weights are not loaded.

    Raises:
        UserError: model or data can't be read, or do not fit.
    """
    from tunelab.data import read_data, training_rows
    from tunelab.model.load import Base, choose_device, choose_dtype, empty_model, find, load_tokenizer
    from tunelab.model.positions import row_limit

    spec, tokenizer = config.model, load_tokenizer(config.model)
    longest = row_limit(find(spec), spec, config.technique.positions_taken).tokens
    stages = []
    for stage in config.stages:
        split = read_data(stage.data, stage.learn)
        train, held = (training_rows(rows, tokenizer, longest)[0] for rows in (split.train, split.heldout))
        stages.append((train, held))
    if not all(train for train, _held in stages):
        raise UserError(f"No training row has anything to learn from within max_length = {longest} tokens.")
    device = choose_device(spec)
    dtype = choose_dtype(spec, device)
    model = empty_model(find(spec), dtype)
    # nothing is trained, so nobody will ask which weights these were: hashing them takes seconds
    return forecast(config, Base(spec, model, tokenizer, dtype, device, sha256="", published_name="", note=""), stages)


def _training(
    base: Base,
    model: Any,
    technique: Technique,
    training: TrainConfig,
    train: list[Encoded],
    held: list[Encoded],
    checkpointing: bool,
) -> dict[str, int]:
    """Bytes of one stage, by what they are for."""
    from tunelab.data.batches import collate
    from tunelab.fast import choose_loss

    loss: Any = choose_loss(model, technique, training.model_copy(update={"gradient_checkpointing": checkpointing}))
    batch = largest_batch(train, training)
    kept, positions = loss.kept_bytes(batch) if loss.fast else _saved(model, batch, checkpointing)
    trained = [p for p in model.parameters() if p.requires_grad]
    count, gradients = sum(p.numel() for p in trained), sum(p.numel() * p.dtype.itemsize for p in trained)
    # a weight in half precision has an fp32 copy for the optimiser, and later a gradient in fp32 beside its own
    own = sum(p.numel() * (4 if p.dtype.itemsize == 4 else p.dtype.itemsize + 4) for p in trained)
    apart = gradients if gradients == 4 * count else gradients + 4 * count
    best = 4 * count if held and training.keep_best else 0
    if evaluated := sorted(held[: training.eval_rows], key=lambda row: -len(row.input_ids))[:EVAL_ROWS]:
        seen = collate(evaluated, 0)
        apart = max(apart, _working(base, seen.input_ids.numel(), seen.scored_tokens, loss.fast, grad=False))
    return {
        "trained": own + 8 * count + best,
        "gradients": gradients,
        "kept": kept,
        "working": _working(base, positions, batch.scored_tokens, loss.fast, grad=True),
        "apart": apart,
    }


def largest_batch(rows: list[Encoded], training: TrainConfig) -> Batch:
    """The batch with the most positions of all that training will see."""
    from tunelab.data.batches import BatchOrder, collate

    order = BatchOrder(
        [len(row.input_ids) for row in rows],
        training.batch_size,
        training.seed,
        training.length_buckets,
        training.gradient_accumulation_steps,
    )
    steps = range(min(training.steps, order.per_epoch))
    batches = (batch for step in steps for batch in order.batches(step))
    largest = max(batches, key=lambda batch: len(batch) * max(len(rows[row].input_ids) for row in batch))
    return collate([rows[row] for row in largest], 0)


def _weights(config: RunConfig, base: Base) -> dict[str, int]:
    """Bytes of the frozen weights, of what they would take otherwise, and the most that loading takes."""
    from tunelab.techniques.places import linear_layers

    spec, item = config.model, base.dtype.itemsize
    layers: Any = linear_layers(base.model).values()
    linear = sum(layer.weight.numel() for layer in layers)
    plain = sum(p.numel() for p in base.model.parameters()) * item
    if spec.quantization == "none":
        return {"weights": plain, "otherwise": 0, "loading": 2 * plain}  # the mapped file, and the copy of it
    packed = plain - linear * item + int(linear * (NF4_BYTES if spec.quantization == "nf4" else 1))
    automatic = base.device.type == "cpu" and hardware.affords(linear * item)
    unpacked = automatic if spec.keep_dequantized == "auto" else spec.keep_dequantized
    weights, otherwise = (plain, packed) if unpacked else (packed, plain)
    return {"weights": weights, "otherwise": otherwise, "loading": plain + weights + packed * unpacked}


def _working(base: Base, tokens: int, scored: int, fast: bool, grad: bool) -> int:
    """Bytes of what lives for a moment: a chunk of logits with its gradient, and the widest results of one layer."""
    from tunelab.fast.head import HEAD_CHUNK, softmax_rows
    from tunelab.losses import CHUNK

    config, item = base.model.config, base.dtype.itemsize
    if fast:  # one buffer of logits, of which a few rows at a time are in fp32
        logits = (min(scored, HEAD_CHUNK) * item + softmax_rows(base.device) * 4) * config.vocab_size
    else:
        logits = min(scored, CHUNK) * config.vocab_size * (2 * item + 4 + (8 if grad else 4))
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    layer = tokens * (6 * inner * item + 16 * config.hidden_size)
    return logits + layer


def _saved(model: Any, batch: Batch, checkpointing: bool) -> tuple[int, int]:
    """Bytes that autograd keeps of one plain forward of `batch`, counted on the meta device, and its positions."""
    import torch

    held = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    alive: list[Any] = []  # a storage that was freed may give its address to the next one

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in held:
            sizes[storage._cdata] = storage.nbytes()
            alive.append(storage)
        return tensor

    ids = torch.zeros(batch.input_ids.shape, dtype=torch.int64, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    assert out.logits.requires_grad
    whole, positions = sum(sizes.values()), batch.input_ids.numel()
    if not checkpointing:
        return whole, positions
    layers: int = model.config.num_hidden_layers
    # each layer keeps its input, and one layer at a time makes the rest again
    return layers * positions * model.config.hidden_size * model.dtype.itemsize + whole // layers, positions
