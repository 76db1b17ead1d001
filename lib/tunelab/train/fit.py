"""What 'auto' comes to where memory is short: the first way to train that the device has memory for.

    as asked → gradient checkpointing → paged moments (on a CUDA GPU) → both

None of them changes what is learned; each costs time. Gradient checkpointing computes activations again. Paged moments
(Dettmers et al. 2023, "QLoRA", section 3) move to the machine's memory and back where the card is full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunelab.errors import UserError
from tunelab.machine import processes
from tunelab.train.forecast import Forecast
from tunelab.train.optimizer import can_page, is_paged

if TYPE_CHECKING:
    import torch

    from tunelab.config import RunConfig
    from tunelab.run.events import Started

CHECKPOINTING = {"gradient_checkpointing": True}
PAGED = {"optimizer": "paged_adamw_32bit"}  # the same numbers as AdamW, in pages
WORTH_PAGING = 0.05  # share of the weights and what is trained of them


@dataclass(frozen=True)
class Fitted:
    """A configuration with 'auto' settled, what it takes, and why it was settled so."""

    config: RunConfig
    ahead: Forecast
    notes: tuple[str, ...] = ()


def fitted(
    config: RunConfig,
    device: torch.device,
    free: int,
    forecast_of: Callable[[RunConfig], Forecast],
    before: Started | None = None,
) -> Fitted:
    """The first way that takes no more than the bytes that are free, else the last; `before`: or the way that the run
    began with. All processes of a run take the same.

    Raises:
        UserError: what it began with is not possible on this device.
    """
    if before:
        return _as_before(config, device, forecast_of, before)
    asked = forecast_of(config)
    made = Fitted(config, asked)
    for settings in () if _agreed(asked, free) else _ways(config, device):
        other = _with(config, settings)
        ahead = forecast_of(other)
        if "optimizer" in settings and ahead.paged < WORTH_PAGING * (asked.weights + asked.trained):
            continue  # adapters have few moments
        made = Fitted(other, ahead, (_said(settings, asked, ahead),))
        if _agreed(ahead, free):
            break
    return made


def _agreed(ahead: Forecast, free: int) -> bool:
    return processes.agreed(lambda: ahead.total <= free)


def _ways(config: RunConfig, device: torch.device) -> list[dict[str, Any]]:
    """Settings of every stage that take less memory, where nobody has chosen otherwise; the best first."""
    kinds: list[dict[str, Any]] = []
    if _is_open(config, "gradient_checkpointing") and config.technique.activations_can_be_recomputed:
        kinds.append(CHECKPOINTING)
    if _is_open(config, "optimizer") and can_page(device):
        kinds.append(PAGED)
    return [*kinds, CHECKPOINTING | PAGED] if len(kinds) > 1 else kinds


def _is_open(config: RunConfig, setting: str) -> bool:
    """Whether every stage leaves a setting to be chosen."""
    return all(getattr(stage.training, setting) == "auto" for stage in config.stages)


def _as_before(
    config: RunConfig,
    device: torch.device,
    forecast_of: Callable[[RunConfig], Forecast],
    before: Started,
) -> Fitted:
    """The way that a run began with, whatever is free by now.

    Raises:
        UserError: its moments were paged, and there is no GPU here that could go on with them.
    """
    settings: dict[str, Any] = {}
    if _is_open(config, "gradient_checkpointing") and before.gradient_checkpointing:
        settings |= CHECKPOINTING
    if _is_open(config, "optimizer") and is_paged(before.optimizer):
        if not can_page(device):
            raise UserError(
                f"This run was trained with optimizer = '{before.optimizer}', and goes on on a CUDA GPU with "
                "bitsandbytes alone. Resume it where it began, or train again."
            )
        settings |= PAGED
    asked = forecast_of(config)
    if not settings:
        return Fitted(config, asked)
    other = _with(config, settings)
    ahead = forecast_of(other)
    return Fitted(other, ahead, (_said(settings, asked, ahead),))


def _with(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    stages = [
        stage.model_copy(update={"training": stage.training.model_copy(update=settings)}) for stage in config.stages
    ]
    return config.model_copy(update={"stages": tuple(stages)})


def _said(settings: dict[str, Any], asked: Forecast, ahead: Forecast) -> str:
    done = []
    if "gradient_checkpointing" in settings:
        done.append("activations are computed again (gradient_checkpointing)")
    if "optimizer" in settings:
        done.append(
            f"AdamW's moments are paged (optimizer = {settings['optimizer']}): of {ahead.paged / 1e9:.1f} GB what has "
            "no room on the card moves to the machine's memory, which takes time"
        )
    return f"memory: {asked.total / 1e9:.1f} GB would not do, so {', and '.join(done)}"
