"""Atomic, verified checkpoints: what is on disk is whole, or it is not there.

A checkpoint is written into a temporary directory, flushed, given a manifest of sha256 sums, and renamed. Resuming
takes the newest one whose sums agree. Everything in it is safetensors or JSON, never a pickle.

    checkpoints/step-000040/
        parameters.safetensors   the trained parameters
        optimizer.safetensors    AdamW's moments, the random generator's state, the loss scale of fp16
        best.safetensors         the parameters of the best evaluation so far, if measured
        state.json               step, stage, best loss, patience
        manifest.json            sha256 of the files above
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunelab.machine.files import replacing
from tunelab.train.optimizer import placed

KEEP = 2
MANIFEST = "manifest.json"
SCALER = ("scale", "_growth_tracker")  # what changes in the state of a loss scale


@dataclass
class Position:
    """Where training stands; with the parameters and the optimiser, all that the next step depends on."""

    step: int = 0  # optimiser steps of the run
    stage: int = 0
    stage_step: int = 0  # optimiser steps of this stage
    best_loss: float | None = None  # held-out loss of the best step
    best_metric: float | None = None  # its metric, where that chooses
    best_step: int | None = None
    evaluations_without_gain: int = 0


@dataclass
class Checkpoint:
    position: Position
    parameters: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training moves, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copy_of(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: p.detach().cpu().clone() for name, p in parameters.items()}


def restore(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    """Copy `values` into the parameters of the same names."""
    assert parameters.keys() == values.keys(), sorted(parameters.keys() ^ values.keys())[:4]
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None
) -> dict[str, Tensor]:
    """The optimiser's state of each parameter, the random generators' and the loss scale's as named tensors (no copies
    on a CPU); whole numbers as int64."""
    tensors = {
        f"{index}.{key}": torch.as_tensor(value).detach().cpu()
        for index, parameter in enumerate(_parameters(optimizer))
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    if scaler and scaler.is_enabled():
        state = scaler.state_dict()
        tensors |= {f"scaler.{name}": torch.tensor(state[name], dtype=torch.float64) for name in SCALER}
    return tensors


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], scaler: torch.amp.GradScaler | None = None
) -> None:
    """The inverse of `optimizer_tensors`."""
    if scaler and scaler.is_enabled() and f"scaler.{SCALER[0]}" in tensors:  # older checkpoints have none
        kept = {name: tensors[f"scaler.{name}"].item() for name in SCALER}
        scaler.load_state_dict(scaler.state_dict() | kept | {"_growth_tracker": int(kept["_growth_tracker"])})
    parameters = _parameters(optimizer)
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        if index not in ("rng", "scaler"):
            parameter = parameters[int(index)]
            whole = value.ndim == 0 and value.dtype == torch.int64
            optimizer.state[parameter][key] = int(value) if whole else placed(optimizer, parameter, key, value)
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = KEEP) -> Path:
    """Write a checkpoint under `folder` and remove all but the newest `keep`.

    Raises:
        OSError: nothing half-written is left, older checkpoints are untouched.
    """
    target = folder / f"step-{checkpoint.position.step:06d}"
    with replacing(target) as temporary:
        save_file(checkpoint.parameters, temporary / "parameters.safetensors")
        save_file(checkpoint.optimizer, temporary / "optimizer.safetensors")
        if checkpoint.best:
            save_file(checkpoint.best, temporary / "best.safetensors")
        (temporary / "state.json").write_text(json.dumps(asdict(checkpoint.position)))
        sums = {file.name: _sha256(file) for file in temporary.iterdir()}
        (temporary / MANIFEST).write_text(json.dumps(sums, indent=1))
    for old in _oldest_first(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies; damaged ones are passed over."""
    for path in reversed(_oldest_first(folder)):
        if _verifies(path):
            best = path / "best.safetensors"
            return Checkpoint(
                position=_position(json.loads((path / "state.json").read_text())),
                parameters=load_file(path / "parameters.safetensors"),
                optimizer=load_file(path / "optimizer.safetensors"),
                best=load_file(best) if best.is_file() else {},
            )
    return None


def _oldest_first(folder: Path) -> list[Path]:
    """The checkpoints of a run by their step: of names, 'step-1000000' would come before 'step-999999'."""
    return sorted(
        (path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()),
        key=lambda path: int(path.name.removeprefix("step-")),
    )


def _position(state: dict[str, Any]) -> Position:
    """A position as it was written, without what this version does not know."""
    known = {field.name for field in fields(Position)}
    return Position(**{name: value for name, value in state.items() if name in known})


def _verifies(path: Path) -> bool:
    try:
        sums: dict[str, Any] = json.loads((path / MANIFEST).read_text())
        return all(_sha256(path / name) == digest for name, digest in sums.items())
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
