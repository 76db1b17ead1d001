"""LoRA: learn a low-rank change of the linear layers, y = W x + (alpha / r) · B A x.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1. W (out, in) stays frozen; A (r, in)
starts random, B (out, r) starts at zero, so that the first output is the base's. With r = 16 on every linear layer of
a 135M model that is 4.9 M trained parameters.

**QLoRA** (Dettmers et al. 2023) is this class on a quantised base, nothing else:
`RunConfig(model=ModelSpec(repo_id="starter", quantization="nf4"), technique=LoRA(), …)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tunelab.techniques.base import PeftTechnique, adapter_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from tunelab.models import Base
    from tunelab.spec import ModelSpec


class LoRA(PeftTechnique):
    """Low-rank adapters beside the linear layers. Merges into the base without a cost at inference."""

    kind: Literal["lora"] = "lora"
    r: int = Field(
        16, ge=1, le=1024, description="Rank: the width of the learned change (Hu et al. 2021, section 7.2)."
    )
    lora_alpha: float = Field(32, gt=0, description="The change is scaled by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before A; use when few rows repeat often.")
    target_modules: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear",
        description="Linear layers to adapt. 'all-linear': every one but the head, as QLoRA advises (Dettmers et al. "
        "2023, section 4).",
    )

    title: ClassVar[str] = "LoRA"
    default_learning_rate: ClassVar[float] = 1e-3
    rows_can_differ: ClassVar[bool] = True

    def title_on(self, model: ModelSpec) -> str:
        return "LoRA" if model.quantization == "none" else "QLoRA"

    def factors(self, folder: Path) -> dict[str, tuple[Tensor, Tensor, float]]:
        """A (r, in), B (out, r) and the scale of every adapted layer of a saved adapter, by the layer's name in the
        base: what a decoder needs to answer with several adapters on one untouched base."""
        from safetensors.torch import load_file

        weights = load_file(adapter_file(folder))
        layers = sorted({name.split(".lora_")[0] for name in weights})
        return {
            layer.removeprefix("base_model.model."): (
                weights[f"{layer}.lora_A.weight"],
                weights[f"{layer}.lora_B.weight"],
                self.lora_alpha / self.r,
            )
            for layer in layers
        }

    def peft_config(self, base: Base) -> Any:
        from peft import LoraConfig

        targets = self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules)
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.r,
            lora_alpha=self.lora_alpha,  # type: ignore[arg-type]  # PEFT computes with floats as well
            lora_dropout=self.lora_dropout,
            target_modules=targets,
            bias="none",
        )
