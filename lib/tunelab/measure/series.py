"""A series of runs that are compared: trained and measured one after the other, on the same rows.

    Series (a directory) ──> climb.py trains and measures its runs
      the configuration, and which run is which;  results.json;  reports/NAME.json

Where each stands follows from its run and its report alone. A ladder is a series of techniques, a sweep one of seeds
and settings.
"""

from __future__ import annotations

import itertools
import json
import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import Field, ValidationError

from tunelab.config import RunConfig
from tunelab.errors import UserError, explain
from tunelab.machine.files import write_atomically
from tunelab.run.events import Finished
from tunelab.run.heartbeat import Beating
from tunelab.run.reports import Report, read_report
from tunelab.run.run import Run, runs_root
from tunelab.spec import DataSpec, Spec

FORMAT = 1
RESULTS_FILE = "results.json"


class SeriesConfig(Spec):
    """How the runs of a series are measured."""

    rows: int = Field(100, ge=2, description="Held-out rows every run is measured on.")
    instructions: int = Field(60, ge=2, le=60, description="General instructions that forgetting is measured on.")
    max_new_tokens: int = Field(64, ge=1, le=4096, description="Longest answer, in tokens, when answers are scored.")

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """Of its runs, in their order."""

    @property
    @abstractmethod
    def rows_of(self) -> Sequence[DataSpec]:
        """The data of every stage."""

    @abstractmethod
    def run_config(self, name: str) -> RunConfig:
        """The run of that name.

        Raises:
            pydantic.ValidationError: it can't be.
        """

    @abstractmethod
    def with_rows(self, rows: Sequence[DataSpec]) -> Self:
        """The same on other data, of each stage."""

    @abstractmethod
    def title(self, name: str) -> tuple[str, str]:
        """A run for people, and its base's precision."""


C = TypeVar("C", bound=SeriesConfig)


@dataclass(frozen=True)
class Rung:
    """One line of the table. Figures are None until they are there."""

    name: str
    title: str
    base: str  # the base's precision, for people
    # waiting, training, measuring, done, stopped, failed; skipped: it can't run on this base; of its run: deleted,
    # unreadable
    status: str
    message: str
    run: str | None = None
    trainable_parameters: int | None = None
    trainable_share: float | None = None
    result_bytes: int | None = None
    peak_memory_bytes: int | None = None
    gpu_peak_memory_bytes: int | None = None
    seconds: float | None = None
    report: Report | None = None


