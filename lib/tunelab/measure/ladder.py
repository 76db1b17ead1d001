"""The method ladder: every technique on the same rows, seed and budget.

    LadderConfig ──> Ladder (a directory) ──> climb.py trains and measures its rungs, pages.py shows them
                       ladder.json   the configuration, and which rung is which run

A rung is a technique on a base. Where each stands follows from its run and its report alone.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tunelab.config import RunConfig
from tunelab.errors import UserError, explain
from tunelab.machine.files import write_atomically
from tunelab.run.events import Finished
from tunelab.run.heartbeat import Beating
from tunelab.run.reports import Report, read_report
from tunelab.run.run import Run, runs_root
from tunelab.spec import DataSpec, ModelSpec, Spec, Stage, TrainConfig
from tunelab.techniques import IA3, BottleneckAdapter, FullFineTuning, LoRA, PrefixTuning, PromptTuning, Technique

FORMAT = 1
LADDER_FILE, RESULTS_FILE, PAGE_FILE = "ladder.json", "results.json", "ladder.html"
# name -> technique, quantisation of its base
RUNGS: dict[str, tuple[Technique, Literal["nf4", "none"]]] = {
    "full": (FullFineTuning(), "none"),
    "lora": (LoRA(), "none"),
    "qlora": (LoRA(), "nf4"),
    # the scale of LoRA r = 16, at four times the rank
    "qrslora": (LoRA(r=64, lora_alpha=16, use_rslora=True), "nf4"),
    "qdora": (LoRA(use_dora=True), "nf4"),
    "bottleneck": (BottleneckAdapter(), "none"),
    "prefix": (PrefixTuning(), "none"),
    "prompt": (PromptTuning(), "none"),
    "ia3": (IA3(), "none"),
}


class LadderConfig(Spec):
    """What all rungs share, and which rungs there are."""

    model: ModelSpec = Field(description="The base; each rung sets its own quantisation.")
    data: DataSpec
    techniques: tuple[str, ...] = Field(tuple(RUNGS), min_length=1, description=f"Rungs: {', '.join(RUNGS)}.")
    steps: int = Field(60, ge=1, description="Optimiser steps of every rung.")
    batch_size: int = Field(8, ge=1, le=1024, description="Rows per step.")
    seed: int = Field(0, ge=0, description="Seed of initialisation and order.")
    rows: int = Field(100, ge=2, description="Held-out rows every rung is measured on.")
    instructions: int = Field(60, ge=2, le=60, description="General instructions that forgetting is measured on.")
    max_new_tokens: int = Field(64, ge=1, le=4096, description="Longest answer, in tokens, when answers are scored.")

    @model_validator(mode="after")
    def _rungs_exist(self) -> Self:
        if unknown := [name for name in self.techniques if name not in RUNGS]:
            raise ValueError(f"there are no techniques {', '.join(unknown)}; allowed: all, {', '.join(RUNGS)}")
        return self

    def run_config(self, rung: str) -> RunConfig:
        """The run of a rung.

        Raises:
            pydantic.ValidationError: the technique can't run on this base.
        """
        technique, quantization = RUNGS[rung]
        model = self.model.model_copy(update={"quantization": quantization})
        training = TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            seed=self.seed,
            # what is measured on the way costs no more than what is measured at the end
            eval_every=max(2, self.steps // 8),
            eval_rows=min(self.rows, TrainConfig().eval_rows),
            # a checkpoint of every weight is 2 GB, so a ladder keeps few
            checkpoint_every=max(20, self.steps // 4),
        )
        return RunConfig(
            name=technique.title_on(model),
            model=model,
            technique=technique,
            stages=(Stage(data=self.data, training=training),),
        )


@dataclass(frozen=True)
class Rung:
    """One line of the table. Figures are None until they are there."""

    name: str
    title: str
    base: str  # the base's precision, for people
    status: str  # waiting, training, measuring, done, stopped; failed; skipped: it can't run on this base
    message: str
    run: str | None = None
    trainable_parameters: int | None = None
    trainable_share: float | None = None
    result_bytes: int | None = None
    peak_memory_bytes: int | None = None
    gpu_peak_memory_bytes: int | None = None
    seconds: float | None = None
    report: Report | None = None


class Ladder(Beating):
    """A ladder's directory. Cheap to make; reads the disk each time it is asked."""

    def __init__(self, path: Path, root: str | Path | None = None) -> None:
        super().__init__(path)
        self.root = runs_root(root)

    @classmethod
    def create(cls, config: LadderConfig, path: Path | None = None, root: str | Path | None = None) -> Ladder:
        """A new ladder, or the one that stands in `path` already with the same configuration.

        Raises:
            UserError: another ladder stands there.
        """
        path = path or ladders_root(root) / time.strftime("%Y%m%d-%H%M%S")
        ladder = cls(Path(path).expanduser().resolve(), root)
        config = _with_absolute_files(config)
        if (ladder.path / LADDER_FILE).is_file():
            if _with_absolute_files(ladder.config) != config:
                raise UserError(
                    f"{path} holds a ladder with other settings. Give another --out, or the same data, techniques, "
                    "steps and seed to go on with it."
                )
            return ladder
        ladder.path.mkdir(parents=True, exist_ok=True)
        write_atomically(ladder.path / RESULTS_FILE, "{}")
        text = {"format": FORMAT, "config": config.model_dump(mode="json"), "rungs": {}}
        write_atomically(ladder.path / LADDER_FILE, json.dumps(text, ensure_ascii=False, indent=1))
        return ladder

    @property
    def id(self) -> str:
        return self.path.name

    @cached_property
    def config(self) -> LadderConfig:
        """The ladder's configuration.

        Raises:
            UserError: it was written by another version, or is damaged.
        """
        try:
            content = self._content()
            if content["format"] != FORMAT:
                raise UserError(f"Ladder {self.id} has format {content['format']}; this version reads {FORMAT}.")
            return LadderConfig.model_validate(content["config"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = explain(error) if isinstance(error, ValidationError) else str(error)
            raise UserError(f"Ladder {self.id} can't be read: {reason}") from None

    @property
    def readable(self) -> bool:
        try:
            return self.config is not None
        except UserError:
            return False

    def _content(self) -> dict[str, Any]:
        return json.loads((self.path / LADDER_FILE).read_text(encoding="utf-8"))

    def rungs(self) -> list[Rung]:
        """Where every rung stands."""
        return [self.rung(name) for name in self.config.techniques]

    def report_path(self, rung: str) -> Path:
        """Where a rung's report is kept: its run may be measured otherwise, elsewhere."""
        return self.path / "reports" / f"{rung}.json"

    def pin_data(self) -> None:
        """Note which rows this ladder is about; all its rungs are trained and measured on them.

        Raises:
            UserError: they are not the ones it began with, or can't be read.
        """
        from tunelab.data import read_data

        sha256 = read_data(self.config.data).sha256
        content = self._content()
        if content.setdefault("data_sha256", sha256) != sha256:
            raise UserError(
                f"The data of ladder {self.id} ({self.config.data.title}) has changed since it began, so its rungs "
                "would not be comparable. Bring the old rows back, or start a new ladder with another --out."
            )
        write_atomically(self.path / LADDER_FILE, json.dumps(content, ensure_ascii=False, indent=1))

    def signature(self) -> list[Any]:
        """What the table depends on, cheap to read: when it is as before, nothing has changed."""
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
        write_atomically(self.path / LADDER_FILE, json.dumps(content, ensure_ascii=False, indent=1))

    def run_of(self, rung: str) -> Run | None:
        """The run of a rung, if it has been made and is still there."""
        identity = self._content()["rungs"].get(rung, {}).get("run")
        run = Run(self.root / identity) if identity else None
        return run if run and run.readable else None

    def rung(self, name: str) -> Rung:
        """Where one rung stands."""
        facts = self._content()["rungs"].get(name, {})
        technique, quantization = RUNGS[name]
        title = technique.title_on(self.config.model.model_copy(update={"quantization": quantization}))
        base = "not quantised" if quantization == "none" else "NF4"
        if "skipped" in facts:
            return Rung(name, title, base, "skipped", facts["skipped"])
        run = Run(self.root / facts["run"]) if "run" in facts else None
        if run is None or not run.readable:
            return Rung(name, title, base, "waiting", "")
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


def _with_absolute_files(config: LadderConfig) -> LadderConfig:
    from tunelab.data.split import absolute

    return config.model_copy(update={"data": absolute(config.data)})


def ladders_root(root: str | Path | None = None) -> Path:
    """Where ladders live unless they are given a directory: beside the runs."""
    return runs_root(root) / "ladders"


def list_ladders(root: str | Path | None = None) -> list[Ladder]:
    """Every ladder under the runs root that this version can read, the newest first."""
    folder = ladders_root(root)
    if not folder.is_dir():
        return []
    ladders = [Ladder(p, root) for p in sorted(folder.iterdir(), reverse=True) if (p / LADDER_FILE).is_file()]
    return [ladder for ladder in ladders if ladder.readable]


def weight_bytes(folder: Path) -> int:
    """Size of the weights in a result's folder."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
