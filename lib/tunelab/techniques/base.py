"""What every technique can do, and how the ones that PEFT has do it.

A technique attaches trainable parameters to a frozen base, saves and loads them, and can be switched off again, so
that the same weights answer as the base (traps: see `comparison.py`). Formats are PEFT's: an adapter saved here loads
anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunelab.errors import UserError
from tunelab.frozen import Spec

if TYPE_CHECKING:
    from torch import nn

    from tunelab.models import Base
    from tunelab.spec import ModelSpec

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PROVENANCE_FILE = "tunelab.json"


class Technique(Spec):
    """A way to adapt a model. Subclasses add their settings and a `kind`, by which configurations name them."""

    title: ClassVar[str]
    default_learning_rate: ClassVar[float]
    rows_can_differ: ClassVar[bool] = False
    """Whether one batch can hold rows with and without the adapter (trap 7: PEFT honours that for plain LoRA only)."""

    def title_on(self, model: ModelSpec) -> str:
        """The technique's name on this base, as people call it."""
        return self.title

    def check(self, model: ModelSpec) -> None:
        """Refuse what can't work on this base.

        Raises:
            ValueError: with the reason and what to choose instead.
        """

    def attach(self, base: Base) -> nn.Module:
        """The base with fresh trainable parameters, every other parameter frozen. Before the first step its output is
        the base's, unless the technique's docstring says otherwise."""
        raise NotImplementedError

    def save(self, model: nn.Module, folder: Path, base: Base) -> None:
        """Write the adapter (safetensors and JSON) into an existing folder."""
        raise NotImplementedError

    def load(self, base: Base, folder: Path, trainable: bool = False) -> nn.Module:
        """The base with the adapter of `folder`."""
        raise NotImplementedError

    def detach(self, model: nn.Module) -> None:
        """Take the adapter off again: the base model is as it was before `attach`."""
        raise NotImplementedError

    @contextmanager
    def off(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` computes exactly what its base computes."""
        raise NotImplementedError
        yield


class PeftTechnique(Technique):
    """A technique PEFT implements: its own `PeftConfig`, everything else is shared."""

    def peft_config(self, base: Base) -> Any:
        """The `peft.PeftConfig` of these settings for this base."""
        raise NotImplementedError

    def attach(self, base: Base) -> nn.Module:
        import peft

        # fp32 master copies of the adapter, whatever the dtype of the base: AdamW's small updates vanish in bf16
        return peft.get_peft_model(base.model, self.peft_config(base), autocast_adapter_dtype=True)

    def save(self, model: Any, folder: Path, base: Base) -> None:
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        config = model.peft_config["default"].to_dict()
        # trap 14: PEFT writes the local path of the base; name it so that it can be found anywhere
        config |= {"base_model_name_or_path": base.published_name, "inference_mode": True}
        state = {k: v.detach().contiguous().cpu() for k, v in get_peft_model_state_dict(model).items()}
        save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1, sort_keys=True, default=_jsonable))
        write_provenance(folder, self, base)

    def load(self, base: Base, folder: Path, trainable: bool = False) -> nn.Module:
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        model: Any = self.attach(base)
        result: Any = set_peft_model_state_dict(model, load_file(adapter_file(folder)))
        missing = [name for name in result.missing_keys if ".default" in name]
        assert not missing, f"{folder} lacks {missing[:3]}"
        assert not result.unexpected_keys, f"{folder} has unknown weights {result.unexpected_keys[:3]}"
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.requires_grad and trainable)
        return model

    def detach(self, model: Any) -> None:
        model.unload()

    @contextmanager
    def off(self, model: Any) -> Iterator[None]:
        with model.disable_adapter():
            yield


def adapter_file(folder: Path) -> Path:
    """The weights in an adapter's folder.

    Raises:
        UserError: there are none.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no adapter: {WEIGHTS_FILE} is missing. Choose a finished or stopped run.")
    return path


def write_provenance(folder: Path, technique: Technique, base: Base) -> None:
    """What the adapter is and which base it was trained on: `tunelab.json` beside PEFT's files."""
    facts = {
        "technique": technique.model_dump(mode="json"),
        "base": base.spec.repo_id,
        "base_published_as": base.published_name,
        "base_sha256": base.sha256,
        "base_note": base.note,
    }
    (folder / PROVENANCE_FILE).write_text(json.dumps(facts, indent=1))


def _jsonable(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)
