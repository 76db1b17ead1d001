"""Bottleneck adapters: a small network behind attention and MLP, y + W_up σ(W_down y).

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1: one behind the attention's output and
one behind the MLP of every layer. Pfeiffer et al. 2020, "AdapterHub", keep only the one behind the MLP. W_down (m, C)
starts small (standard deviation 0.01, as in the paper), W_up (C, m) at zero, so that the first output is the base's.

It is non-linear, so it can't be merged and always costs a little at inference. PEFT has no such adapter: the format is
the project's own, safetensors and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tunelab.errors import UserError
from tunelab.techniques import places
from tunelab.techniques.base import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Technique,
    adapter_file,
    freeze_unless,
    write_provenance,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from tunelab.data import Encoded
    from tunelab.model.load import Base


class BottleneckAdapter(Technique):
    """Small networks behind attention and MLP."""

    kind: Literal["bottleneck"] = "bottleneck"
    size: int = Field(64, ge=1, le=4096, description="Width m of the bottleneck (Houlsby et al. 2019 use 8 to 256).")
    placement: Literal["houlsby", "pfeiffer"] = Field(
        "houlsby",
        description="'houlsby': behind attention and behind the MLP. 'pfeiffer': behind the MLP only, half the size.",
    )
    activation: Literal["relu", "gelu", "silu"] = Field("relu", description="The non-linearity σ.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout inside the bottleneck; use when few rows repeat often."
    )

    title: ClassVar[str] = "Bottleneck adapter"
    summary: ClassVar[str] = "A small network behind attention and MLP; strong, but always in the way at inference."
    default_learning_rate: ClassVar[float] = 2e-3
    merge_refusal: ClassVar[str | None] = "a bottleneck adapter is non-linear and can't become part of a weight"

    def title_on(self, model: Any) -> str:
        return self.title if self.placement == "houlsby" else "Bottleneck adapter (Pfeiffer)"

    def attach(self, base: Base, rows: Sequence[Encoded] = ()) -> nn.Module:
        from tunelab.techniques.modules import Bottleneck

        for name, width in self._places(base).items():
            parent, _, child = name.rpartition(".")
            owner = base.model.get_submodule(parent)
            setattr(owner, child, Bottleneck(getattr(owner, child), width, self.size, self.activation, self.dropout))
        return base.model

    def save(self, model: nn.Module, folder: Path, base: Base) -> None:
        from safetensors.torch import save_file

        save_file(_state(model), folder / WEIGHTS_FILE, metadata={"format": "pt"})
        config = {"adapter_type": "BOTTLENECK", "base_model_name_or_path": base.published_name}
        config |= self.model_dump(mode="json")
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1, sort_keys=True))
        write_provenance(folder, self, base)

    def load(self, base: Base, folder: Path, trainable: bool = False) -> nn.Module:
        from safetensors.torch import load_file

        weights = load_file(adapter_file(folder))
        model = self.attach(base)
        expected = _state(model).keys()
        assert weights.keys() == expected, f"{folder} has other weights: {sorted(weights.keys() ^ expected)[:3]}"
        model.load_state_dict(weights, strict=False)
        freeze_unless(trainable, model)
        return model

    def changes_nothing(self, folder: Path) -> bool:
        from safetensors.torch import load_file

        return not any(bool(w.any()) for name, w in load_file(adapter_file(folder)).items() if ".up." in name)

    def detach(self, model: nn.Module) -> None:
        from tunelab.techniques.modules import Bottleneck

        for name, module in list(model.named_modules()):
            if isinstance(module, Bottleneck):
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, module.layer)

    @contextmanager
    def off(self, model: nn.Module) -> Iterator[None]:
        from tunelab.techniques.modules import Bottleneck

        wrappers = [module for module in model.modules() if isinstance(module, Bottleneck) and module.enabled]
        try:
            for wrapper in wrappers:
                wrapper.enabled = False
            yield
        finally:
            for wrapper in wrappers:
                wrapper.enabled = True

    def _places(self, base: Base) -> dict[str, int]:
        """Names of the modules behind which an adapter stands, and how wide what they give is."""
        every = places.linear_layers(base.model)
        attention = places.attention_ends(every)
        mlps = [name for name in places.mlp_ends(every) if not places.of_experts(name)]
        mixtures = places.mixtures(base.model)
        if not mlps + mixtures or (self.placement == "houlsby" and not attention):
            raise UserError(
                "placement: where attention and MLP end in a model of type "
                f"'{base.model.config.model_type}' is not known here, so no adapter can stand behind them. Choose LoRA."
            )
        ends = mlps if self.placement == "pfeiffer" else attention + mlps
        width = base.model.config.get_text_config().hidden_size
        return {name: places.shape_of(every[name])[0] for name in ends} | dict.fromkeys(mixtures, width)


def _state(model: nn.Module) -> dict[str, Any]:
    """The adapters' weights by their names in the model."""
    return {n: p.detach().contiguous().cpu() for n, p in model.named_parameters() if ".adapter." in n}
