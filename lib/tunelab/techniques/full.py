"""Full fine-tuning: every weight is trained, or those of some layers.

What all other techniques are measured against. It changes the base by definition: the base's own weights are kept
beside the trained ones, so that "off" is exactly the base, and the result is a model (`model/`), not an adapter. The
weights are kept in fp32 for the optimiser and copied to the model's precision for every step (mixed precision,
Micikevicius et al. 2018, section 3.1), which takes 20 bytes per trained parameter: AdamW's two moments, the fp32
copy, its gradient, the weight itself and the base's.

The learning rate is a tenth of LoRA's or less ("LoRA Without Regret", Schulman et al. 2025). A quantised base can't be
trained this way: steps far below the distance of two of its levels would be lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from tunelab.data import chat_format
from tunelab.errors import UserError
from tunelab.techniques.base import Several, Technique, freeze_unless, several, write_provenance
from tunelab.techniques.places import block_of, check_layers

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from tunelab.data import Encoded
    from tunelab.model.load import Base
    from tunelab.spec import ModelSpec


class FullFineTuning(Technique):
    """Every weight is trained. Needs the most memory, and forgets the most."""

    kind: Literal["full"] = "full"
    layers: Several[int] | Literal["all"] = Field(
        "all",
        description="Decoder layers to train, counted from 0. 'all': those, the embeddings, the norms and the head.",
    )

    _one_of_several = field_validator("layers", mode="before")(several)

    title: ClassVar[str] = "Full fine-tuning"
    summary: ClassVar[str] = "Every weight is trained: most memory, a whole model as result, most forgetting."
    default_learning_rate: ClassVar[float] = 1e-4
    strength_refusal: ClassVar[str] = "its result is a model of its own, and no change beside the base"
    result_folder: ClassVar[str] = "model"
    exchanges_weights: ClassVar[bool] = True

    def check(self, model: ModelSpec) -> None:
        if model.quantization != "none":
            raise ValueError(
                f"full fine-tuning can't train a base quantised to {model.quantization}: its few levels lie further "
                "apart than a training step moves. Choose quantization 'none', or LoRA (that is QLoRA)"
            )

    def attach(self, base: Base, rows: Sequence[Encoded] = ()) -> nn.Module:
        check_layers(self.layers, base)
        chosen = {name: p for name, p in base.model.named_parameters() if self._trains(name)}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        return _swapped(base.model, {name: p.detach().clone() for name, p in chosen.items()})

    def save(self, model: Any, folder: Path, base: Base) -> None:
        chat_format(base.tokenizer).name_ends(model.generation_config)
        model.save_pretrained(folder, safe_serialization=True)
        base.tokenizer.save_pretrained(folder)
        write_provenance(folder, self, base)

    def load(self, base: Base, folder: Path, trainable: bool = False) -> nn.Module:
        from tunelab.model.load import read_model

        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds no model. Choose a finished or stopped run.")
        tuned = read_model(folder, base.dtype)
        weights = dict(tuned.named_parameters())
        chosen = {name: p for name, p in base.model.named_parameters() if self._trains(name)}
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        model = _swapped(base.model, {name: weights[name].detach().to(base.device) for name in chosen})
        freeze_unless(trainable, model)
        return model

    def detach(self, model: Any) -> None:
        self.rest(model)
        model.requires_grad_(False)
        del model.other_weights, model.tuned_is_on

    @contextmanager
    def off(self, model: Any) -> Iterator[None]:
        was_on, model.tuned_is_on = model.tuned_is_on, False
        if was_on:
            _swap(model)
        try:
            yield
        finally:
            if was_on:
                _swap(model)
            model.tuned_is_on = was_on

    def rest(self, model: Any) -> None:
        if model.tuned_is_on:
            _swap(model)
            model.tuned_is_on = False

    @contextmanager
    def on(self, model: Any) -> Iterator[None]:
        was_on = model.tuned_is_on
        if not was_on:
            _swap(model)
            model.tuned_is_on = True
        try:
            yield
        finally:
            if not was_on:
                self.rest(model)

    def _trains(self, name: str) -> bool:
        return self.layers == "all" or block_of(name) in self.layers


def _swapped(model: Any, weights: dict[str, Any]) -> Any:
    """The model computing with `weights`; what it computed with before waits in `model.other_weights`."""
    model.other_weights, model.tuned_is_on = weights, True
    _swap(model)
    return model


def _swap(model: Any) -> None:
    """Exchange the weights in use with those that wait: pointers, no copies."""
    parameters = dict(model.named_parameters())
    for name, waiting in model.other_weights.items():
        parameter = parameters[name]
        model.other_weights[name], parameter.data = parameter.data, waiting
