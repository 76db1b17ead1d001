"""The base class of every configuration object."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Frozen, and an unknown field is an error: what a run shows is what it was given."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
