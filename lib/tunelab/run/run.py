"""Runs on disk: a run is a directory, and its status follows from what stands in it.

    RUNS_ROOT/20261124-101500-my-run/
        config.json      {"format": 1, "config": RunConfig}, and "imported_from" for an adapter made elsewhere
        labels.json      name, tags and note that people gave it later
        events.jsonl     one TrainingEvent per line, appended
        heartbeat        touched every second by the process that trains
        trained_rows.npz  digests of the rows it learns from
        queued | stop    requests: start (or resume) me; stop at the next step
        paused           stopped, and keeps its place among those that wait
        checkpoints/     what a run resumes from
        adapter/         the result (model/ for full fine-tuning)
        stages/1 …       the result at the end of each stage, where there are several
        steps/000040 …   the result at each evaluation, where they are kept

Nothing else remembers a run, so a closed browser, a restarted app or a killed worker loses nothing. Deleted runs stand
in RUNS_ROOT/.deleted/ and can be restored.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from pydantic import ValidationError

from tunelab.errors import UserError
from tunelab.machine.files import replacing, write_atomically
from tunelab.run.events import (
    Failed,
    Finished,
    Preparing,
    RolledBack,
    StepDone,
    Stopped,
    TrainingEvent,
)
from tunelab.run.labels import Labels, change_labels, read_labels
from tunelab.run.log import log_of
from tunelab.run.process import evidence
from tunelab.run.progress import Progress, Status, how_it_finished
from tunelab.run.reports import forget_report
from tunelab.run.requests import Requests

if TYPE_CHECKING:
    from tunelab.config import RunConfig
    from tunelab.spec import ModelSpec, Stage

FORMAT = 1
SECOND = len("20260131-235959")  # what an id begins with
DELETED = ".deleted"  # folder of deleted runs in the runs root
FULL_DISK_BYTES = 100_000
RESUMABLE: tuple[Status, ...] = ("stopped", "paused", "failed", "lost")


def runs_root(directory: str | Path | None = None) -> Path:
    """Where runs live: `directory`, else $TUNELAB_HOME/runs, else the platform's user data directory."""
    if directory is not None:
        return Path(directory).expanduser().resolve()
    home = os.environ.get("TUNELAB_HOME")
    return (Path(home).expanduser().resolve() if home else platformdirs.user_data_path("tunelab")) / "runs"


