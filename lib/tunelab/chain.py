"""The whole chain, in the only file that shows all of it:

    load the model → read and encode the data → attach the technique → train each stage → save

`train_run()` does it for a run's directory and yields the events it records there; `finetune()` makes the directory
and drains the events. Both run in this process; the app uses `worker.py`, which is this in a process of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.config import RunConfig
from tunelab.errors import UserError, explain
from tunelab.machine import hardware, libraries
from tunelab.machine.files import replacing
from tunelab.run.events import Failed, Finished, Preparing, Resumed, Started, Stopped, TrainingEvent
from tunelab.run.reports import forget_report
from tunelab.run.run import Run, list_runs, training_lock
from tunelab.spec import Stage
from tunelab.techniques import Technique

if TYPE_CHECKING:
    from tunelab.train.forecast import Forecast


def finetune(
    config: RunConfig,
    *,
    root: str | Path | None = None,
    on_event: Callable[[TrainingEvent], None] | None = None,
) -> Run:
    """The run that trained `config`, finished or stopped (Ctrl-C keeps the adapter).

    Raises:
        UserError: a model, file or setting is wrong; the run says so too (`run.progress()`).
    """
    run = Run.create(config, root)
    for event in train_run(run):
        if on_event:
            on_event(event)
    return run


def train_run(run: Run, should_stop: Callable[[], bool] = lambda: False) -> Iterator[TrainingEvent]:
    """Every event of training `run`, from its last checkpoint if it has one, as they are recorded in its directory.

    Waits for its turn when another run trains. Stops at the next step when asked by `should_stop`, by
    `run.request_stop()`, or by Ctrl-C; a generator closed early keeps a checkpoint and the adapter as well.
    """

    def record(event: TrainingEvent) -> TrainingEvent:
        run.append(event)
        return event

    libraries.prepare()
    with ExitStack() as stack:
        stack.enter_context(run.beating())
        lock = training_lock(run.root)
        stack.callback(lock.release)
        waiting = ""
        interrupted = stack.enter_context(interruptible())
        while not _acquired(lock):
            if run.stop_requested or interrupted() or should_stop():
                run.clear_requests()
                yield record(Stopped(step=run.progress().step, reason="stopped while it waited", adapter=None))
                return
            message = _waiting_for(run)
            if message != waiting:
                waiting = message
                yield record(Preparing(message=message))
        run.take_from_queue()
        forget_report(run.path)  # it is of the result before

        def stop() -> bool:
            return run.stop_requested or interrupted() or should_stop()

        try:
            # closed before its end is recorded, so that what it saves then is in the record
            with contextlib.closing(_Chain(run, stop).events()) as events:
                for event in events:
                    yield record(event)
        except GeneratorExit:
            record(Stopped(step=run.progress().step, reason="its reader ended", adapter=_adapter_of(run)))
            raise
        except Exception as error:
            known = explain(error)
            message = known or f"{type(error).__name__}: {error}. This is a bug; the run's log has the details."
            event = Failed(message=message, detail="" if isinstance(error, UserError) else traceback.format_exc())
            with contextlib.suppress(OSError):  # a full disk can't take the news either
                record(event)
            if known and not isinstance(error, UserError):
                raise UserError(known) from error
            raise
        finally:
            run.clear_requests()


class _Chain:
    """One pass over the chain. The methods stand in the order in which they happen."""

    def __init__(self, run: Run, should_stop: Callable[[], bool]) -> None:
        self.run, self.should_stop = run, should_stop
        self.config = run.config
        self.stages = list(self.config.stages)  # with what 'auto' came to
        self.libraries_bytes = 0
        self.base: Any = None
        self.model: Any = None

    def events(self) -> Generator[TrainingEvent, None, None]:
        import torch

        from tunelab.fast import choose_loss
        from tunelab.model.load import load_tokenizer
        from tunelab.train.checkpoints import newest_checkpoint, trained_parameters
        from tunelab.train.loop import Trainer

        began = time.perf_counter()
        before = self.run.progress().started if self.run.checkpoints_path.is_dir() else None
        checkpoint = newest_checkpoint(self.run.checkpoints_path)
        yield Preparing(message=f"loading {self.config.model.repo_id} and the data")
        messages: list[str] = []
        # the tokenizer comes first, so that rows are read and encoded while the weights are loaded and quantised
        tokenizer = load_tokenizer(self.config.model, messages.append)
        with ThreadPoolExecutor(1, "reading") as reader:
            reading = reader.submit(self._read, tokenizer)
            self._load(before, messages.append)
        for message in messages:
            yield Preparing(message=message)
        stages, splits, notes = reading.result()
        torch.manual_seed(self.config.stages[0].training.seed)
        self._attach(stages[0].train)
        if not trained_parameters(self.model):
            raise UserError(f"{self.config.technique!r} trains nothing in this model. Choose other layers or modules.")
        ahead, told = self._look_ahead(stages, before)
        loss = choose_loss(self.model, self.config.technique, self.stages[0].training)
        yield self._started(before, loss, splits, [*notes, *told], ahead)
        if checkpoint or self.run.progress().steps:
            # without a checkpoint it begins anew: what the log says of steps is void
            yield Resumed(step=checkpoint.position.step if checkpoint else 0)
        _check_disk(self.run.path, trained_parameters(self.model))

        heldout = None
        position = checkpoint.position if checkpoint else None
        for index, stage in enumerate(self.stages):
            if position and index < position.stage:
                continue
            trainer = Trainer(
                self.model,
                loss if index == 0 else choose_loss(self.model, self.config.technique, stage.training),
                stages[index],
                stage.training,
                self._learning_rate(stage),
                pad_id=self.base.tokenizer.pad_token_id,
                position=_start_of(index, self.config.stages),
                folder=self.run.checkpoints_path,
                should_stop=self.should_stop,
                adapter_off=lambda: self.config.technique.off(self.model),
                expected_seconds=ahead.step_seconds[index] if ahead and ahead.step_seconds else 0.0,
            )
            torch.manual_seed(stage.training.seed)
            if checkpoint and checkpoint.position.stage == index:
                trainer.resume(checkpoint)
            try:
                yield from trainer.train()
            except GeneratorExit:
                with contextlib.suppress(Exception):  # nobody reads any more; what was saved before is intact
                    list(trainer.save())
                    self._save_adapter()
                raise
            heldout = trainer.position.best_loss if stage.training.keep_best else trainer.last_heldout_loss
            if trainer.stopped:
                self._save_adapter()
                yield Stopped(step=trainer.position.step, reason="as asked", adapter=_adapter_of(self.run))
                return
            if len(self.config.stages) > 1:
                self._save_adapter(self.run.stage_path(index))
        self._save_adapter()
        yield Finished(
            step=trainer.position.step,
            seconds=time.perf_counter() - began,
            heldout_loss=heldout,
            adapter=str(_adapter_of(self.run)),
            peak_memory_bytes=hardware.peak_memory_bytes(),
            gpu_peak_memory_bytes=hardware.gpu_peak_memory_bytes(),
        )

    def _load(self, before: Started | None, progress: Callable[[str], None]) -> None:
        import torch

        from tunelab.model.load import load

        self.libraries_bytes = hardware.resident_bytes()
        # a resumed run computes as it did before, whatever a new measurement would say
        spec = self.config.model.model_copy(update={"dtype": before.dtype} if before else {})
        attention = before.attention if before and before.attention in ("eager", "sdpa") else None
        self.base = load(spec, progress, attention=attention)
        if before:
            torch.set_num_threads(before.threads)
            if before.base_sha256 != self.base.sha256:
                raise UserError(
                    f"The model '{spec.repo_id}' is not the one run {self.run.id} started on: its weights have "
                    f"changed (sha256 {before.base_sha256[:12]}… then, {self.base.sha256[:12]}… now). "
                    "Bring the old weights back, or train again."
                )

    def _attach(self, rows: list[Any]) -> None:
        technique, before = self.config.technique, self.config.start_from
        if before is None:
            self.model = technique.attach(self.base, rows)
            return
        parent = Run.open(before, self.run.root)
        check_lineage(self.config, parent, self.base.sha256)
        self.model = technique.load(self.base, parent.adapter_path, trainable=True)

    def _look_ahead(self, stages: list[Any], before: Started | None) -> tuple[Forecast | None, list[str]]:
        """What the run will take, memory and time, and what to say of it; 'auto' is settled on the way: by what is free
        now on the device, or as it was when the run started."""
        from tunelab.train.memory import forecast

        rows = [(stage.train, stage.heldout) for stage in stages]
        free = hardware.reachable_memory_bytes(self.base.device)
        automatic = all(stage.training.gradient_checkpointing == "auto" for stage in self.stages)
        possible = automatic and self.config.technique.activations_can_be_recomputed
        try:
            ahead = forecast(self.config, self.base, rows, libraries=self.libraries_bytes)
            needed = before.gradient_checkpointing if before else ahead.total > free
            if not possible or not needed:
                return ahead, [ahead.note(free)]
            again = forecast(self.config, self.base, rows, libraries=self.libraries_bytes, checkpointing=True)
        except (RuntimeError, NotImplementedError, TypeError) as error:  # a model whose forward looks into its tensors
            return None, [f"memory: no forecast for this model ({type(error).__name__})"]
        settled = {"gradient_checkpointing": True}
        self.stages = [
            stage.model_copy(update={"training": stage.training.model_copy(update=settled)}) for stage in self.stages
        ]
        return again, [f"memory: {ahead.total / 1e9:.1f} GB would not do", again.note(free)]

    def _read(self, tokenizer: Any) -> tuple[list[Any], list[Any], list[str]]:
        from tunelab.data import encode_all, pack, read_data
        from tunelab.train.loop import StageData

        stages, splits, notes = [], [], []
        for index, stage in enumerate(self.config.stages):
            split = read_data(stage.data, stage.learn)
            where = f"stage {index + 1}: " if len(self.config.stages) > 1 else ""
            notes += [where + note for note in split.notes]
            sides = []
            for side, examples in (("training", split.train), ("held-out", split.heldout)):
                rows, dropped = encode_all(examples, tokenizer, self.config.model.max_length)
                notes += [f"{where}{side} rows: {note}" for note in dropped]
                if not rows:
                    raise UserError(
                        f"{stage.data.title}: no {side} row has anything to learn from within "
                        f"max_length = {self.config.model.max_length} tokens. Raise max_length, or shorten the prompts."
                    )
                if stage.learn == "text":
                    rows = pack(rows, self.config.model.max_length)
                sides.append(rows)
            replayed, told = self._replayed(stage, tokenizer, len(sides[0]))
            notes += [where + note for note in told]
            stages.append(StageData(sides[0] + replayed, sides[1]))
            splits.append(split)
        return stages, splits, notes

    def _replayed(self, stage: Stage, tokenizer: Any, count: int) -> tuple[list[Any], list[str]]:
        """General rows that make up `replay_share` of a stage of `count` rows, and a note that says so."""
        from tunelab.data import encode_all, read_examples

        share = stage.training.replay_share
        if not share:
            return [], []
        examples = read_examples(stage.replayed)
        random.Random(stage.training.seed).shuffle(examples)
        rows, _dropped = encode_all(examples, tokenizer, self.config.model.max_length)
        wanted = max(1, round(count * share / (1 - share)))
        chosen = list(itertools.islice(itertools.cycle(rows), wanted)) if rows else []
        if not chosen:
            raise UserError(f"{stage.replayed.title}: no row to replay fits into max_length.")
        return chosen, [f"{wanted} rows of {stage.replayed.title} are replayed among {count} training rows"]

    def _learning_rate(self, stage: Stage) -> float:
        asked = stage.training.learning_rate
        return self.config.technique.default_learning_rate if asked == "auto" else asked

    def _started(
        self, before: Started | None, loss: Any, splits: list[Any], notes: list[str], ahead: Forecast | None
    ) -> Started:
        import torch

        hashes = tuple(split.sha256 for split in splits)
        if before and before.data_sha256 != hashes:
            raise UserError(
                f"The data of run {self.run.id} has changed since it started, so it can't go on where it was. "
                "Bring the old files back, or train again."
            )
        return Started(
            device=str(self.base.device),
            dtype=self.base.dtype_name,
            quantization=self.config.model.quantization,
            attention=loss.attention,
            fast=loss.fast,
            threads=torch.get_num_threads(),
            base_sha256=self.base.sha256,
            trainable_parameters=self.config.technique.trainable_parameters(self.model),
            total_parameters=sum(p.numel() for p in self.model.parameters()),
            steps_total=sum(stage.training.steps for stage in self.config.stages),
            learning_rates=tuple(self._learning_rate(stage) for stage in self.config.stages),
            train_rows=tuple(len(split.train) for split in splits),
            heldout_rows=tuple(len(split.heldout) for split in splits),
            data_sha256=hashes,
            forecast_bytes=ahead.total if ahead else 0,
            forecast_seconds=ahead.seconds_total if ahead else 0.0,
            gradient_checkpointing=any(stage.training.gradient_checkpointing is True for stage in self.stages),
            libraries_bytes=self.libraries_bytes,
            notes=tuple(notes),
        )

    def _save_adapter(self, folder: Path | None = None) -> None:
        with replacing(folder or self.run.adapter_path) as temporary:
            self.config.technique.save(self.model, temporary, self.base)


def check_lineage(config: RunConfig, parent: Run, base_sha256: str | None = None) -> None:
    """Refuse to start from a run whose result does not fit this configuration.

    Raises:
        UserError: it has no result, another technique, or another base.
    """
    if not parent.has_adapter:
        raise UserError(f"start_from = '{parent.id}': the run has no adapter yet ({parent.progress().message}).")
    if differences := _differences(parent.config.technique, config.technique):
        raise UserError(f"start_from = '{parent.id}': {differences}. Take the same technique and settings.")
    started = parent.progress().started
    if started and base_sha256 and started.base_sha256 != base_sha256:
        raise UserError(
            f"start_from = '{parent.id}': it was trained on {parent.config.model.repo_id} (sha256 "
            f"{started.base_sha256[:12]}…), this run's base is {config.model.repo_id} ({base_sha256[:12]}…). "
            "Take the same base."
        )


def _differences(there: Technique, here: Technique) -> str:
    """In what two techniques differ, in words; empty where they are the same."""
    if type(there) is not type(here):
        return f"it was trained with {there.title}, and this run asks for {here.title}"
    fields = [name for name in type(here).model_fields if getattr(there, name) != getattr(here, name)]
    return "; ".join(f"{name} is {getattr(there, name)} there and {getattr(here, name)} here" for name in fields)


def _start_of(index: int, stages: tuple[Stage, ...]) -> Any:
    from tunelab.train.checkpoints import Position

    return Position(step=sum(stage.training.steps for stage in stages[:index]), stage=index)


def _adapter_of(run: Run) -> str | None:
    return run.adapter_path.name if run.has_adapter else None


def _check_disk(folder: Path, parameters: dict[str, Any]) -> None:
    """Refuse to start a run whose checkpoints would not fit: parameters, best copy, two moments, three at a time."""
    import shutil

    needed = 3 * 4 * sum(p.numel() * 4 for p in parameters.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"The disk has {free / 1e6:,.0f} MB free at {folder}; this run's checkpoints need up to "
            f"{needed / 1e6:,.0f} MB. Free some space, or choose another directory with --runs DIR or TUNELAB_HOME."
        )


def _acquired(lock: Any) -> bool:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0.3)
    except Timeout:
        return False
    return True


def _waiting_for(run: Run) -> str:
    holder = next((r for r in list_runs(run.root) if r.id != run.id and r.progress().started and r.is_alive), None)
    return f"waiting until {holder.id} has finished: one run trains at a time" if holder else "waiting for its turn"


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C (or a notebook's interrupt, or SIGTERM) is a request to stop; the second interrupts."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield asked.is_set
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: Any) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
