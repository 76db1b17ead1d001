"""In what runs differ, and a run once more with other settings.

    config_diff(a, b, …) ──> the fields that are not the same in all, each with its value in every run
    again(run, steps=500, r=32) ──> RunConfig

A field is called as its flag is on the command line; in runs of several stages those of a stage say of which.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from tunelab.config import Changes, RunConfig, changed
from tunelab.errors import UserError, listed
from tunelab.spec import DataSpec, ModelSpec, Stage, TrainConfig
from tunelab.techniques import TECHNIQUES, Technique

if TYPE_CHECKING:
    from tunelab.run.run import Run

TITLES = {"repo_id": "model", "source": "data", "kind": "technique"}  # as the flags call them
DATA_TITLES = {"seed": "split_seed"}  # the training has one of its own
ABSENT = "–"  # the run has no such field: its technique, or its number of stages, is another one
ROWS = ("rows", "heldout_rows")


@dataclass(frozen=True)
class Difference:
    """A field that is not the same in all runs that were compared."""

    field: str
    values: tuple[str, ...]  # of each run, in words

    @property
    def a(self) -> str:
        return self.values[0]

    @property
    def b(self) -> str:
        return self.values[1]


def config_diff(*configs: RunConfig) -> list[Difference]:
    """The fields in which two or more configurations differ, 'auto' told with what it comes to."""
    flat = [dict(_flat(config, several=any(len(one.stages) > 1 for one in configs))) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one)
    found = []
    for name in names:
        values = [one.get(name, (ABSENT, ABSENT)) for one in flat]
        if any(known != values[0][0] for known, _shown in values):
            found.append(Difference(name, tuple(shown for _known, shown in values)))
    return found


def again(run: Run, **changes: Any) -> RunConfig:
    """The settings of a run with these in place of its own, each by its name: of the run, the model, the technique, or,
    for all stages, of data and training; `technique` and `model` as on the command line.

    Raises:
        UserError: there is no such setting, or the adapter was made elsewhere.
        pydantic.ValidationError: a value is wrong.
    """
    if run.imported_from:
        raise UserError(f"Run {run.id} was made elsewhere, so how it was trained is not known. Describe a new one.")
    config = run.pinned.model_copy(update={"name": run.given_name})
    asked = changes.get("technique", config.technique)
    technique = type(asked) if isinstance(asked, Technique) else TECHNIQUES.get(str(asked), type(config.technique))
    homes: dict[str, Any] = {
        "run": ("name", "start_from"),
        "model": ModelSpec.model_fields,
        "technique": technique.model_fields,
        "training": TrainConfig.model_fields,
        "data": DataSpec.model_fields,
        "stage": [name for name in Stage.model_fields if name not in ("data", "training", "name")],
    }
    sorted_in: dict[str, dict[str, Any]] = {field.name: {} for field in fields(Changes)}
    originals = {title: name for name, title in TITLES.items()}
    for given, value in changes.items():
        if isinstance(value, Technique):
            sorted_in["technique"] |= value.model_dump()
            continue
        name = originals.get(given, given)
        home = next((home for home, names in homes.items() if name in names), None)
        if home is None:
            raise UserError(f"{given}: {technique.title} has no such setting. {_known(homes)}")
        sorted_in[home][name] = value
    if {"source", "rows"} & sorted_in["data"].keys() and len(config.stages) > 1:
        raise UserError(f"data: run {run.id} has {len(config.stages)} stages, each with rows of its own. Leave it out.")
    data = sorted_in["data"]
    if "source" in data:  # rows in memory give way to what is named
        data.setdefault("rows", None)
    if "heldout" in data:
        data.setdefault("heldout_rows", None)
    return changed(config, Changes(**sorted_in))


def _known(homes: dict[str, Any]) -> str:
    return f"There are: {listed([*homes['training'], *homes['technique']], 30)}, and those of model and data."


def _flat(config: RunConfig, several: bool) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Each field by its name, with its value and what it is in words."""
    yield from _fields(config, ("name", "start_from"))
    yield from _fields(config.model)
    yield from _fields(config.technique)
    for number, stage in enumerate(config.stages, 1):
        where = f"stage {number}: " if several else ""
        of_stage = dict(_fields(stage, ("name", "learn", "replay") if several else ("learn", "replay")))
        of_stage |= {DATA_TITLES.get(name, name): known for name, known in _fields(stage.data)}
        of_stage |= dict(_fields(stage.training)) | _settled(config, stage)
        yield from ((f"{where}{name}", known) for name, known in of_stage.items())


def _settled(config: RunConfig, stage: Stage) -> dict[str, tuple[Any, str]]:
    """What is 'auto' in a stage's training, by what it comes to where that follows from the configuration."""
    training = stage.training
    comes_to = {"learning_rate": config.technique.default_learning_rate, "warmup_steps": training.resolved_warmup_steps}
    return {name: (value, f"{value:g} (auto)") for name, value in comes_to.items() if getattr(training, name) == "auto"}


def _fields(spec: Any, names: Any = None) -> Iterator[tuple[str, tuple[Any, str]]]:
    for name in names or type(spec).model_fields:
        value = getattr(spec, name)
        yield TITLES.get(name, name), (value, _shown(name, value))


def _shown(name: str, value: Any) -> str:
    """A value in a table: rows in memory counted, nothing longer than a line."""
    if name in ROWS and value is not None:
        return f"{len(value):,} rows in memory"
    if isinstance(value, DataSpec):
        return value.title
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
