"""What every technique can do, and how the ones that PEFT has do it.

A technique attaches trainable parameters to a frozen base, saves and loads them, and can be switched off again, so
that the same weights answer as the base. Formats are PEFT's: an adapter saved here loads anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import Field

from tunelab.data import chat_format
from tunelab.errors import UserError
from tunelab.machine import libraries
from tunelab.spec import Spec

if TYPE_CHECKING:
    from torch import nn

    from tunelab.data import Encoded
    from tunelab.model.load import Base
    from tunelab.spec import ModelSpec, TrainConfig

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PROVENANCE_FILE = "tunelab.json"
REASON_LENGTH = 250  # characters of another library's message


Element = TypeVar("Element")
Several = Annotated[tuple[Element, ...], Field(min_length=1)]


def several(value: Any) -> Any:
    """A single name or number where several may be given, as one of several; words such as 'all' stay words."""
    if isinstance(value, int) or (isinstance(value, str) and value not in ("auto", "all", "all-linear")):
        return (value,)
    return value


class Technique(Spec):
    """A way to adapt a model. Subclasses add their settings and a `kind`, by which configurations name them."""

    title: ClassVar[str]
    summary: ClassVar[str]
    """What it changes and what it is good for, in one line for people."""
    default_learning_rate: ClassVar[float]
    result_folder: ClassVar[str] = "adapter"
    """Where in a run's directory the result is kept."""
    rows_can_be_padded: ClassVar[bool] = True
    """Whether padding on the left of a row changes nothing."""
    activations_can_be_recomputed: ClassVar[bool] = True
    """Whether it can be trained with gradient checkpointing."""
    exchanges_weights: ClassVar[bool] = False
    """Whether other weights are put in the place of the base's, and back: nothing may keep what was made of them."""
    merge_refusal: ClassVar[str | None] = None
    """Why it can't be merged into the base's weights; None where it can."""

    strength_refusal: ClassVar[str] = "nothing in its result says how much its change counts"
    """Why its results can't count more or less than they do; where they can, `at_strength` says how."""

    @property
    def positions_taken(self) -> int:
        """Positions of the model that its own tokens take from every row."""
        return 0

    @property
    def rows_can_differ(self) -> bool:
        """Whether one batch can hold rows with and without the adapter (PEFT honours that for plain LoRA only)."""
        return False

    def title_on(self, model: ModelSpec) -> str:
        """The technique's name on this base, as people call it."""
        return self.title

    def check(self, model: ModelSpec) -> None:
        """Refuse what can't work on this base.

        Raises:
            ValueError: with the reason and what to choose instead.
        """

    def check_training(self, training: TrainConfig) -> None:
        """Refuse training settings that can't work with this technique.

        Raises:
            ValueError: with the reason and what to choose instead.
        """

    def attach(self, base: Base, rows: Sequence[Encoded] = ()) -> nn.Module:
        """The base with fresh trainable parameters, every other parameter frozen. Before the first step its output is
        the base's, unless the technique's docstring says otherwise. `rows` are the training rows, for initialisations
        that look at them.

        Raises:
            UserError: a setting does not fit this model, or the initialisation needs rows and there are none.
        """
        raise NotImplementedError

    def outline(self, base: Base) -> nn.Module:
        """What `attach` makes of a base without weights (`load.skeleton`): shapes, no contents."""
        return self.attach(base)

    def notes(self, base: Base) -> list[str]:
        """What to know about this technique on this base before it is attached, a sentence each: what it leaves out,
        or does otherwise than its settings alone would say."""
        return []

    def trainable_parameters(self, model: nn.Module) -> int:
        """How many numbers training can change."""
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    def save(self, model: nn.Module, folder: Path, base: Base) -> None:
        """Write the adapter (safetensors and JSON) into an existing folder."""
        raise NotImplementedError

    def load(self, base: Base, folder: Path, trainable: bool = False) -> nn.Module:
        """The base with the adapter of `folder`."""
        raise NotImplementedError

    def changes_nothing(self, folder: Path) -> bool:
        """Whether a saved result is as it was before the first step, so that it answers as the base does."""
        return False

    def detach(self, model: nn.Module) -> None:
        """Take the adapter off again: the base model is as it was before `attach`."""
        raise NotImplementedError

    def at_strength(self, strength: float) -> Technique:
        """The technique with which a saved result counts `strength` times: at 0 it is the base, at 1 itself.

        Raises:
            UserError: there is no such strength, and why.
        """
        raise UserError(f"{self.title} has no strength: {self.strength_refusal}. Choose a run with LoRA.")

    @contextmanager
    def off(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` computes exactly what its base computes."""
        raise NotImplementedError
        yield

    def rest(self, model: nn.Module) -> None:
        """Leave the base's own weights as they are, so that others can compute with them beside `model`."""

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` computes with its adapter, also if it rests."""
        yield


class PeftTechnique(Technique):
    """A technique PEFT implements: its own `PeftConfig`, everything else is shared."""

    def peft_config(self, base: Base) -> Any:
        """The `peft.PeftConfig` of these settings for this base."""
        raise NotImplementedError

    def attach(self, base: Base, rows: Sequence[Encoded] = ()) -> nn.Module:
        return self.wrapped(base)

    def outline(self, base: Base) -> nn.Module:
        return self.wrapped(base)

    def wrapped(self, base: Base) -> Any:
        """The base in PEFT's model, its adapter as PEFT initialises it.

        Raises:
            UserError: the settings don't fit the model.
        """
        import peft

        config = self.peft_config(base)
        try:
            # fp32 master copies of the adapter, whatever the dtype of the base: AdamW's small updates vanish in bf16
            with libraries.building():
                return peft.get_peft_model(base.model, config, autocast_adapter_dtype=True)
        except ValueError as error:
            reason = " ".join(str(error).split())[:REASON_LENGTH]
            raise UserError(
                f"{self.title} can't be put on a model of type '{base.model.config.model_type}': {reason}"
            ) from error

    def save(self, model: Any, folder: Path, base: Base) -> None:
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        config = model.peft_config["default"].to_dict()
        # PEFT writes the local path of the base; name it so that it can be found anywhere
        config |= {"base_model_name_or_path": base.published_name, "inference_mode": True}
        state = {k: v.detach().contiguous().cpu() for k, v in get_peft_model_state_dict(model).items()}
        save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1, sort_keys=True, default=_jsonable))
        write_provenance(folder, self, base)

    def load(self, base: Base, folder: Path, trainable: bool = False) -> nn.Module:
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        model = self.wrapped(base)
        result: Any = set_peft_model_state_dict(model, load_file(adapter_file(folder)))
        missing = [name for name in result.missing_keys if ".default" in name]
        assert not missing, f"{folder} lacks {missing[:3]}"
        assert not result.unexpected_keys, f"{folder} has unknown weights {result.unexpected_keys[:3]}"
        freeze_unless(trainable, model)
        return model

    def detach(self, model: Any) -> None:
        model.unload()

    @contextmanager
    def off(self, model: Any) -> Iterator[None]:
        with model.disable_adapter():
            yield


def freeze_unless(trainable: bool, model: nn.Module) -> None:
    """Freeze what is trainable, unless it shall stay so."""
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad and trainable)


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
    chat = chat_format(base.tokenizer)
    facts = {
        "technique": technique.model_dump(mode="json"),
        "base": base.spec.repo_id,
        "base_published_as": base.published_name,
        "base_sha256": base.sha256,
        **({"base_revision": base.revision} if base.revision else {}),
        "base_note": base.note,
        "ends": chat.end_tokens,
        "plain_prompt": chat.plain_prompt,
    }
    (folder / PROVENANCE_FILE).write_text(json.dumps(facts, indent=1))


def _jsonable(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)