class Run(Requests):
    """One run's directory. Cheap to make; reads the disk each time it is asked."""

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self.status})"

    @classmethod
    def create(cls, config: RunConfig, root: str | Path | None = None, imported_from: str | None = None) -> Run:
        """A new run directory holding `config`, not queued yet; `imported_from` names the file of an adapter that was
        made elsewhere.

        Raises:
            OSError: the directory can't be written (`errors.explain` puts it into words).
        """
        if config.start_from:  # by its id, whatever it was called by: names can be given again
            config = config.model_copy(update={"start_from": cls.open(config.start_from, root).id})
        config = config.model_copy(update={"stages": tuple(map(_with_absolute_files, config.stages))})
        if local := config.model.local_path:
            config = config.model_copy(update={"model": config.model.model_copy(update={"repo_id": local})})
        slug = re.sub(r"[^a-z0-9]+", "-", (config.name or config.method).lower()).strip("-")[:40]
        stamp = time.strftime("%Y%m%d-%H%M%S")
        path = runs_root(root) / f"{stamp}-{slug or 'run'}-{secrets.token_hex(2)}"
        path.mkdir(parents=True)
        content = {"format": FORMAT, "config": config.model_dump(mode="json")}
        if imported_from is not None:
            content["imported_from"] = imported_from
        try:
            write_atomically(path / "config.json", json.dumps(content, ensure_ascii=False))
        except OSError:
            shutil.rmtree(path, ignore_errors=True)  # no half-made run stays behind
            raise
        return cls(path)

    @classmethod
    def open(cls, name: str | Path, root: str | Path | None = None) -> Run:
        """The run of this id, directory or name; 'latest' is the newest one.

        Raises:
            UserError: no run, or more than one, is called that.
        """
        if (Path(name) / "config.json").is_file():
            return cls(Path(name).resolve())
        everything = list_runs(root)
        if name == "latest" and everything:
            return everything[0]
        text = str(name)
        found = [r for r in everything if r.id == text] or [
            r for r in everything if r.given_name == text or (r.readable and r.id.startswith(text))
        ]
        if len(found) == 1:
            return found[0]
        where = runs_root(root)
        if not found:
            if text not in ("", ".", "..") and (where / DELETED / text).is_dir():
                raise UserError(f"Run {text} is deleted. Bring it back with `tunelab restore {text}`.")
            known = ", ".join(r.id for r in everything[:5]) or "none yet"
            raise UserError(f"There is no run '{name}' in {where}. Runs there: {known}. See all with `tunelab runs`.")
        ids = ", ".join(r.id for r in found)
        raise UserError(f"{len(found)} runs are called '{name}': {ids}. Give one of these ids.")

    @classmethod
    def open_to_ask(cls, name: str | Path, root: str | Path | None = None) -> Run:
        """As `open`; 'NAME@40' is `at(40)` of the run NAME, and 'NAME@stage2' is its `at_stage(1)`.

        Raises:
            UserError: as `open`, `at` and `at_stage`.
        """
        at = re.fullmatch(r"(.+)@(stage)?(\d+)", str(name))
        if at is None:
            return cls.open(name, root)
        try:
            return cls.open(name, root)  # a name may end so
        except UserError:
            whole, number = cls.open(at[1], root), int(at[3])
            return whole.at_stage(number - 1) if at[2] else whole.at(number)

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def root(self) -> Path:
        return self.path.parent

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def adapter_path(self) -> Path:
        """Where the result is kept: an adapter, or a whole model for full fine-tuning."""
        return self.path / self.config.technique.result_folder

    def stage_path(self, stage: int) -> Path:
        """Where the result at the end of a stage is kept, counted from 0."""
        return self.path / "stages" / str(stage + 1)

    def step_path(self, step: int) -> Path:
        """Where the result of an evaluation is kept, if it is."""
        return self.path / "steps" / f"{step:06d}"

    @property
    def checkpoints_path(self) -> Path:
        return self.path / "checkpoints"

    @cached_property
    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            UserError: it was written by another version, or is damaged.
        """
        try:
            return self._stored[0]
        except (OSError, ValueError, KeyError, TypeError) as error:
            if not self.path.is_dir():
                raise UserError(
                    f"Run {self.id} is not there any more. If it was deleted: `tunelab restore {self.id}`."
                ) from None
            if isinstance(error, ValidationError):
                error = ValueError(f"{error.error_count()} fields this version does not know or allow")
            raise UserError(f"Run {self.id} can't be read: its config.json is damaged ({error}).") from None

    @property
    def imported_from(self) -> str | None:
        """The file the adapter came from; None for a run that was trained here."""
        return self._stored[1]

    @cached_property
    def _stored(self) -> tuple[RunConfig, str | None]:
        path = self.path / "config.json"
        found = path.stat()
        return _read_config(path, (found.st_ino, found.st_size, found.st_mtime_ns))

    @property
    def readable(self) -> bool:
        try:
            return self.config is not None
        except UserError:
            return False

    @property
    def name(self) -> str:
        """What to call the run in a list: the name it was given, else what it is."""
        if given := self.given_name:
            return given
        return f"{self.config.method} on {self.config.stages[-1].data.title}" if self.readable else self.id

    @property
    def given_name(self) -> str | None:
        """The name that people gave it: the newest one. None where it never had one."""
        return self.labels.name or (self.config.name if self.readable else None)

    @property
    def labels(self) -> Labels:
        """Name, tags and note that it was given after it was made."""
        return read_labels(self.path)

    def label(self, *, name: str | None = None, tags: Iterable[str] | None = None, note: str | None = None) -> Labels:
        """Its labels with these in place of those before; what is None stays, what is empty is taken away.

        Raises:
            UserError: a label is too long, or there are too many tags.
        """
        self.check_whole()
        return change_labels(self.path, name, tags, note)

    @property
    def pinned(self) -> RunConfig:
        """Its configuration, with the model at the commit of the Hub that was found when it began: what has to be
        trained to make it again, wherever a branch has moved since."""
        started = self.progress().started
        if not started or not started.base_revision:
            return self.config
        model = self.config.model.model_copy(update={"revision": started.base_revision})
        return self.config.model_copy(update={"model": model})

    @property
    def base_spec(self) -> ModelSpec:
        """The base it was trained on: of the commit, and in the precision, that were found when it began."""
        started, model = self.progress().started, self.pinned.model
        return model.model_copy(update={"dtype": started.dtype}) if started else model

    # events

    def append(self, event: TrainingEvent) -> None:
        """Add one line to `events.jsonl`. A line torn by the death of a process is closed first."""
        line = event.model_dump_json().encode() + b"\n"
        with open(self.events_path, "ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)

    def events(self) -> Iterator[TrainingEvent]:
        """Every event up to now, in order; torn or unknown lines are passed over."""
        return iter(log_of(self.events_path).events())

    def roll_back(self, stage: int) -> None:
        """Make the result what it was at the end of a stage (counted from 0). Every stage's result is kept, so this
        goes forward again as well.

        Raises:
            UserError: the run is training, or has no result of that stage.
        """
        self.check_whole()
        done = self._step_of_stage(stage)
        if self.status != "finished":
            raise UserError(f"Run {self.id} is {self.status}. Only a finished run can be rolled back: resume it first.")
        forget_report(self.path)
        with replacing(self.adapter_path) as temporary:
            shutil.copytree(self.stage_path(stage), temporary, dirs_exist_ok=True)
        self.append(RolledBack(step=done, stage=stage))

    def _step_of_stage(self, stage: int) -> int:
        """The step at which a stage whose result is kept ended."""
        done = {event.stage: event.step for event in self.progress().stages}
        kept = [number for number in done if self.stage_path(number).is_dir()]
        if stage not in kept:
            there = ", ".join(str(number + 1) for number in kept) or "none"
            raise UserError(
                f"Run {self.id} keeps no result of stage {stage + 1}; it keeps: {there}. Only runs with several stages "
                "keep one for each."
            )
        return done[stage]

    def check_base(self, repo_id: str, sha256: str) -> None:
        """Refuse a base with other weights than the one this run was trained on.

        Raises:
            UserError: with both hashes.
        """
        started, model = self.progress().started, self.config.model
        if started and started.base_sha256 != sha256:
            of_hub = "/" in model.repo_id and model.local_path is None
            unknown = " It did not record of which commit they were." if of_hub and not started.base_revision else ""
            raise UserError(
                f"Run {self.id} was trained on other weights than '{repo_id}' has now (sha256 "
                f"{started.base_sha256[:12]}… then, {sha256[:12]}… now).{unknown} Bring the old weights back, or train "
                "again."
            )

    @property
    def lineage(self) -> list[str]:
        """Ids of the runs this one started from, the nearest first."""
        ids: list[str] = []
        run = self
        while run.readable and (before := run.config.start_from) and before not in ids:
            ids.append(before)
            run = run.beside(before)
        return ids

    def beside(self, identity: str) -> Run:
        """Another run of the same root, also one that is deleted."""
        root = self.root.parent if self.root.name == DELETED else self.root
        here = root / identity
        return Run(here if here.is_dir() else root / DELETED / identity)

    @property
    def status(self) -> Status:
        return self.progress().status

    @property
    def has_adapter(self) -> bool:
        return any((self.path / folder).is_dir() for folder in ("adapter", "model"))

    def check_result(self) -> None:
        """Refuse a run that has no result.

        Raises:
            UserError: with how far it is.
        """
        if not self.path.is_dir():
            raise UserError(f"Run {self.id} is not there any more: it was deleted. Choose another one, or restore it.")
        if not self.has_adapter:
            raise UserError(
                f"Run {self.id} has no adapter yet ({self.progress().message}). Choose a finished or stopped run."
            )

    def check_whole(self) -> None:
        """Refuse what is only a step of a run (`at`): a whole run is measured, exported and trained.

        Raises:
            UserError: with what to do.
        """

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """The steps whose results were kept (`TrainConfig.keep_adapters`), in their order."""
        counts = {event.step for event in self.progress().evaluations}
        return tuple(sorted(step for step in counts if self.step_path(step).is_dir()))

    def at(self, step: int) -> Run:
        """The run as it was at an evaluation whose result was kept: it can be asked as a run can.

        Raises:
            UserError: none was kept at this step.
        """
        if step not in self.kept_steps:
            kept = ", ".join(map(str, self.kept_steps))
            advice = f"Kept are: {kept}." if kept else "None is: train with keep_adapters (--keep-adapters)."
            raise UserError(f"Run {self.id} keeps no result of step {step}. {advice}")
        return _AtStep(self.path, step)

    def at_stage(self, stage: int) -> Run:
        """The run as it was at the end of a stage (counted from 0): it can be asked as a run can.

        Raises:
            UserError: the result of this stage is not kept.
        """
        self._step_of_stage(stage)
        return _AtStage(self.path, stage)

    @property
    def stage(self) -> int:
        """The stage, counted from 0, that its result comes from."""
        return self.progress().stage

    @property
    def can_resume(self) -> bool:
        """Whether training can go on where it ended."""
        return self.status in RESUMABLE

    def progress(self) -> Progress:
        """Where the run stands."""
        if not self.readable:
            try:
                _ = self.config
            except UserError as error:
                return Progress("unreadable", str(error))
        known = log_of(self.events_path).summary()
        started, steps, ending = known.started, known.steps, known.ending
        status, message = self._status(ending, known.last, steps)
        if isinstance(ending, Finished) and status == "finished" and not self.imported_from:
            message = how_it_finished(ending, started, known.stages)
        step = ending.step if isinstance(ending, RolledBack) else steps[-1].step if steps else 0
        return Progress(
            status=status,
            message=message,
            step=step,
            steps_total=started.steps_total if started else None,
            started=started,
            steps=steps,
            evaluations=known.evaluations,
            stages=known.stages,
            ending=ending,
            notices=known.notices,
        )

    def _status(
        self, ending: Finished | Stopped | Failed | RolledBack | None, last: TrainingEvent | None, steps: list[StepDone]
    ) -> tuple[Status, str]:
        if self.is_alive:
            if isinstance(last, Preparing):
                return "running", last.message
            return "running", f"step {steps[-1].step}" if steps else "starting"
        if (self.path / "queued").exists():
            return "queued", "waiting for its turn"
        if isinstance(ending, Finished):
            origin = self.imported_from
            return "finished", f"imported from {origin}" if origin else f"finished after {ending.step} steps"
        if isinstance(ending, RolledBack):
            return "finished", f"rolled back to the end of stage {ending.stage + 1} (step {ending.step})"
        if isinstance(ending, Stopped) and self.is_paused:
            return "paused", f"paused at step {ending.step}; it keeps its place and goes on when it is resumed"
        if isinstance(ending, Stopped):
            return "stopped", f"stopped at step {ending.step}: {ending.reason}"
        if isinstance(ending, Failed):
            return "failed", ending.message
        if last is None:
            return "queued", "not started"
        if shutil.disk_usage(self.path).free < FULL_DISK_BYTES:  # its process had no room to say so
            return "lost", "the disk is full: free some space, then resume it to go on from its last checkpoint"
        known = evidence(self.path).words or "the process that trained it is gone"
        return "lost", f"{known}; resume it to go on from its last checkpoint"


class _Part(Run):
    """A run as it was at some time. It answers; what is measured, exported and written is the whole run's."""

    when: str  # 'step 40'

    @property
    def name(self) -> str:
        return f"{super().name} at {self.when}"

    @property
    def has_adapter(self) -> bool:
        return self.adapter_path.is_dir()  # while the run trains on, too

    def append(self, event: TrainingEvent) -> None:
        self.check_whole()

    def check_whole(self) -> None:
        raise UserError(
            f"{self.path.name} at {self.when} is a {self.when.split()[0]} of a run, which can only be asked. Make an "
            "adapter a run of its own, and take that: `tunelab import FOLDER --model MODEL`. FOLDER is the run's "
            f"{self.adapter_path.relative_to(self.path)}."
        )


