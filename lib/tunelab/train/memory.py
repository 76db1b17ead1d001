"""How much memory and time a run will take, told before anything is loaded.

    forecast(config, …) ──> Forecast: weights, what is trained, what the forward keeps for the backward, logits
    timed(forecast, …) ──> the same, with seconds

What autograd keeps is counted, not guessed: the technique is attached to the model on PyTorch's meta device, where
tensors have shapes and no contents, and one forward in the shape of the largest batch says what it saves (the plain
path), or the fast path says it by its formula. Time is measured on a small model of the kind (`pace`), when it is
settled how the run computes. `python -m benchmarks.memory` compares forecast and measurement.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from tunelab.errors import UserError
from tunelab.machine import hardware
from tunelab.spec import INSTRUCTION_TOKENS
from tunelab.train.forecast import EVAL_ROWS, LIBRARIES, Forecast, Route, Unforeseen

if TYPE_CHECKING:
    import torch

    from tunelab.config import RunConfig
    from tunelab.data import Encoded
    from tunelab.data.batches import Batch
    from tunelab.model.load import Base
    from tunelab.spec import TrainConfig
    from tunelab.techniques import Technique

NF4_BYTES = 0.516  # per weight: 4 bits, and scales that are quantised themselves
COUNTED = "counted_sdpa"
# measured where the library was written, on two cores and a disk of a data centre
STARTUP_SECONDS = 8.0  # of the worker, with its libraries
WARM_UP_STEPS = 1  # what the first step takes longer: memory is used for the first time, kernels are made
LOADED_PER_SECOND = 400e6  # bytes of weights: read, hashed, copied, quantised
SAVED_PER_SECOND = 300e6  # bytes of a checkpoint: written, hashed, flushed


def forecast(
    config: RunConfig,
    base: Base,
    stages: Sequence[tuple[list[Encoded], list[Encoded]]],
    *,
    checkpointing: bool | None = None,
    libraries: int = LIBRARIES,
    folder: Path | None = None,
) -> Forecast:
    """The memory that training `config` on `base` takes, for each stage's encoded training and held-out rows;
    `checkpointing` overrides the stages' own. Of the base's weights only the shapes are looked at, in a model of its
    own. `folder`: where its configuration lies, for a model that is not on this machine.

    Raises:
        UserError: the model can't be found, or the technique does not fit it.
        Unforeseen: the model's forward looks into its tensors, which have no contents here.
    """
    import torch

    from tunelab.model.attention import choose_attention, needs_mask
    from tunelab.model.load import empty_model, find

    loaded = base.model.device.type != "meta"
    folder = folder or find(config.model)
    chosen = choose_attention(folder, base.device, base.dtype)
    attention = base.model.config._attn_implementation if loaded else chosen
    counted = _counted(attention, needs_mask(attention, base.device))
    outline = replace(base, model=empty_model(folder, base.dtype, counted))
    unpacked = _is_unpacked(base, loaded)
    of_base = {id(p) for p in outline.model.parameters()}
    with torch.device("meta"):
        weights = _weights(outline, unpacked)
        model = config.technique.outline(outline)
    every, routes = [], []
    for stage, (train, held) in zip(config.stages, stages, strict=True):
        settled = stage.training.gradient_checkpointing is True if checkpointing is None else checkpointing
        training = stage.training.model_copy(update={"gradient_checkpointing": settled})
        try:
            fast, parts = _training(outline, model, config.technique, training, of_base, train, held)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise Unforeseen(f"memory: no forecast for this model ({type(error).__name__})") from error
        every.append(Forecast(**weights, **parts, checkpointing=settled, libraries=libraries, device=base.device))
        routes.append(Route(training, fast, attention, packed=not unpacked))
    largest = max(every, key=lambda one: one.total)
    return replace(
        largest, routes=tuple(routes), checkpoints=tuple(one.checkpoint for one in every), untimed="nothing was timed"
    )


def timed(
    ahead: Forecast,
    config: RunConfig,
    base: Base,
    stages: Sequence[tuple[list[Encoded], list[Encoded]]],
) -> Forecast:
    """The forecast with the time that the run takes, or with the reason why that can't be told. What is not kept on
    disk is timed now, on small models of the kind: for seconds, or as long as a few steps of a large model."""
    from tunelab.train.pace import Untimed

    try:
        return replace(ahead, **_seconds(ahead, config, base, stages), untimed="")
    except Untimed as reason:
        return replace(ahead, untimed=f"no forecast ({reason})")
    except Exception as error:  # a model like no other: whether it can be trained is not asked here
        return replace(ahead, untimed=f"no forecast ({type(error).__name__}: {str(error)[:200]})")
    finally:
        gc.collect()  # what was timed holds itself in cycles
        hardware.release_free_memory()


def _seconds(
    ahead: Forecast, config: RunConfig, base: Base, stages: Sequence[tuple[list[Encoded], list[Encoded]]]
) -> dict[str, Any]:
    """Seconds of a run: of a mean step of each stage, and of all, and in all."""
    from tunelab.train.pace import pace

    total = STARTUP_SECONDS + (ahead.loading + ahead.mapped) / LOADED_PER_SECOND
    paces = []
    for route, (train, held), checkpoint in zip(ahead.routes, stages, ahead.checkpoints, strict=True):
        training, speed = route.training, pace(base, config.technique, train, held, route)
        saved = ((training.steps - 1) // training.checkpoint_every + 1) * checkpoint  # the result at the end too
        steps = training.steps + WARM_UP_STEPS
        evaluated = speed.evaluation * (1 + _general_share(training, held))
        # once more after the first step: without the adapter
        total += steps * speed.step + (training.evaluations + 1) * evaluated + saved / SAVED_PER_SECOND
        paces.append(speed)
    counts = [route.training.steps for route in ahead.routes]
    return {
        "step_seconds": tuple(one.step for one in paces),
        "slowest_seconds": tuple(one.slowest for one in paces),
        "seconds_per_step": sum(n * one.step for n, one in zip(counts, paces, strict=True)) / sum(counts),
        "seconds_total": total,
    }


def _general_share(training: TrainConfig, held: Sequence[Encoded]) -> float:
    """Tokens of the general instructions over those of the held-out rows that are measured with them."""
    tokens = sum(len(row.input_ids) for row in held[: training.eval_rows])
    return training.forgetting_rows * INSTRUCTION_TOKENS / tokens if tokens else 0.0


def read_and_forecast(config: RunConfig, *, time: bool = True) -> Forecast:
    """The forecast of a configuration alone: its rows are read and encoded, its weights are not loaded. Without `time`
    nothing is computed, and memory alone is told.

    Raises:
        UserError: model or data can't be read, or do not fit.
        Unforeseen: there is no forecast for this model.
    """
    from tunelab.data import read_data, training_rows
    from tunelab.model.load import Base, choose_device, choose_dtype, empty_model, find, load_tokenizer
    from tunelab.model.positions import row_limit

    spec, tokenizer = config.model, load_tokenizer(config.model)
    longest = row_limit(find(spec), spec, config.technique.positions_taken).tokens
    stages = []
    for stage in config.stages:
        split = read_data(stage.data, stage.learn)
        split.check()
        train, held = (training_rows(rows, tokenizer, longest)[0] for rows in (split.train, split.heldout))
        stages.append((train, held))
    if not all(train for train, _held in stages):
        raise UserError(f"No training row has anything to learn from within max_length = {longest} tokens.")
    device = choose_device(spec)
    dtype = choose_dtype(spec, device)
    model = empty_model(find(spec), dtype)
    # nothing is trained, so nobody will ask which weights these were: hashing them takes seconds
    base = Base(spec, model, tokenizer, dtype, device, sha256="", published_name="", note="")
    ahead = forecast(config, base, stages)
    return timed(ahead, config, base, stages) if time else replace(ahead, untimed="told when the run begins")


def _training(
    base: Base,
    model: Any,
    technique: Technique,
    training: TrainConfig,
    of_base: set[int],
    train: list[Encoded],
    held: list[Encoded],
) -> tuple[bool, dict[str, Any]]:
    """Whether a stage takes the fast path, and its bytes by what they are for; `of_base` are the ids of the base's own
    parameters."""
    from tunelab.data.batches import collate
    from tunelab.fast import choose_loss
    from tunelab.train.optimizer import moment_bytes

    loss: Any = choose_loss(model, technique, training)
    batch, checkpointing = largest_batch(train, training), training.gradient_checkpointing is True
    kept, positions = loss.kept_bytes(batch, base.device) if loss.fast else _saved(model, batch, checkpointing)
    on_gpu = base.device.type == "cuda"
    trained = [p for p in model.parameters() if p.requires_grad]
    count, gradients = sum(p.numel() for p in trained), sum(p.numel() * p.dtype.itemsize for p in trained)
    # a weight in half precision has an fp32 copy for the optimiser, and later a gradient in fp32 beside its own
    own = sum(p.numel() * (4 if p.dtype.itemsize == 4 else p.dtype.itemsize + 4) for p in trained)
    apart = gradients if gradients == 4 * count else gradients + 4 * count
    moments = count * moment_bytes(training.optimizer)
    paged = _paged(trained, training.optimizer) if on_gpu else 0
    best = 4 * count if held and training.keep_best else 0
    # a GPU has no mapped file beside the base's own weights where these are trained, and the best lie in the host
    elsewhere = best + sum(p.numel() * p.dtype.itemsize for p in trained if id(p) in of_base) if on_gpu else 0
    if evaluated := sorted(held[: training.eval_rows], key=lambda row: -len(row.input_ids))[:EVAL_ROWS]:
        seen = collate(evaluated, 0)
        apart = max(apart, _working(base, seen.input_ids.numel(), seen.scored_tokens, loss.fast, grad=False))
    return loss.fast, {
        "trained": own + moments + best - elsewhere - paged,
        "paged": paged,
        "checkpoint": own + moments + best,
        "gradients": gradients + (loss.replayed_bytes(base.device) if loss.fast else 0),
        "kept": kept,
        "working": _working(base, positions, batch.scored_tokens, loss.fast, grad=True),
        "apart": apart,
    }


def _paged(trained: list[Any], optimizer: str) -> int:
    """Bytes of the moments that lie in pages."""
    from tunelab.train.optimizer import PAGED_NUMBERS, is_paged, moment_bytes

    if not is_paged(optimizer):
        return 0
    return sum(p.numel() for p in trained if p.numel() >= PAGED_NUMBERS) * moment_bytes(optimizer)


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


def _is_unpacked(base: Base, loaded: bool) -> bool:
    """Whether the weights of a base are kept, or will be, as they are computed with."""
    from tunelab.model import quantization

    if base.spec.quantization == "none":
        return True
    if loaded:
        return not quantization.quantized_weights(base.model)
    return quantization.should_dequantize(base.spec, linear_weights(base), base.dtype, base.device)


def linear_weights(base: Base) -> int:
    """How many weights of a base are quantised where they are at all: those of its linear layers."""
    from tunelab.techniques.places import linear_layers

    layers: Any = linear_layers(base.model).values()
    return sum(layer.weight.numel() for layer in layers)


def _weights(base: Base, unpacked: bool) -> dict[str, Any]:
    """Bytes of the frozen weights, of what they would take otherwise, of what loading takes, and of the file."""
    spec, item = base.spec, base.dtype.itemsize
    linear = linear_weights(base)
    plain = sum(p.numel() for p in base.model.parameters()) * item
    mapped = 0 if base.device.type == "cuda" else plain  # the file lies in the machine's memory
    if spec.quantization == "none":
        return {"weights": plain, "otherwise": 0, "loading": plain, "mapped": mapped}
    packed = plain - linear * item + int(linear * (NF4_BYTES if spec.quantization == "nf4" else 1))
    weights, otherwise = (plain, packed) if unpacked else (packed, plain)
    loading = weights + packed * unpacked
    return {"weights": weights, "otherwise": otherwise, "loading": loading, "mapped": mapped}


def _working(base: Base, tokens: int, scored: int, fast: bool, grad: bool) -> int:
    """Bytes of what lives for a moment: a chunk of logits with its gradient, and the widest results of one layer."""
    from tunelab.fast.head import chunk_rows, softmax_rows
    from tunelab.losses import CHUNK

    config, item = base.model.config, base.dtype.itemsize
    if fast:  # one buffer of logits, of which a few rows at a time are in fp32
        words = config.vocab_size
        logits = (min(scored, chunk_rows(words)) * item + softmax_rows(base.device, words) * 4) * words
    else:
        logits = min(scored, CHUNK) * config.vocab_size * (2 * item + 4 + (8 if grad else 4))
    intermediate = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    layer = tokens * (6 * intermediate * item + 16 * config.hidden_size)
    return logits + layer


def _counted(attention: str, masked: bool = True) -> str:
    """The attention of an outline: the one that will run, or for PyTorch's fused one, which has no form of its own
    there, one that keeps as much: q, k, v, the mask, the result and a number for each query, no weights. `masked`:
    rows are told where they end."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask, sdpa_mask

    from tunelab.model.attention import FUSED

    if attention not in FUSED:
        return attention

    def fused(module: Any, query: Any, key: Any, value: Any, mask: Any, **given: Any) -> tuple[torch.Tensor, None]:
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, 1) if groups > 1 else part for part in (key, value))
        mask = None if mask is None else torch.zeros_like(mask, dtype=query.dtype)  # made anew in each layer
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        mixed = kernel(query, key, value, 0.0, mask is None, attn_mask=mask, scale=given.get("scaling"))[0]
        return mixed.transpose(1, 2).contiguous(), None

    def without_padding(*args: Any, **given: Any) -> Any:
        return sdpa_mask(*args, **given | {"attention_mask": None})

    AttentionInterface.register(COUNTED, fused)
    AttentionMaskInterface.register(COUNTED, eager_mask if masked else without_padding)
    return COUNTED


class _Saved:
    """A tensor that autograd keeps as long as it keeps this."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


def _saved(model: Any, batch: Batch, checkpointing: bool) -> tuple[int, int]:
    """Bytes that autograd keeps of one plain forward of `batch`, counted on the meta device, and its positions."""
    import torch

    held = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    alive: WeakSet[_Saved] = WeakSet()  # what a part of the graph saved goes with it: DoRA detaches its norms

    def pack(tensor: torch.Tensor) -> _Saved:
        saved = _Saved(tensor)
        alive.add(saved)
        return saved

    ids = torch.zeros(batch.input_ids.shape, dtype=torch.int64, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    assert out.logits.requires_grad
    storages = {storage._cdata: storage for storage in (saved.tensor.untyped_storage() for saved in alive)}
    whole = sum(storage.nbytes() for address, storage in storages.items() if address not in held)
    positions = batch.input_ids.numel()
    if not checkpointing:
        return whole, positions
    layers: int = model.config.num_hidden_layers
    # each layer keeps its input, and one layer at a time makes the rest again
    return layers * positions * model.config.hidden_size * model.dtype.itemsize + whole // layers, positions
