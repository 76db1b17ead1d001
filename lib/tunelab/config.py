"""`RunConfig`: a model, a technique and stages, everything needed to repeat a run.

The one place where the specs and the techniques meet. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, model_validator

from tunelab.errors import UserError
from tunelab.spec import DataSpec, ModelSpec, Spec, Stage, TrainConfig
from tunelab.techniques import AnyTechnique


class RunConfig(Spec):
    """Everything needed to repeat a run."""

    model: ModelSpec
    technique: Annotated[AnyTechnique, Field(discriminator="kind")]
    stages: tuple[Stage, ...] = Field(min_length=1)
    name: str | None = Field(None, max_length=60, description="A name to recognise the run by.")
    start_from: str | None = Field(
        None,
        description="Id of a run of the same technique and base whose result this one starts from. None: a fresh one.",
    )

    @model_validator(mode="after")
    def _technique_fits(self) -> Self:
        self.technique.check(self.model)
        for stage in self.stages:
            self.technique.check_training(stage.training)
        return self

    @property
    def method(self) -> str:
        """The technique as people call it: LoRA on a quantised base is QLoRA."""
        return self.technique.title_on(self.model)

    def to_yaml(self) -> str:
        """The configuration as YAML, without the fields left at their defaults."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True) | _kinds(self), sort_keys=False)

    @classmethod
    def from_file(cls, path: str | Path) -> RunConfig:
        """Read a configuration from a `.json`, `.yaml` or `.yml` file.

        Raises:
            UserError: the file is missing, is not JSON/YAML, or holds no mapping.
            pydantic.ValidationError: a field is wrong (`errors.explain` puts it into words).
        """
        path = Path(path)
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
        except FileNotFoundError:
            raise UserError(f"There is no file {path}. Give a RunConfig as .yaml or .json.") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not valid YAML or JSON: {' '.join(str(error).split())}") from None
        if not isinstance(values, dict):
            raise UserError(f"{path} holds no mapping. A RunConfig has the keys model, technique and stages.")
        return cls.model_validate(values)


@dataclass(frozen=True)
class Changes:
    """Settings that shall be otherwise, by name; what is not named stays."""

    run: dict[str, Any] = field(default_factory=dict)  # name, start_from
    model: dict[str, Any] = field(default_factory=dict)
    technique: dict[str, Any] = field(default_factory=dict)  # another `kind` begins at its own defaults
    stage: dict[str, Any] = field(default_factory=dict)  # learn, replay: of every stage, as the two below
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def changed(config: RunConfig, changes: Changes) -> RunConfig:
    """The configuration with these changes.

    Raises:
        pydantic.ValidationError: a setting is wrong, or the technique does not have it.
    """
    values = config.model_dump() | changes.run
    values["model"] |= changes.model
    if changes.technique.get("kind", config.technique.kind) != config.technique.kind:
        values["technique"] = {}
    values["technique"] |= changes.technique
    for stage in values["stages"]:
        stage |= changes.stage
        stage["data"] |= changes.data
        stage["training"] |= changes.training
    return RunConfig.model_validate(values)


def differences(before: RunConfig, after: RunConfig) -> list[str]:
    """What is otherwise in a configuration of as many stages, a line each: 'steps: 60 → 500'."""
    there, here = before.stages, after.stages
    return [
        *_changes(("name", "start_from"), [before], [after]),
        *_changes(ModelSpec.model_fields, [before.model], [after.model]),
        *_changes_of_technique(before.technique, after.technique),
        *_changes(("learn", "replay"), there, here),
        *_changes(DataSpec.model_fields, [stage.data for stage in there], [stage.data for stage in here]),
        *_changes(TrainConfig.model_fields, [stage.training for stage in there], [stage.training for stage in here]),
    ]


def _changes_of_technique(before: AnyTechnique, after: AnyTechnique) -> list[str]:
    if before.kind == after.kind:
        return _changes(type(after).model_fields, [before], [after])
    given = [f"{name} {_shown(getattr(after, name))}" for name in _given(after)]
    gone = f"; {', '.join(_given(before))} of {before.kind} no longer apply" if _given(before) else ""
    return [f"technique: {before.kind} → {' '.join([after.kind, *given])}{gone}"]


def _given(technique: AnyTechnique) -> list[str]:
    return [name for name in type(technique).model_fields if name in technique.model_fields_set and name != "kind"]


def _changes(names: Iterable[str], before: Sequence[Any], after: Sequence[Any]) -> list[str]:
    """A line for each setting that differs, with what it was in the run, or in each stage, and what it is now."""
    lines = []
    for name in names:
        there, here = ([getattr(one, name) for one in side] for side in (before, after))
        if there != here:
            title = {"repo_id": "model", "source": "data"}.get(name, name)
            where = f" in all {len(here)} stages" if len(here) > 1 else ""
            lines.append(f"{title}: {', '.join(map(_shown, there))} → {_shown(here[0])}{where}")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, DataSpec):
        return value.title
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, tuple) and value and isinstance(value[0], dict):
        return f"{len(value)} rows in memory"
    return "none" if value is None else str(value)


def _kinds(config: RunConfig) -> dict[str, Any]:
    technique = config.technique.model_dump(mode="json", exclude_defaults=True)
    return {"technique": {"kind": config.technique.kind, **technique}}
