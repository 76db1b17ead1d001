"""Why a run failed or got lost, in words, and what to do about it: a fix is a sentence and the configuration it means.

    diagnose(run) ──> Diagnosis(kind, words, fixes): the app offers each fix as one click

What is told as certain is certain: the run's own words, or the system's counters with the exit code. Everything else
is told as what it is, a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from tunelab.config import Changes, RunConfig, changed
from tunelab.errors import shortened
from tunelab.machine import hardware
from tunelab.run.events import Failed, Started
from tunelab.run.process import SIGKILL, Evidence, evidence
from tunelab.run.run import Run
from tunelab.spec import Stage
from tunelab.techniques import FullFineTuning

Kind = Literal["memory", "disk", "killed", "crashed", "restarted", "said", "unknown"]
SHORTEST = 64  # tokens: rows are not cut below it
RESUME = "Go on from the last checkpoint with the settings it has."


@dataclass(frozen=True)
class Fix:
    """Something to do about it."""

    title: str  # of a button: 'Retry with batch 8'
    words: str
    config: RunConfig | None = None  # of a new run; None: the same one is resumed


@dataclass(frozen=True)
class Diagnosis:
    """Why a run ended without a result."""

    kind: Kind
    words: str
    fixes: tuple[Fix, ...] = ()  # the best one first
    certain: bool = True


def diagnose(run: Run) -> Diagnosis | None:
    """Why the run failed or got lost, and what to do; None for a run that did neither."""
    progress = run.progress()
    if progress.status == "failed" and isinstance(progress.ending, Failed):
        return _of_failure(run, progress.ending, progress.started)
    return _of_silence(run, progress.started, progress.message) if progress.status == "lost" else None


def memory_fixes(config: RunConfig, started: Started | None = None) -> tuple[Fix, ...]:
    """What makes a run take less memory, what changes the least first; `started`: what it had settled on, if it began
    to train."""
    kinds: tuple[Callable[[RunConfig, Started | None], Fix | None], ...]
    kinds = (_smaller_batches, _paged_moments, _checkpointing, _shorter_rows, _packed_weights, _quantised)
    if started is None:  # it ended while the model was loaded: no batch has been computed yet
        kinds = (_packed_weights, _quantised, _smaller_batches, _checkpointing, _shorter_rows)
    return tuple(_each(kinds, config, started))


def _each(
    kinds: tuple[Callable[[RunConfig, Started | None], Fix | None], ...], config: RunConfig, started: Started | None
) -> Iterator[Fix]:
    for kind in kinds:
        try:
            fix = kind(config, started)
        except ValidationError:  # the technique does not have it
            continue
        if fix:
            yield fix


def _of_failure(run: Run, failure: Failed, started: Started | None) -> Diagnosis:
    said = failure.message
    # logs of before name no cause
    if failure.cause == "memory" or said.startswith("Not enough memory"):
        words = f"Memory ran out{_where(run, started)}{_amounts(started)}."
        return Diagnosis("memory", words, memory_fixes(run.config, started))
    if failure.cause == "disk" or said.startswith("The disk is full"):
        return Diagnosis("disk", said, (Fix("Resume", f"Free some space, then: {RESUME}"),))
    return Diagnosis("said", said, (Fix("Resume", "Put right what it says, then go on with this run."),))


def _of_silence(run: Run, started: Started | None, message: str) -> Diagnosis:
    known, resume = evidence(run.path), Fix("Resume", RESUME)
    if "the disk is full" in message:
        words = "The disk is full, so its process could not write on. What was saved before is intact."
        return Diagnosis("disk", words, (Fix("Resume", f"Free some space, then: {RESUME}"),))
    fixes = memory_fixes(run.config, started)
    if known.is_for_memory:
        words = f"{_sentence(known.words)}{_where(run, started)}{_amounts(started)}."
        return Diagnosis("memory", words, (*fixes, resume), known.is_certain)
    if known.code is not None and known.code < 0:
        return _of_signal(known, (resume, *fixes))
    if known.code:
        return Diagnosis("crashed", f"{_sentence(known.words)}.{_last_words(run)}", (resume,), certain=False)
    if known.restarted:
        return Diagnosis("restarted", "The machine was restarted while it trained.", (resume,))
    words = (
        "The worker ended without a word, and nobody saw how. If the machine was short of memory, take one of the "
        "smaller settings; if it was switched off, resume it."
    )
    return Diagnosis("unknown", words, (resume, *fixes), certain=False)


def _of_signal(known: Evidence, fixes: tuple[Fix, ...]) -> Diagnosis:
    name = known.signal_name
    if known.code == -SIGKILL:
        counted = " The system counts no process that it ended for want of memory." if known.counted else ""
        words = (
            f"Its process was killed ({name}).{counted} A person or another program can have done it; some programs do "
            "so when memory runs short."
        )
        return Diagnosis("killed", words, fixes, certain=False)
    if name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"):
        words = f"Its process was asked to end by a person, another program or the system as it shut down ({name})."
        return Diagnosis("killed", words, fixes[:1])
    words = f"Its process crashed ({name}), in a library or on the hardware; nothing of it is known here."
    return Diagnosis("crashed", words, fixes[:1], certain=False)


def _where(run: Run, started: Started | None) -> str:
    """' at batch 16 × up to 1,024 tokens', or while the model was loaded."""
    if started is None:
        return f" before the first step, while {run.config.model.repo_id} was loaded and its rows were read"
    batch = max(stage.training.batch_size for stage in run.config.stages)
    return f" at batch {batch} × up to {run.config.model.max_length:,} tokens"


def _amounts(started: Started | None) -> str:
    """' (3.1 GB were forecast, the machine has 2.0 GB)'."""
    if started is None or not started.forecast_bytes:
        return ""
    ahead = f"{started.forecast_bytes / 1e9:.1f} GB were forecast"
    if started.device.startswith("cuda"):
        return f" ({ahead})"
    return f" ({ahead}, the machine has {hardware.total_memory_bytes() / 1e9:.1f} GB in all)"


def _sentence(clause: str) -> str:
    return clause[:1].upper() + clause[1:]


def _last_words(run: Run) -> str:
    """The last line that its process printed."""
    try:
        with open(run.path / "worker.log", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4000))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f" Its last line: {shortened(last, 160)}." if last else ""


def _smaller_batches(config: RunConfig, _started: Started | None) -> Fix | None:
    largest = max(config.stages, key=lambda stage: stage.training.batch_size)
    if largest.training.batch_size == 1:
        return None
    after = config.model_copy(update={"stages": tuple(map(_in_smaller_batches, config.stages))})
    new = _in_smaller_batches(largest).training
    every = " in every stage" if len(config.stages) > 1 else ""
    return Fix(
        f"Retry with batch {new.batch_size}",
        f"Train with batch {new.batch_size} in {new.gradient_accumulation_steps} accumulation steps{every}: the same "
        "effective batch, so the same learning, a little slower.",
        after,
    )


def _in_smaller_batches(stage: Stage) -> Stage:
    """The stage with the next smaller batch that gives the same effective batch."""
    training = stage.training
    size = training.batch_size
    parts = next((n for n in range(2, size + 1) if size % n == 0), 1)
    settings = {
        "batch_size": size // parts,
        "gradient_accumulation_steps": training.gradient_accumulation_steps * parts,
    }
    return stage.model_copy(update={"training": type(training).model_validate(training.model_dump() | settings)})


def _checkpointing(config: RunConfig, started: Started | None) -> Fix | None:
    on = all(stage.training.gradient_checkpointing is True for stage in config.stages)
    if on or (started and started.gradient_checkpointing) or not config.technique.activations_can_be_recomputed:
        return None
    return Fix(
        "Retry with gradient checkpointing",
        "Compute activations again in the backward pass (gradient checkpointing): the same result, much less memory, "
        "about a third slower.",
        changed(config, Changes(training={"gradient_checkpointing": True})),
    )


def _paged_moments(config: RunConfig, started: Started | None) -> Fix | None:
    optimizers = {stage.training.optimizer for stage in config.stages} | {started.optimizer if started else ""}
    on_gpu = started is not None and started.device.startswith("cuda")
    if (
        not on_gpu
        or not isinstance(config.technique, FullFineTuning)
        or any(name.startswith("paged") for name in optimizers)
    ):
        return None
    return Fix(
        "Retry with paged moments",
        "Let AdamW's moments move to the machine's memory where the GPU has no room (optimizer paged_adamw_32bit): the "
        "same result, slower by what has to move.",
        changed(config, Changes(training={"optimizer": "paged_adamw_32bit"})),
    )


def _shorter_rows(config: RunConfig, _started: Started | None) -> Fix | None:
    shorter = config.model.max_length // 2
    if shorter < SHORTEST:
        return None
    return Fix(
        f"Retry with max_length {shorter}",
        f"Cut rows at {shorter:,} tokens (max_length): less memory, and the ends of longer rows are not learned.",
        changed(config, Changes(model={"max_length": shorter})),
    )


def _packed_weights(config: RunConfig, _started: Started | None) -> Fix | None:
    if config.model.quantization == "none" or config.model.keep_dequantized is False:
        return None
    return Fix(
        "Retry with packed weights",
        "Keep the quantised weights packed while training (keep_dequantized no): less memory, slower.",
        changed(config, Changes(model={"keep_dequantized": False})),
    )


def _quantised(config: RunConfig, _started: Started | None) -> Fix | None:
    if config.model.quantization != "none" or config.start_from:
        return None
    return Fix(
        "Retry in 4 bits",
        "Keep the frozen weights in 4 bits (quantization nf4, packed; QLoRA): about a quarter of the memory of 16 "
        "bits, slower, and answers differ slightly.",
        changed(config, Changes(model={"quantization": "nf4", "keep_dequantized": False})),
    )
