"""`RunConfig`: a model, a technique and stages, everything needed to repeat a run.

The one place where the specs and the techniques meet. Nothing here imports torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, model_validator

from tunelab.errors import UserError
from tunelab.spec import ModelSpec, Spec, Stage
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
            raise UserError(f"{path} is not valid YAML or JSON: {error}") from None
        if not isinstance(values, dict):
            raise UserError(f"{path} holds no mapping. A RunConfig has the keys model, technique and stages.")
        return cls.model_validate(values)


def _kinds(config: RunConfig) -> dict[str, Any]:
    technique = config.technique.model_dump(mode="json", exclude_defaults=True)
    return {"technique": {"kind": config.technique.kind, **technique}}
