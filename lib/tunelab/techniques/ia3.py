"""IA³: learned factors on what attention and MLP pass on, a very small adapter.

Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", section 3.3:
keys and values are multiplied by l_k and l_v (out,), the input of the MLP's last layer by l_ff (in,); all start at one,
so that the first output is the base's. It can only make louder or softer what the base already computes.

Which layers those are is found by their names (`places.py`). Where one layer makes queries, keys and values at once,
all of what it gives is scaled: the queries' factors do nothing that the keys' could not (their product is what counts).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from tunelab.errors import UserError
from tunelab.techniques import places
from tunelab.techniques.base import PeftTechnique, Several, adapter_file, several

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from tunelab.model.load import Base


class IA3(PeftTechnique):
    """One factor per key, value and MLP channel: some ten thousand parameters. Merges without a cost at inference."""

    kind: Literal["ia3"] = "ia3"
    scaled_modules: Several[str] | Literal["auto"] = Field(
        "auto", description="Linear layers whose output is scaled. 'auto': those that make keys and values."
    )
    scaled_inputs: tuple[str, ...] | Literal["auto"] = Field(
        "auto", description="Linear layers whose input is scaled. 'auto': the last one of each MLP."
    )

    _one_of_several = field_validator("scaled_modules", "scaled_inputs", mode="before")(several)

    title: ClassVar[str] = "IA³"
    summary: ClassVar[str] = "One learned factor per channel: tiny files, little change, needs a high learning rate."
    default_learning_rate: ClassVar[float] = 2e-2
    strength_refusal: ClassVar[str] = "it multiplies channels, and adds nothing that could count more or less"

    def changes_nothing(self, folder: Path) -> bool:
        from safetensors.torch import load_file

        return all(bool((factor == 1).all()) for factor in load_file(adapter_file(folder)).values())

    def notes(self, base: Base) -> list[str]:
        every = places.linear_layers(base.model)
        notes = []
        if self.scaled_modules == "auto" and (fused := places.fused_qkv(every)):
            names = ", ".join(sorted({places.last_name(name) for name in fused}))
            notes.append(f"IA³: {names} makes queries, keys and values in one, so the queries are scaled as well")
        if self.scaled_inputs == "auto":
            notes += places.note_on_experts(base, "IA³ does not scale their inputs")
        return notes

    def peft_config(self, base: Base) -> Any:
        from peft import IA3Config

        every = places.linear_layers(base.model)
        outputs, inputs = self._outputs(base, every), self._inputs(base, every)
        scaled = places.named(every, [*outputs, *inputs])
        return IA3Config(
            task_type="CAUSAL_LM",
            target_modules=[*outputs, *inputs],
            feedforward_modules=inputs,
            fan_in_fan_out=any(places.is_conv1d(every[name]) for name in scaled),
        )

    def _outputs(self, base: Base, every: dict[str, nn.Module]) -> list[str]:
        """Targets whose output is scaled."""
        if self.scaled_modules != "auto":
            places.check_targets("scaled_modules", self.scaled_modules, every)
            return list(self.scaled_modules)
        found = places.makers_of_keys_and_values(every)
        if not found:
            kind = base.model.config.model_type
            raise UserError(
                f"scaled_modules = auto: which layers make keys and values in a model of type '{kind}' is not known "
                f"here. Name them; it has {places.names_text(every)}. Or choose LoRA."
            )
        return places.shortest(found, base.model)

    def _inputs(self, base: Base, every: dict[str, nn.Module]) -> list[str]:
        """Targets whose input is scaled."""
        if self.scaled_inputs != "auto":
            places.check_targets("scaled_inputs", self.scaled_inputs, every)
            return list(self.scaled_inputs)
        return places.shortest(places.mlp_ends(every), base.model)
