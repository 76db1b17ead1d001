"""The whole chain, in the only file that shows all of it:

    load the model → read and encode the data → attach the technique → train each stage → save

`train_run()` does it for a run's directory and yields the events it records there; `finetune()` makes the directory
and drains the events. Both run in this process; the app uses `worker.py`, which is this in a process of its own.
"""

from __future__ import annotations

import itertools
import queue
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tunelab.config import RunConfig
from tunelab.errors import UserError, cause_of, explain
from tunelab.machine import gpus, hardware, libraries, processes
from tunelab.machine.files import replacing
from tunelab.run import process
from tunelab.run.events import (
    Evaluated,
    Failed,
    Finished,
    Preparing,
    Resumed,
    Saved,
    Started,
    Stopped,
    TrainingEvent,
)
from tunelab.run.reports import forget_report
from tunelab.run.run import Run
from tunelab.run.trained import TrainedRows, what_changed
from tunelab.run.turn import Turn
from tunelab.spec import ModelSpec, Stage, TrainConfig, base_differences
from tunelab.techniques import Technique

if TYPE_CHECKING:
    from tunelab.data.encode import Encoded
    from tunelab.data.examples import DataSplit
    from tunelab.measure.live import LiveRows
    from tunelab.train.checkpoints import Checkpoint
    from tunelab.train.forecast import Forecast
    from tunelab.train.loop import StageData, Trainer

Result = TypeVar("Result")


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
    run = create_run(config, root)
    for event in train_run(run):
        if on_event:
            on_event(event)
    return run


def create_run(config: RunConfig, root: str | Path | None = None) -> Run:
    """A new run of `config`: one, however many processes `torchrun` has started.

    Raises:
        OSError: as `Run.create`.
    """
    processes.join(config.model.device)
    return Run(processes.agreed(lambda: Run.create(config, root).path))


def train_run(run: Run, should_stop: Callable[[], bool] = lambda: False) -> Iterator[TrainingEvent]:
    """Every event of training `run`, from its last checkpoint if it has one, as they are recorded in its directory.

    Waits for its turn when another run trains. Stops at the next step when asked from now on by `should_stop`, by
    `run.request_stop()`, or by Ctrl-C; a generator closed early keeps a checkpoint and the adapter as well.

    Under `torchrun` every process comes here with the same run. The first one holds the lock, records and saves.
    """
    libraries.prepare()
    processes.join(run.config.model.device)
    if processes.is_first():
        with run.beating(), closing(Turn(run)) as turn:
            run.begin()
            process.note_start(run.path)
            try:
                yield from _in_turn(run, turn, should_stop)
            finally:
                run.clear_requests()
    else:
        yield from _in_turn(run, None, should_stop)


def _in_turn(run: Run, turn: Turn | None, should_stop: Callable[[], bool]) -> Iterator[TrainingEvent]:
    """Wait for the run's turn, and train it; `turn` is None in all processes but the first, which waits for all."""
    with interruptible() as interrupted:

        def stop() -> bool:
            return processes.agreed(lambda: run.stop_requested or interrupted() or should_stop())

        if not (yield from _recorded(run, _wait(run, turn, stop))):
            return
        if turn:
            run.take_from_queue()
            forget_report(run.path)  # it is of the result before
        yield from _trained(run, stop)


def _wait(run: Run, turn: Turn | None, should_stop: Callable[[], bool]) -> Generator[TrainingEvent, None, bool]:
    """Wait until it is this run's turn; False where it was asked to stop before."""
    said = ""
    while not processes.agreed(lambda: turn is not None and turn.come()):
        if should_stop():
            yield Stopped(step=run.progress().step, reason="stopped while it waited", adapter=None)
            return False
        message = turn.awaited if turn else said
        if message != said:
            said = message
            yield Preparing(message=message)
    return True


def _trained(run: Run, should_stop: Callable[[], bool]) -> Iterator[TrainingEvent]:
    """The events of the chain, recorded, and how it ended where it can't say so itself."""
    try:
        # closed before its end is recorded, so that what it saves then is in the record
        with closing(_Chain(run, should_stop).events()) as events:
            yield from _recorded(run, events)
    except GeneratorExit:
        _record(run, Stopped(step=run.progress().step, reason="its reader ended", adapter=_adapter_of(run)))
        raise
    except Exception as error:
        known = explain(error)
        message = known or f"{type(error).__name__}: {error}. This is a bug; the run's log has the details."
        detail = "" if isinstance(error, UserError) else traceback.format_exc()
        event = Failed(message=message, detail=detail, cause=cause_of(error))
        with suppress(OSError):  # a full disk can't take the news either
            _record(run, event)
        if known and not isinstance(error, UserError):
            raise UserError(known) from error
        raise