class Series(Beating, Generic[C]):
    """A series' directory. Cheap to make; reads the disk each time it is asked."""

    KIND: ClassVar[str] = "series"
    FILE: ClassVar[str] = "series.json"
    CONFIG: ClassVar[type[SeriesConfig]]

    def __init__(self, path: Path, root: str | Path | None = None) -> None:
        super().__init__(path)
        self.root = runs_root(root)

    @classmethod
    def create(cls, config: C, path: Path | None = None, root: str | Path | None = None) -> Self:
        """A new one, or the one that stands in `path` already with the same configuration.

        Raises:
            UserError: another one stands there.
        """
        path = path or _fresh(cls.folder(root))
        series = cls(Path(path).expanduser().resolve(), root)
        config = _with_absolute_files(config)
        if (series.path / cls.FILE).is_file():
            if _with_absolute_files(series.config) != config:
                raise UserError(
                    f"{path} holds a {cls.KIND} with other settings. Give another --out, or the same data, settings, "
                    "steps and seeds to go on with it."
                )
            return series
        series.path.mkdir(parents=True, exist_ok=True)
        write_atomically(series.path / RESULTS_FILE, "{}")
        text = {"format": FORMAT, "config": config.model_dump(mode="json"), "rungs": {}}
        write_atomically(series.path / cls.FILE, json.dumps(text, ensure_ascii=False, indent=1))
        return series

    @classmethod
    def folder(cls, root: str | Path | None = None) -> Path:
        """Where they live unless they are given a directory: beside the runs."""
        return runs_root(root) / f"{cls.KIND}s"

    @classmethod
    def every(cls, root: str | Path | None = None) -> list[Self]:
        """Every one under the runs root that this version can read, the newest first."""
        folder = cls.folder(root)
        if not folder.is_dir():
            return []
        found = [cls(p, root) for p in sorted(folder.iterdir(), reverse=True) if (p / cls.FILE).is_file()]
        return [one for one in found if one.readable]

    @property
    def id(self) -> str:
        return self.path.name

    @cached_property
    def config(self) -> C:
        """Its configuration.

        Raises:
            UserError: it was written by another version, or is damaged.
        """
        try:
            content = self._content()
            if content["format"] != FORMAT:
                raise UserError(f"{self.shown} has format {content['format']}; this version reads {FORMAT}.")
            return self.CONFIG.model_validate(content["config"])  # type: ignore[return-value]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = explain(error) if isinstance(error, ValidationError) else str(error)
            raise UserError(f"{self.shown} can't be read: {reason}") from None

    @property
    def shown(self) -> str:
        return f"{self.KIND.capitalize()} {self.id}"

    @property
    def readable(self) -> bool:
        try:
            return self.config is not None
        except UserError:
            return False

    def _content(self) -> dict[str, Any]:
        return json.loads((self.path / self.FILE).read_text(encoding="utf-8"))

    def rungs(self) -> list[Rung]:
        """Where every rung stands."""
        return [self.rung(name) for name in self.config.names]

    def report_path(self, rung: str) -> Path:
        """Where a rung's report is kept: its run may be measured otherwise, elsewhere."""
        return self.path / "reports" / f"{rung}.json"

    def pin_data(self) -> None:
        """Note which rows it is about; all its runs are trained and measured on them.

        Raises:
            UserError: they are not the ones it began with, or can't be read.
        """
        from tunelab.data import read_data

        specs = self.config.rows_of
        sha256 = ",".join(read_data(data).sha256 for data in specs)
        content = self._content()
        if content.setdefault("data_sha256", sha256) != sha256:
            titles = ", ".join(data.title for data in specs)
            raise UserError(
                f"The data of {self.KIND} {self.id} ({titles}) has changed since it began, so its "
                f"{'rungs' if self.KIND == 'ladder' else 'runs'} would not be comparable. Bring the old rows back, or "
                f"start a new {self.KIND} with another --out."
            )
        write_atomically(self.path / self.FILE, json.dumps(content, ensure_ascii=False, indent=1))

    def signature(self) -> list[Any]:
        """What its table depends on, cheap to read: when it is as before, nothing has changed."""
        known = self._content()["rungs"]
        folders = [self.root / facts["run"] for facts in known.values() if "run" in facts]
        files = [folder / "events.jsonl" for folder in folders] + [self.report_path(name) for name in known]
        return [self.id, self.is_alive, known, [file.stat().st_size if file.is_file() else 0 for file in files]]

    def request_stop(self) -> None:
        """Ask the process that climbs to stop after the step it is in."""
        (self.path / "stop").touch()

    @property
    def stop_requested(self) -> bool:
        return (self.path / "stop").exists()

    def clear_requests(self) -> None:
        (self.path / "stop").unlink(missing_ok=True)

    def remember(self, rung: str, **facts: str) -> None:
        """Note which run a rung is, or why it was skipped."""
        content = self._content()
        content["rungs"][rung] = facts
        write_atomically(self.path / self.FILE, json.dumps(content, ensure_ascii=False, indent=1))

    @property
    def run_ids(self) -> set[str]:
        """Of its runs, as far as they have been made; none where it can't be read."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            return {str(facts["run"]) for facts in self._content()["rungs"].values() if "run" in facts}
        return set()

    def run_of(self, rung: str) -> Run | None:
        """The run of a rung, if it has been made and is still there."""
        identity = self._content()["rungs"].get(rung, {}).get("run")
        run = Run(self.root / identity) if identity else None
        return run if run and run.readable else None

    def rung(self, name: str) -> Rung:
        """Where one rung stands."""
        facts = self._content()["rungs"].get(name, {})
        title, base = self.config.title(name)
        if "skipped" in facts:
            return Rung(name, title, base, "skipped", facts["skipped"])
        run = Run(self.root / facts["run"]) if "run" in facts else None
        if run is None:
            return Rung(name, title, base, "waiting", "")
        if not run.readable:
            lost = "unreadable" if run.path.is_dir() else "deleted"
            return Rung(name, title, base, lost, "restore its run, or go on to train it anew")
        progress = run.progress()
        started, ending = progress.started, progress.ending
        report = read_report(self.report_path(name))
        if report:
            status, message = "done", str(report.verdict)
        elif "failed" in facts:
            status, message = "failed", facts["failed"]
        elif progress.status == "finished":
            status, message = "measuring", "measuring" if self.is_alive else "not measured yet"
        elif progress.status in ("running", "queued") and self.is_alive:
            status, message = "training", progress.message
        else:
            status, message = "stopped", progress.message
        return Rung(
            name,
            title,
            base,
            status,
            message,
            run=run.id,
            trainable_parameters=started.trainable_parameters if started else None,
            trainable_share=started.trainable_parameters / started.total_parameters if started else None,
            result_bytes=weight_bytes(run.adapter_path) if run.has_adapter else None,
            peak_memory_bytes=ending.peak_memory_bytes if isinstance(ending, Finished) else None,
            gpu_peak_memory_bytes=ending.gpu_peak_memory_bytes if isinstance(ending, Finished) else None,
            seconds=sum(step.seconds for step in progress.steps) or None,
            report=report,
        )


def _fresh(folder: Path) -> Path:
    """A new directory in the folder, named by the time; two that begin in the same second are two."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        path = folder / (stamp if number == 1 else f"{stamp}-{number}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("there is always another number")


def _with_absolute_files(config: C) -> C:
    from tunelab.data.split import absolute

    return config.with_rows([absolute(data) for data in config.rows_of])


def weight_bytes(folder: Path) -> int:
    """Size of the weights in a result's folder."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
