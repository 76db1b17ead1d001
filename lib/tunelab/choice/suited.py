"""What is known of a model for some rows, and of all of them together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunelab.choice.ahead import Ahead
    from tunelab.choice.measuring import Knows, Split


@dataclass(frozen=True)
class Suited:
    """One model, and all that is known of it for these rows."""

    repo_id: str
    name: str
    origin: str | None  # where it lies on this machine; None: it does not
    parameters: int | None  # millions
    kind: str  # 'instruct', 'base', or '' where it is not known
    licence: str
    languages: str
    context: int | None
    gated: bool
    ahead: Ahead
    split: Split | None = None
    knows: Knows | None = None
    note: str = ""  # why it was not measured

    @property
    def facts(self) -> dict[str, Any]:
        """Everything as JSON holds it."""
        split, knows = self.split, self.knows
        told: dict[str, Any] = {}
        if split:
            told |= {"tokens_per_row": split.tokens_per_row, "share_of_rows_that_fit": split.share_fitting}
        if knows:
            told |= {"bits_per_byte": knows.bits_per_byte, "bits_per_byte_after_probe": knows.probed_bits_per_byte}
        plain = {name: value for name, value in vars(self).items() if name not in ("ahead", "split", "knows")}
        return plain | asdict(self.ahead) | told


@dataclass(frozen=True)
class Choice:
    """The models for some rows, those at hand first, and which to begin with."""

    models: tuple[Suited, ...]
    recommendation: str
    measured_rows: int  # over which bits a byte are; 0 where nothing was measured
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> str | None:
        """The id of the model that is recommended; None where none is at hand."""
        return next((one.repo_id for one in self.models if one.origin), None)

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON holds it."""
        return {
            "recommendation": self.recommendation,
            "measured_rows": self.measured_rows,
            "models": [one.facts for one in self.models],
            "notes": list(self.notes),
        }
