"""The training loop: one readable generator of events, on Accelerate.

    for each step:  batches → loss → backward → clip → AdamW → schedule → StepDone
    now and then:   held-out loss, and what is measured beside it → Evaluated, Sampled;  checkpoint → Saved

Accelerate supplies device placement and the processes of `torchrun`, so the same lines run on a laptop and on several
GPUs. Where the model computes in fp16, whose smallest numbers are 6e-8, the loss is scaled up before the backward and
the gradients down after it (Micikevicius et al. 2018, "Mixed Precision Training", section 3.2); a step whose gradients
overflow is computed again at half the scale, so that none is lost and the schedule counts only steps that were made.
The loss of an optimiser step is normalised by the scored tokens of its whole accumulation window, over all processes:
splitting a batch changes nothing. A test holds its losses equal to those of `transformers.Trainer` on the same batches.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from torch import nn
from transformers import get_scheduler

from tunelab.data.batches import Batch, BatchOrder, collate
from tunelab.data.encode import Encoded
from tunelab.errors import UserError
from tunelab.losses import Loss, Objective
from tunelab.machine import hardware, processes
from tunelab.model.load import unwrapped
from tunelab.run.events import Evaluated, Sampled, Saved, StageDone, StepDone, TrainingEvent
from tunelab.spec import TrainConfig
from tunelab.train.beside import Beside, Price, Seen
from tunelab.train.checkpoints import (
    Checkpoint,
    Position,
    copy_of,
    optimizer_tensors,
    restore,
    restore_optimizer,
    save_checkpoint,
    trained_parameters,
)
from tunelab.train.forecast import EVAL_ROWS
from tunelab.train.optimizer import fp32_copy, make_optimizer
from tunelab.train.watch import Watch

SMALLEST_SCALE = 2.0**-14  # of the loss in fp16: no gradient that is still infinite was made by scaling it up


@dataclass
class StageData:
    """The encoded rows of one stage."""

    train: list[Encoded]
    heldout: list[Encoded]


def _accelerator(device: torch.device) -> Accelerator:
    """accelerate keeps one state in a process, that of its first run; a later run alone may be on another device."""
    if processes.count() == 1 and is_initialized() and AcceleratorState().device.type != device.type:
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu")


class Trainer:
    """Trains one stage. `position` says where it stands; `stopped` whether it was asked to stop before its end.

    `folder` is where checkpoints go (None: none are written); `should_stop` is asked once per optimiser step;
    `expected_seconds` is the forecast of a step of the first epoch (0: there is none), and steps that take much longer
    are told of. `beside` is what each evaluation measures beside the held-out loss.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: StageData,
        config: TrainConfig,
        learning_rate: float,
        *,
        pad_id: int | None,
        accelerator: Accelerator | None = None,
        position: Position | None = None,
        folder: Path | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        adapter_off: Callable[[], Any] | None = None,
        expected_seconds: float = 0.0,
        beside: Beside | None = None,
    ) -> None:
        self.model, self.loss, self.data, self.config = model, loss, data, config
        self.pad_id, self.folder, self.should_stop, self.adapter_off = pad_id, folder, should_stop, adapter_off
        self.accelerator = accelerator or _accelerator(next(model.parameters()).device)
        self.position = position or Position()
        self.stopped, self.expected_seconds = False, expected_seconds
        self.last_heldout_loss: float | None = None
        self.beside, self.price = beside or Beside(), Price()
        self.best: dict[str, torch.Tensor] = {}
        self.objective = Objective(loss, config, adapter_off)
        self.weights = trained_parameters(model)
        self.parameters = {name: fp32_copy(weight) for name, weight in self.weights.items()}
        self.optimizer = make_optimizer(self.parameters, config, learning_rate)
        half = any(p.dtype == torch.float16 for p in model.parameters())
        self.scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=half)  # passes all through if not
        if config.gradient_checkpointing is True:
            unwrapped(model).gradient_checkpointing_enable({"use_reentrant": False})
        self.schedule = get_scheduler(
            config.schedule if config.schedule != "constant" else "constant_with_warmup",
            self.optimizer,
            num_warmup_steps=config.resolved_warmup_steps,
            num_training_steps=config.steps,
        )
        lengths = [len(row.input_ids) for row in data.train]
        parts = config.gradient_accumulation_steps * self.accelerator.num_processes
        self.order = BatchOrder(lengths, config.batch_size, config.seed, config.length_buckets, parts)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on exactly where `checkpoint` was taken."""
        self._set(checkpoint.parameters)
        restore_optimizer(self.optimizer, checkpoint.optimizer, self.scaler)
        self.position, self.best = checkpoint.position, checkpoint.best
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the schedule moves without the optimiser: that is what resuming is
            for _ in range(self.position.stage_step):
                self.schedule.step()

    def train(self) -> Iterator[TrainingEvent]:
        """Every event of the stage, in order; the model is trained while they are read."""
        config, position = self.config, self.position
        watch = Watch(self.expected_seconds, config.steps - position.stage_step, self.accelerator.device)
        while position.stage_step < config.steps:
            if self.should_stop():
                self.stopped = True
                break
            done = self._step()
            yield done
            self.price.step(done.seconds)
            if notice := watch.after(done):
                yield notice
            last = position.stage_step == config.steps
            if self.data.heldout and (position.stage_step == 1 or position.stage_step % config.eval_every == 0 or last):
                yield from self._evaluate()
                hardware.release_free_memory()  # batches of many sizes leave holes
                if self._out_of_patience():
                    break
            if position.stage_step % config.checkpoint_every == 0 and not last:
                yield from self.save()
        if self.stopped:
            yield from self.save()
            return
        restored = self._restore_best() if config.keep_best else None
        yield StageDone(step=position.step, stage=position.stage, restored_step=restored, best_by=self._best_by)

    def _step(self) -> StepDone:
        started = time.perf_counter()
        window = self._window()
        counts = torch.tensor([sum(batch.scored_tokens for batch in window), sum(batch.tokens for batch in window)])
        scored, tokens = self._over_all(counts).tolist()
        if not self.model.training:
            self.model.train()  # which looks at hundreds of modules
        learning_rate = self.schedule.get_last_lr()[0]
        total, objective = self.backward(window, scored)
        while (norm := self.update()) is None:
            total, objective = self.backward(window, scored)
        self.schedule.step()
        self.position.step += 1
        self.position.stage_step += 1
        return StepDone(
            step=self.position.step,
            stage=self.position.stage,
            loss=total / scored,
            scored_tokens=scored,
            tokens=tokens,
            seconds=time.perf_counter() - started,
            gradient_norm=norm,
            learning_rate=learning_rate,
            penalty=(objective - total) / scored,
        )

    def backward(self, window: list[Batch], scored: int) -> tuple[float, float]:
        """The sums over the window, of all processes, of the loss and of what is minimised; their gradients, over the
        scored tokens and times the loss scale, are in the weights then."""
        sums = torch.zeros(2, device=self.accelerator.device, dtype=torch.float32)
        self.scaler.scale(sums)  # makes the scale, also in a process that has no batch of this step
        for batch in window:
            minimised, nll = self.objective(batch)
            self.accelerator.backward(self.scaler.scale(minimised / scored))
            sums += torch.stack((nll, minimised.detach()))
            del minimised, nll  # the next batch may be recorded, which no graph of before may outlive
        loss, objective = self._over_all(sums).tolist()
        self._check_finite(loss / scored)
        return loss, objective

    def _over_all(self, counts: torch.Tensor) -> torch.Tensor:
        """The sum over all processes; where there is one, nothing goes to the GPU and back for it."""
        if self.accelerator.num_processes == 1:
            return counts
        return self.accelerator.reduce(counts.to(self.accelerator.device), "sum")

    def update(self) -> float | None:
        """Move the weights by their gradients; the gradients' norm before clipping. None where they were beyond what
        fp16 can hold: nothing has moved, the loss scale is halved, and they have to be computed again."""
        self._collect_gradients()
        self.scaler.unscale_(self.optimizer)
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)  # unless a gradient is infinite
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler.get_scale() < scale:
            self._check_scale()
            return None
        self._spread_weights()
        return float(norm)

    def _collect_gradients(self) -> None:
        """Hand the gradients of weights in half precision to their fp32 copies, and add up those of all processes."""
        for name, weight in self.weights.items():
            copy = self.parameters[name]
            if copy is not weight and weight.grad is not None:
                copy.grad, weight.grad = weight.grad.float(), None
        if self.accelerator.num_processes > 1:
            for parameter in self.parameters.values():
                # a process may have had no gradient for a weight that others had one for
                mine = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.accelerator.reduce(mine, "sum")

    @torch.no_grad()
    def _spread_weights(self) -> None:
        """Bring weights in half precision up to date with their fp32 copies."""
        for name, weight in self.weights.items():
            if self.parameters[name] is not weight:
                weight.copy_(self.parameters[name])

    def _set(self, values: dict[str, torch.Tensor]) -> None:
        restore(self.parameters, values)
        self._spread_weights()

    def _window(self) -> list[Batch]:
        """The batches of the next optimiser step that belong to this process; at the end of an epoch perhaps none."""
        batches = self.order.batches(self.position.stage_step)
        mine = batches[self.accelerator.process_index :: self.accelerator.num_processes]
        return [self.batch([self.data.train[row] for row in rows]) for rows in mine]

    def batch(self, rows: list[Encoded]) -> Batch:
        return collate(rows, self.pad_id).to(self.accelerator.device)

    def _check_finite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        why = "training diverged. Lower learning_rate (a tenth is a good try) or max_grad_norm"
        if self.scaler.is_enabled():
            why = (
                "numbers of this model are beyond what float16 can hold (65,504), or training diverged. Choose dtype "
                "'float32' or a GPU with bfloat16, or lower learning_rate"
            )
        raise UserError(
            f"The loss became {loss} at step {self.position.step + 1}: {why}; checkpoints before this step are kept."
        )

    def _check_scale(self) -> None:
        if self.scaler.get_scale() < SMALLEST_SCALE:
            raise UserError(
                f"The gradients of step {self.position.step + 1} are beyond what float16 can hold, however the loss is "
                "scaled. Choose dtype 'bfloat16' or 'float32', or lower learning_rate."
            )

    def _evaluate(self) -> Iterator[TrainingEvent]:
        """Measure the model as it is now and, after the first step of a stage, its base."""
        started, position, beside = time.perf_counter(), self.position, self.beside
        rows = self.data.heldout[: self.config.eval_rows]
        loss, scored = heldout_loss(self, rows)
        seen = beside.seen(True, self._loss_of)
        base, of_base = None, Seen()
        if self.adapter_off is not None and position.stage_step == 1:
            with self.adapter_off():
                base = heldout_loss(self, rows)[0]
            of_base = beside.seen(False, self._loss_of_base)
        self.last_heldout_loss = loss
        for of_it, looked in ((True, of_base), (False, seen)):
            for prompt, answer in looked.look.samples:
                yield Sampled(step=position.step, stage=position.stage, of_base=of_it, prompt=prompt, answer=answer)
        yield Evaluated(
            step=position.step,
            stage=position.stage,
            heldout_loss=loss,
            base_loss=base,
            rows=len(rows),
            scored_tokens=scored,
            seconds=time.perf_counter() - started,
            best=self._is_best(loss, seen.look.metric),
            best_by=self._best_by,
            metric=beside.metric,
            metric_value=seen.look.metric,
            base_metric=of_base.look.metric,
            metric_rows=beside.metric_rows,
            answer_seconds=seen.answer_seconds + of_base.answer_seconds,
            general_loss=seen.general_loss,
            base_general_loss=of_base.general_loss,
            general_rows=len(beside.general),
            general_seconds=seen.general_seconds + of_base.general_seconds,
        )
        if notice := self.price.of(seen, position.step):
            yield notice

    def _loss_of(self, rows: Sequence[Encoded]) -> float:
        return heldout_loss(self, rows)[0]

    def _loss_of_base(self, rows: Sequence[Encoded]) -> float:
        assert self.adapter_off is not None
        with self.adapter_off():
            return self._loss_of(rows)

    @property
    def _best_by(self) -> str:
        """What chooses the best step: the held-out loss, or the metric of this name."""
        return self.beside.metric if self.config.choose_by == "metric" and self.beside.metric else "loss"

    def _is_best(self, loss: float, metric: float | None) -> bool:
        """Whether this step is better than all before; it is remembered then, with its parameters."""
        position = self.position
        if position.best_step is not None and not self._rank(loss, metric) > self._rank(
            position.best_loss, position.best_metric
        ):
            position.evaluations_without_gain += 1
            return False
        position.best_loss, position.best_metric = loss, metric
        position.best_step, position.evaluations_without_gain = position.step, 0
        if self.config.keep_best:
            self.best = copy_of(self.parameters)
        return True

    def _rank(self, loss: float | None, metric: float | None) -> tuple[float, float]:
        """A measurement as numbers that are higher where it is better; of equal metrics the lower loss is."""
        of_loss = -math.inf if loss is None or math.isnan(loss) else -loss
        return (0.0 if self._best_by == "loss" else self.beside.rank(metric)), of_loss

    def _out_of_patience(self) -> bool:
        patience = self.config.early_stopping_patience
        return patience is not None and self.position.evaluations_without_gain >= patience

    def _restore_best(self) -> int | None:
        """Put the best parameters back; the step they are of, None if they are the last ones anyway."""
        if not self.best or self.position.best_step == self.position.step:
            return None
        self._set(self.best)
        return self.position.best_step

    def save(self) -> Iterator[Saved]:
        """Write a checkpoint of this moment."""
        if self.folder is None or not self.accelerator.is_main_process:
            return
        parameters = {name: p.detach().cpu() for name, p in self.parameters.items()}  # written before they move again
        checkpoint = Checkpoint(self.position, parameters, optimizer_tensors(self.optimizer, self.scaler), self.best)
        path = save_checkpoint(self.folder, checkpoint)
        size = sum(file.stat().st_size for file in path.iterdir())
        yield Saved(step=self.position.step, path=f"{self.folder.name}/{path.name}", bytes=size)


@torch.no_grad()
def heldout_loss(trainer: Trainer, rows: Sequence[Encoded], batch_size: int = EVAL_ROWS) -> tuple[float, int]:
    """Mean -log p over the scored tokens of `rows`, in nats, and how many tokens those are."""
    trainer.model.eval()
    ordered = sorted(rows, key=lambda row: len(row.input_ids))
    parts = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    together = trainer.accelerator
    total, scored = 0.0, 0
    for part in parts[together.process_index :: together.num_processes]:
        batch = trainer.batch(part)
        total += float(trainer.loss(batch))
        scored += batch.scored_tokens
    if together.num_processes > 1:  # the sum is the same in all of them, and so is what follows from it
        sums = torch.tensor([total, scored], dtype=torch.float64, device=together.device)
        total, scored = together.reduce(sums, "sum").tolist()
    return total / scored, int(scored)
