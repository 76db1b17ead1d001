"""Runs for cards, written as training and measuring would write them, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser

from tests.helpers import ROWS
from tunelab import DataSpec, LoRA, ModelSpec, Run, RunConfig, Stage, TrainConfig, read_data
from tunelab.measure.answered import answers_file, write_rows
from tunelab.measure.changes import AnsweredRow
from tunelab.measure.statistics import compared_rates, compared_scores
from tunelab.run.events import Evaluated, Finished, Started, StepDone
from tunelab.run.reports import Baseline, Report

NOWHERE = ModelSpec(repo_id="nobody/has-this", revision="v1")


def made_run(root, *, name="tickets", data=None, stages=None, technique=None, model=NOWHERE) -> Run:
    """A run that has not begun."""
    data = data or DataSpec(rows=ROWS, heldout=4)
    stages = stages or (Stage(data=data, training=TrainConfig(steps=4)),)
    return Run.create(RunConfig(model=model, technique=technique or LoRA(r=4), stages=stages, name=name), root)


def begun(run: Run, *, notes=(), steps: int = 0) -> Run:
    """As it is after so many steps; their loss is 4, 3, 2, …, of 100 tokens and half a second each."""
    splits = [read_data(stage.data, stage.learn) for stage in run.config.stages]
    run.append(
        Started(
            device="cpu", dtype="float32", quantization="none", attention="sdpa", fast=True, threads=2,
            base_sha256="b" * 64, trainable_parameters=100, total_parameters=10_000,
            steps_total=sum(stage.training.steps for stage in run.config.stages),
            learning_rates=(0.25,) * len(splits), train_rows=tuple(len(s.train) for s in splits),
            heldout_rows=tuple(len(s.heldout) for s in splits), data_sha256=tuple(s.sha256 for s in splits),
            columns=tuple(s.columns for s in splits), forecast_bytes=2_000_000_000, forecast_seconds=30, notes=notes,
        )
    )  # fmt: skip
    for step in range(1, steps + 1):
        run.append(
            StepDone(step=step, stage=0, loss=5 - step, scored_tokens=50, tokens=100, seconds=0.5, gradient_norm=1,
                     learning_rate=0.25 / step)
        )  # fmt: skip
    return run


def finished(run: Run, *, notes=()) -> Run:
    """As it is after four steps and its end, with a result of 1,000 bytes."""
    begun(run, notes=notes, steps=4)
    run.append(
        Evaluated(step=4, stage=0, heldout_loss=1.5, base_loss=4.5, rows=4, scored_tokens=40, seconds=2, best=True)
    )
    run.append(Finished(step=4, seconds=12, heldout_loss=1.5, adapter="adapter", peak_memory_bytes=1_500_000_000))
    run.adapter_path.mkdir()
    (run.adapter_path / "adapter_model.safetensors").write_bytes(bytes(1000))
    return run


def measured(run: Run, rows: Sequence[AnsweredRow], **more) -> Report:
    """Its report on these rows by the metric `points`, and the rows beside it."""
    before, after = ([side["points"] for side in each] for each in zip(*_scores(rows), strict=True))
    main = compared_scores(before, after).model_copy(update={"title": "points won", "unit": "points"})
    loss = compared_rates([3.0 + i % 2 for i in range(len(rows))], [2.0] * len(rows), [1] * len(rows))
    loss = loss.model_copy(update={"higher_is_better": False})
    others = {name: [row.other_scores[name]["points"] for row in rows] for name in rows[0].others}
    report = Report(
        rows=len(rows), heldout_loss=loss, metrics={"points": main}, main_metric="points", general_loss=loss,
        probe_rows=7, seconds=90, answers_file=answers_file(None, rows),
        baselines=tuple(Baseline(name=n, metrics={"points": compared_scores(s, after)}) for n, s in others.items()),
        sentence="better: +31 points won, 95 % interval 25 to 37, 300 rows, one run",
    ).model_copy(update=more)  # fmt: skip
    report.write(run.path / "report.json")
    write_rows(rows, run.path / str(report.answers_file))
    return report


def _scores(rows):
    return [(row.base_scores, row.tuned_scores) for row in rows]


class Read(HTMLParser):
    """A page as a browser reads it: elements with their attributes, headings, and the texts between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside: list[str] = []
        self.styles = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, text: str) -> None:
        if self._inside and self._inside[-1] == "style":
            self.styles += text
        elif text.strip():
            self.texts.append(" ".join(text.split()))

    @property
    def names(self) -> list[str]:
        return [name for name, _attributes in self.elements]

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def every(self, attribute: str) -> list[str | None]:
        return [attributes[attribute] for _name, attributes in self.elements if attribute in attributes]