@lru_cache(maxsize=256)
def _read_config(path: Path, _version: tuple[int, int, int]) -> tuple[RunConfig, str | None]:
    """What `config.json` says, and where the adapter was made; a file that is unchanged is read once in a process."""
    from tunelab.config import RunConfig

    content = json.loads(path.read_text(encoding="utf-8"))
    version = content["format"]
    if version != FORMAT:
        raise UserError(
            f"Run {path.parent.name} has format {version}; this version of tunelab reads format {FORMAT}. "
            "Open it with the version that wrote it, or train again."
        )
    return RunConfig.model_validate(content["config"]), content.get("imported_from")


class _AtStep(_Part):
    """A run as it was at a kept step."""

    def __init__(self, path: Path, step: int) -> None:
        super().__init__(path)
        self.step, self.when = step, f"step {step}"

    @property
    def id(self) -> str:
        return f"{self.path.name}@{self.step}"

    @property
    def adapter_path(self) -> Path:
        return self.step_path(self.step)

    @property
    def stage(self) -> int:
        return next((e.stage for e in self.progress().evaluations if e.step == self.step), super().stage)


class _AtStage(_Part):
    """A run as it was at the end of a stage."""

    def __init__(self, path: Path, stage: int) -> None:
        super().__init__(path)
        self._stage, self.when = stage, f"stage {stage + 1}"

    @property
    def id(self) -> str:
        return f"{self.path.name}@stage{self._stage + 1}"

    @property
    def adapter_path(self) -> Path:
        return self.stage_path(self._stage)

    @property
    def stage(self) -> int:
        return self._stage


def _with_absolute_files(stage: Stage) -> Stage:
    from tunelab.data.split import absolute

    replay = absolute(stage.replay) if stage.replay else None
    return stage.model_copy(update={"data": absolute(stage.data), "replay": replay})


def list_runs(root: str | Path | None = None) -> list[Run]:
    """Every run under the runs root, the newest first."""
    folder = runs_root(root)
    if not folder.is_dir():
        return []
    made = [(p.name[:SECOND], written, p) for p in folder.iterdir() if p.name[0] != "." and (written := _written(p))]
    # ids tell the second; of one second the one written later is the newer
    return [Run(path) for *_moment, path in sorted(made, reverse=True)]


def _written(path: Path) -> int:
    """When the run in this directory was written down, ns; 0 where none is."""
    config = path / "config.json"
    try:
        return max(config.stat().st_mtime_ns, 1) if config.is_file() else 0
    except FileNotFoundError:  # deleted meanwhile
        return 0