def _recorded(run: Run, events: Generator[TrainingEvent, None, Result]) -> Generator[TrainingEvent, None, Result]:
    """The events, each written into the run's log before it is passed on."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        _record(run, event)
        yield event


def _record(run: Run, event: TrainingEvent) -> None:
    """Add an event to the run's log: once, however many processes train it."""
    if processes.is_first():
        run.append(event)


class _Chain:
    """One pass over the chain. The methods stand in the order in which they happen."""

    def __init__(self, run: Run, should_stop: Callable[[], bool]) -> None:
        self.run, self.should_stop = run, should_stop
        self.config = run.config
        self.stages = list(self.config.stages)  # with what 'auto' came to
        self.began = time.perf_counter()
        self.before: Started | None = None
        self.checkpoint: Checkpoint | None = None
        self.libraries_bytes = 0
        self.learned = TrainedRows()
        self.base: Any = None
        self.model: Any = None
        self.rows: list[StageData] = []  # of each stage
        self.splits: list[DataSplit] = []
        self.live: list[LiveRows] = []  # what each stage is measured on while it trains
        self.notes: list[str] = []
        self.ahead: Forecast | None = None
        self.loss: Any = None
        self.loss_settings: tuple[Any, ...] = ()
        self.step = 0
        self.heldout_loss: float | None = None

    def events(self) -> Generator[TrainingEvent, None, None]:
        """The whole chain, a line for each of its steps."""
        self._check()
        yield Preparing(message=f"loading {self.config.model.repo_id} and the data")
        libraries.load()
        self._look_back()
        yield from self._load_and_read()
        self._attach()
        yield from self._look_ahead()
        yield from self._begin()
        for index in self._stages_to_train():
            stopped = yield from self._train(index)
            if stopped:
                return
        yield self._finish()

    def _check(self) -> None:
        """Refuse what no data and no model can mend, before they are read."""
        from tunelab.measure.live import check_live

        for stage in self.stages:
            check_live(stage.training)
            self._check_optimizer(stage.training.optimizer)

    def _check_optimizer(self, optimizer: str) -> None:
        if optimizer not in ("auto", "adamw"):
            from tunelab.model.load import choose_device
            from tunelab.train.optimizer import check_optimizer

            check_optimizer(optimizer, choose_device(self.config.model))

    def _look_back(self) -> None:
        """What a run that is resumed was: its measured choices, and its newest checkpoint."""
        from tunelab.train.checkpoints import newest_checkpoint

        self.before = self.run.progress().started if self.run.checkpoints_path.is_dir() else None
        started = self.before or self._started_before()
        if started and started.base_revision:  # wherever its branch has moved since
            pinned = self.config.model.model_copy(update={"revision": started.base_revision})
            self.config = self.config.model_copy(update={"model": pinned})
        self.checkpoint = newest_checkpoint(self.run.checkpoints_path)

    def _started_before(self) -> Started | None:
        """How the run began that this one starts from, where both name the same model and this one no revision."""
        model, before = self.config.model, self.config.start_from
        parent = Run.open(before, self.run.root) if before and not model.revision else None
        return parent.progress().started if parent and parent.config.model.repo_id == model.repo_id else None

    def _load_and_read(self) -> Iterator[TrainingEvent]:
        """The base, and the rows of every stage, read and encoded while the weights are loaded and quantised."""
        from tunelab.model.load import find, load_tokenizer

        said: list[str] = []
        more: list[str] = []
        # what may take long comes first, with word of it on the way
        for message in messages_of(lambda say: find(self.config.model, say)):
            said.append(message)
            yield Preparing(message=message)
        tokenizer = load_tokenizer(self.config.model, more.append)
        with ThreadPoolExecutor(1, "reading") as reader:
            reading = reader.submit(self._read, tokenizer)
            self._load(more.append)
        for message in dict.fromkeys(more):
            if message not in said:
                yield Preparing(message=message)
        self.rows, self.splits, self.notes = reading.result()

    def _load(self, progress: Callable[[str], None]) -> None:
        import torch

        from tunelab.model.load import load

        before = self.before
        hardware.forget_gpu_peak()
        self.libraries_bytes = hardware.resident_bytes()
        # a resumed run computes as it did before, whatever a new measurement would say
        attention = before.attention if before and before.attention in ("eager", "sdpa") else None
        dtype = before.dtype if before else processes.agreed(lambda: _dtype_of(self.config.model))
        spec = self.config.model.model_copy(update={"dtype": dtype})
        attention = attention or processes.agreed(lambda: _attention_of(spec))
        self.base = load(spec, progress, attention=attention)
        if before:
            torch.set_num_threads(before.threads)
            if before.base_sha256 != self.base.sha256:
                raise UserError(
                    f"The model '{spec.repo_id}' is not the one run {self.run.id} started on: its weights have "
                    f"changed (sha256 {before.base_sha256[:12]}… then, {self.base.sha256[:12]}… now). "
                    "Bring the old weights back, or train again."
                )

    def _read(self, tokenizer: Any) -> tuple[list[Any], list[Any], list[str]]:
        from tunelab.data import read_data, training_rows
        from tunelab.measure.live import live_rows
        from tunelab.model.load import find
        from tunelab.model.positions import row_limit
        from tunelab.train.loop import StageData

        limit = row_limit(find(self.config.model), self.config.model, self.config.technique.positions_taken)
        stages, splits, notes, everything_replayed = [], [], list(limit.notes), []
        for index, stage in enumerate(self.config.stages):
            split = read_data(stage.data, stage.learn, self.before.columns_of(index) if self.before else None)
            split.check()
            where = f"stage {index + 1}: " if len(self.config.stages) > 1 else ""
            notes += [where + note for note in split.notes]
            sides = []
            for side, examples in (("training", split.train), ("held-out", split.heldout)):
                rows, row_notes = training_rows(examples, tokenizer, limit.tokens)
                notes += [f"{where}{side} rows: {note}" for note in row_notes]
                if not rows:
                    raise UserError(
                        f"{stage.data.title}: no {side} row has anything to learn from within "
                        f"max_length = {limit.tokens} tokens. Raise max_length, or shorten the prompts."
                    )
                sides.append(rows)
            live = live_rows(stage, split.heldout, tokenizer, limit.tokens)
            notes += [where + note for note in live.notes]
            self.live.append(live)
            examples = self._examples_to_replay(stage)
            everything_replayed += examples
            replayed, replay_notes = self._replayed(stage, examples, tokenizer, limit.tokens, sides[0])
            notes += [where + note for note in replay_notes]
            stages.append(StageData(sides[0] + replayed, sides[1]))
            splits.append(split)
        self.learned = TrainedRows.of(self.config.stages, splits, everything_replayed)
        return stages, splits, notes

    @staticmethod
    def _examples_to_replay(stage: Stage) -> list[Any]:
        """General examples that a stage draws from, shuffled by its seed."""
        from tunelab.data import read_examples

        examples = read_examples(stage.replayed) if stage.training.replay_share else []
        random.Random(stage.training.seed).shuffle(examples)
        return examples

    def _replayed(
        self, stage: Stage, examples: list[Any], tokenizer: Any, max_length: int, own: list[Any]
    ) -> tuple[list[Any], list[str]]:
        """General rows that stand beside a stage's rows `own`, and a note that says how many. `replay_share` is what
        they may take of the rows and of the scored tokens: long general answers among labels of a word would otherwise
        be most of what is learned, for a step's loss is one of tokens."""
        from tunelab.data import encode_all

        share = stage.training.replay_share
        if not share:
            return [], []
        rows, _dropped = encode_all(examples, tokenizer, max_length)
        if not rows:
            raise UserError(f"{stage.replayed.title}: no row to replay fits into max_length.")
        tokens, most = sum(sum(row.scored) for row in own), share / (1 - share)
        chosen = _within(rows, max(1, round(len(own) * most)), tokens * most)
        general = sum(sum(row.scored) for row in chosen)
        return chosen, [
            f"{len(chosen)} rows of {stage.replayed.title} are replayed among {len(own)} training rows: "
            f"{len(chosen) / (len(chosen) + len(own)):.0%} of the rows, "
            f"{general / (general + tokens):.0%} of the scored tokens"
        ]

    def _attach(self) -> None:
        """The technique on the base, fresh or as another run left it."""
        import torch

        from tunelab.train.checkpoints import trained_parameters

        technique, before = self.config.technique, self.config.start_from
        self.notes += [*self.base.notes, *self._notes_on_answers(), *technique.notes(self.base)]
        torch.manual_seed(self.config.stages[0].training.seed)
        if before is None:
            self.model = technique.attach(self.base, self.rows[0].train)
        else:
            parent = Run.open(before, self.run.root)
            check_lineage(self.config, parent, self.base.sha256)
            self.notes += _lineage_notes(self.config, parent)
            self.model = technique.load(self.base, parent.adapter_path, trainable=True)
        if not trained_parameters(self.model):
            raise UserError(f"{technique!r} trains nothing in this model. Choose other layers or modules.")

    def _notes_on_answers(self) -> list[str]:
        """What to know of a base that was never taught to answer, where answers are learned."""
        from tunelab.data import chat_format
        from tunelab.data.untaught import untaught_notes
        from tunelab.model.load import find

        if all(stage.learn == "text" for stage in self.stages):
            return []
        return untaught_notes(chat_format(self.base.tokenizer), find(self.config.model))

    def _look_ahead(self) -> Iterator[TrainingEvent]:
        """What the run will take, memory and time; what there is to say of it is noted. 'auto' is settled on the way:
        by what is free now on the device, or as it was when the run started."""
        from tunelab.train.fit import fitted
        from tunelab.train.forecast import Unforeseen
        from tunelab.train.memory import forecast, timed

        rows = [(stage.train, stage.heldout) for stage in self.rows]
        free = processes.smallest(lambda: hardware.reachable_memory_bytes(self.base.device))
        if self.base.device.type == "cpu":
            free //= processes.on_this_machine()

        def forecast_of(config: RunConfig) -> Forecast:
            return forecast(config, self.base, rows, libraries=self.libraries_bytes)

        try:
            made = fitted(self.config, self.base.device, free, forecast_of, self.before)
        except Unforeseen as reason:
            self.notes.append(str(reason))
            return
        self.stages, self.notes = list(made.config.stages), [*self.notes, *made.notes]
        yield Preparing(message="timing a step of such a run")
        self.ahead = timed(made.ahead, self.config, self.base, rows)
        self.notes.append(self.ahead.note(free))

    def _begin(self) -> Iterator[TrainingEvent]:
        """What the run uses, and from where it goes on."""
        from tunelab.train.checkpoints import trained_parameters

        self._choose_loss(self.stages[0].training)
        if self.loss.why_plain and self.stages[0].training.fast:
            self.notes.append(f"computed by the model's own code, not by the fast path: {self.loss.why_plain}")
        self.notes += self._notes_on_device()
        if kept := self._kept():
            each = sum(p.numel() * p.element_size() for p in trained_parameters(self.model).values())
            self.notes.append(
                f"keep_adapters: up to {kept} results of {each / 1e6:,.1f} MB are kept, {kept * each / 1e6:,.0f} MB"
            )
        started = self._started()
        if processes.is_first():
            self.learned.write(self.run.path)
        yield started
        if self.checkpoint or self.run.progress().steps:
            # without a checkpoint it begins anew: what the log says of steps is void
            yield Resumed(step=self.checkpoint.position.step if self.checkpoint else 0)
        _check_disk(self.run.path, trained_parameters(self.model), self._kept())

    def _notes_on_device(self) -> list[str]:
        """What to know of computing on this device."""
        device = self.base.device
        notes = gpus.notes_on(device, self.base.dtype, processes.count())
        if device.type == "cuda" and self.loss.attention in ("eager", "grouped"):
            what = "prefix tuning on the fast path" if self.loss.fast else "this model"
            notes.append(
                f"{what} has no fused attention: it makes a score of every token with every other, so its memory grows "
                "with the square of max_length"
            )
        return notes

    def _kept(self) -> int:
        """How many results are kept at evaluations."""
        return sum(stage.training.evaluations for stage in self.config.stages if stage.training.keep_adapters)

    def _stages_to_train(self) -> range:
        return range(self.checkpoint.position.stage if self.checkpoint else 0, len(self.stages))

    def _train(self, index: int) -> Generator[TrainingEvent, None, bool]:
        """Train one stage; whether it was asked to stop before its end."""
        trainer = self._trainer(index)
        try:
            for event in trainer.train():
                # before anybody hears of it: who leaves then, and goes on later, does not evaluate this step again
                saved = None
                if isinstance(event, Evaluated) and trainer.config.keep_adapters:
                    saved = self._keep(event.step)
                yield event
                if saved:
                    yield saved
        except GeneratorExit:
            with suppress(Exception):  # nobody reads any more; what was saved before is intact
                list(trainer.save())
                self._save_adapter()
            raise
        self.step = trainer.position.step
        keep_best = self.stages[index].training.keep_best
        self.heldout_loss = trainer.position.best_loss if keep_best else trainer.last_heldout_loss
        if trainer.stopped:
            self._save_adapter()
            yield Stopped(step=self.step, reason="as asked", adapter=_adapter_of(self.run))
        elif len(self.stages) > 1:
            self._save_adapter(self.run.stage_path(index))
        return trainer.stopped

    def _keep(self, step: int) -> Saved:
        """Keep what was trained up to this step beside what the run leaves at its end."""
        folder = self.run.step_path(step)
        self._save_adapter(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*")) if processes.is_first() else 0
        return Saved(step=step, path=str(folder.relative_to(self.run.path)), bytes=size)

    def _trainer(self, index: int) -> Trainer:
        """What trains a stage, from its beginning or from the checkpoint that was taken in it."""
        import torch

        from tunelab.measure.live import beside
        from tunelab.train.loop import Trainer

        stage, ahead = self.stages[index], self.ahead
        self._choose_loss(stage.training)
        trainer = Trainer(
            self.model,
            self.loss,
            self.rows[index],
            stage.training,
            self._learning_rate(stage),
            pad_id=self.base.pad_id,
            position=_start_of(index, self.config.stages),
            folder=self.run.checkpoints_path,
            should_stop=self.should_stop,
            adapter_off=lambda: self.config.technique.off(self.model),
            expected_seconds=ahead.slowest_seconds[index] if ahead and ahead.slowest_seconds else 0.0,
            beside=beside(self.live[index], self.base, self.config.technique, self.model, self.loss, stage.training),
        )
        torch.manual_seed(stage.training.seed)
        if self.checkpoint and self.checkpoint.position.stage == index:
            trainer.resume(self.checkpoint)
        return trainer

    def _choose_loss(self, training: TrainConfig) -> None:
        """Have the loss that a stage asks for: the one before where it computes the same, else another in its place,
        never beside it, for each may hold the frozen weights joined in its own way."""
        from tunelab.fast import choose_loss, loss_settings

        settings = loss_settings(training)
        if self.loss is not None and settings == self.loss_settings:
            self.loss.forget_rows()  # those of the stage before
            return
        if self.loss is not None:
            self.loss.release()
        self.loss = None
        self.loss, self.loss_settings = choose_loss(self.model, self.config.technique, training), settings

    def _finish(self) -> Finished:
        self._save_adapter()
        return Finished(
            step=self.step,
            seconds=time.perf_counter() - self.began,
            heldout_loss=self.heldout_loss,
            adapter=str(_adapter_of(self.run)),
            peak_memory_bytes=hardware.peak_memory_bytes(),
            gpu_peak_memory_bytes=hardware.gpu_peak_memory_bytes(),
        )

    def _learning_rate(self, stage: Stage) -> float:
        asked = stage.training.learning_rate
        return self.config.technique.default_learning_rate if asked == "auto" else asked

    def _started(self) -> Started:
        import torch

        from tunelab.model.quantization import count_parameters

        hashes = tuple(split.sha256 for split in self.splits)
        before = self.before
        if before and before.data_sha256 != hashes:
            stage = next(n for n, (then, now) in enumerate(zip(before.data_sha256, hashes, strict=True)) if then != now)
            raise UserError(
                f"The data of run {self.run.id} has changed since it started, so it can't go on where it was: "
                f"{self.config.stages[stage].data.title}: {what_changed(self.run, stage, self.splits[stage])}. "
                "Bring the old files back, or train again."
            )
        return Started(
            device=str(self.base.device),
            dtype=self.base.dtype_name,
            quantization=self.config.model.quantization,
            attention=self.loss.attention,
            fast=self.loss.fast,
            why_plain=self.loss.why_plain,
            threads=torch.get_num_threads(),
            base_sha256=self.base.sha256,
            base_revision=self.base.revision,
            trainable_parameters=self.config.technique.trainable_parameters(self.model),
            total_parameters=count_parameters(self.model),
            steps_total=sum(stage.training.steps for stage in self.config.stages),
            learning_rates=tuple(self._learning_rate(stage) for stage in self.config.stages),
            train_rows=tuple(len(split.train) for split in self.splits),
            heldout_rows=tuple(len(split.heldout) for split in self.splits),
            data_sha256=hashes,
            columns=tuple(split.columns for split in self.splits),
            forecast_bytes=self.ahead.total if self.ahead else 0,
            forecast_seconds=self.ahead.seconds_total if self.ahead else 0.0,
            optimizer=self.stages[0].training.optimizer,
            gradient_checkpointing=any(stage.training.gradient_checkpointing is True for stage in self.stages),
            libraries_bytes=self.libraries_bytes,
            notes=tuple(self.notes),
        )

    def _save_adapter(self, folder: Path | None = None) -> None:
        if not processes.is_first():
            return
        with replacing(folder or self.run.adapter_path) as temporary:
            self.config.technique.save(self.model, temporary, self.base)


def _dtype_of(spec: ModelSpec) -> str:
    """The precision a base of `spec` is computed in here, by its name."""
    from tunelab.model.load import choose_device, choose_dtype

    return str(choose_dtype(spec, choose_device(spec))).removeprefix("torch.")


def _attention_of(spec: ModelSpec) -> str:
    """What the plain path of a base of `spec` attends with here."""
    from tunelab.model.attention import choose_attention
    from tunelab.model.load import choose_device, choose_dtype, find

    device = choose_device(spec)
    return choose_attention(find(spec), device, choose_dtype(spec, device))


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


def _within(rows: list[Encoded], number: int, tokens: float) -> list[Encoded]:
    """So many of the rows, from the first one on and again where there are too few, or fewer where their scored tokens
    would be more than so many; those that do not fit any more are passed over. One at least, the shortest."""
    chosen: list[Encoded] = []
    passed = 0
    for row in itertools.cycle(rows):
        if len(chosen) == number or passed == len(rows):
            break
        passed += 1
        if sum(row.scored) <= tokens:
            chosen.append(row)
            tokens, passed = tokens - sum(row.scored), 0
    return chosen or [min(rows, key=lambda row: sum(row.scored))]


def _lineage_notes(config: RunConfig, parent: Run) -> list[str]:
    """What to know of a base that holds the same weights in another precision than the run before had."""
    there, here = parent.base_spec, config.model
    if "quantization" not in base_differences(there, here):
        return []
    return [
        f"start_from: {parent.id} was trained on a base with quantization {there.quantization}, this one has "
        f"{here.quantization}: it begins at a loss a little off where that one ended"
    ]


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


def _check_disk(folder: Path, parameters: dict[str, Any], kept: int) -> None:
    """Refuse to start a run whose checkpoints would not fit: parameters, best copy, two moments, three at a time; and
    the results that are kept."""
    import shutil

    needed = (3 * 4 + kept) * sum(p.numel() * 4 for p in parameters.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"The disk has {free / 1e6:,.0f} MB free at {folder}; this run's checkpoints"
            f"{' and kept results' if kept else ''} need up to "
            f"{needed / 1e6:,.0f} MB. Free some space, or choose another directory with --runs DIR or TUNELAB_HOME."
        )


def messages_of(work: Callable[[Callable[[str], None]], object]) -> Iterator[str]:
    """What `work(say)` says, each message as it comes, while it works in a thread of its own."""
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run() -> None:
        try:
            work(said.put)
            said.put(None)
        except BaseException as error:
            said.put(error)

    # a daemon: whoever interrupts a download need not wait for its end
    threading.Thread(target=run, daemon=True, name="fetching").start()
    while (message := said.get()) is not None:
        if isinstance(message, BaseException):
            raise message
        yield message


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
