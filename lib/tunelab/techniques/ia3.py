"""IA³: learned factors on what attention and MLP pass on, the smallest adapter there is.

Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", section 3.3:
keys and values are multiplied by l_k and l_v (out,), the input of the MLP's last layer by l_ff (in,); all start at one,
so that the first output is the base's. It can only make louder or softer what the base already computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from tunelab.errors import UserError
from tunelab.techniques.base import PeftTechnique, Several, adapter_file, linear_layers, several

if TYPE_CHECKING:
    from pathlib import Path

    from tunelab.model.load import Base


class IA3(PeftTechnique):
    """One factor per key, value and MLP channel: some ten thousand parameters. Merges without a cost at inference."""

    kind: Literal["ia3"] = "ia3"
    scaled_modules: Several[str] = Field(
        ("k_proj", "v_proj"), description="Linear layers whose output is scaled: those that make keys and values."
    )
    scaled_inputs: tuple[str, ...] = Field(
        ("down_proj",), description="Linear layers whose input is scaled: the last one of the MLP."
    )

    _one_of_several = field_validator("scaled_modules", "scaled_inputs", mode="before")(several)

    title: ClassVar[str] = "IA³"
    summary: ClassVar[str] = "One learned factor per channel: tiny files, little change, needs a high learning rate."
    default_learning_rate: ClassVar[float] = 2e-2

    def changes_nothing(self, folder: Path) -> bool:
        from safetensors.torch import load_file

        return all(bool((factor == 1).all()) for factor in load_file(adapter_file(folder)).values())

    def peft_config(self, base: Base) -> Any:
        from peft import IA3Config

        names = {name.rpartition(".")[2] for name in linear_layers(base.model)}
        wanted = [*self.scaled_modules, *self.scaled_inputs]
        if unknown := sorted(set(wanted) - names):
            raise UserError(
                f"scaled_modules, scaled_inputs = {', '.join(unknown)}: this model has no such linear layers. It has "
                f"{', '.join(sorted(names))}."
            )
        return IA3Config(task_type="CAUSAL_LM", target_modules=wanted, feedforward_modules=list(self.scaled_inputs))
