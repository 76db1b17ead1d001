"""LoRA: a low-rank change of the linear layers, y = W x + s · B A x.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1. W (out, in) stays frozen; A (r, in)
starts random, B (out, r) starts at zero, so that the first output is the base's. The scale s is lora_alpha / r, or
lora_alpha / √r when rank-stabilised (Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with
LoRA"). With r = 16 on every linear layer of a 135M model that is 4.9 M trained parameters.

**QLoRA** (Dettmers et al. 2023) is this class on a quantised base, nothing else:
`RunConfig(model=ModelSpec(repo_id="starter", quantization="nf4"), technique=LoRA(), …)`.

**DoRA** (Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5) gives each changed row of W a
trained length m besides: W' = m · (W + s B A) / ‖W + s B A‖. It can't share a batch with the base.

Starts other than the paper's stand in `initialisation.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from tunelab.errors import UserError
from tunelab.techniques import places
from tunelab.techniques.base import PeftTechnique, Several, adapter_file, several

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from tunelab.data import Encoded
    from tunelab.model.load import Base
    from tunelab.spec import ModelSpec, TrainConfig


class LoRA(PeftTechnique):
    """Low-rank adapters beside the linear layers. Merges into the base without a cost at inference."""

    kind: Literal["lora"] = "lora"
    r: int = Field(
        16, ge=1, le=1024, description="Rank: the width of the learned change (Hu et al. 2021, section 7.2)."
    )
    lora_alpha: float = Field(32, gt=0, description="The change is scaled by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before A; use when few rows repeat often.")
    target_modules: Several[str] | Literal["all-linear"] = Field(
        "all-linear",
        description="Linear layers to adapt. 'all-linear': every one but the head, as QLoRA advises (Dettmers et al. "
        "2023, section 4), and but those narrower than r.",
    )
    layers: Several[int] | Literal["all"] = Field(
        "all", description="Which decoder layers to adapt, counted from 0. Fewer: faster, and less is forgotten."
    )
    use_rslora: bool = Field(
        False,
        description="Scale by lora_alpha / √r: keeps high ranks learning (Kalajdzievski 2023). Use from r = 32 on.",
    )
    use_dora: bool = Field(
        False,
        description="Train the length of each weight row as well (DoRA, Liu et al. 2024): often a little better at low "
        "ranks, a quarter slower or more.",
    )
    initialisation: Literal["default", "pissa", "olora", "eva"] = Field(
        "default",
        description="How A and B start. 'default': A random, B zero. 'pissa': the largest singular directions of W "
        "(Meng et al. 2024). 'olora': its QR decomposition (Büyükakyüz 2024). 'eva': the main directions of the "
        "layer's inputs on the training rows (Paischer et al. 2024).",
    )

    _one_of_several = field_validator("target_modules", "layers", mode="before")(several)

    title: ClassVar[str] = "LoRA"
    summary: ClassVar[str] = "A low-rank change beside each linear layer: the safe first choice."
    # measured on held-out rows of python-docs and banking77: better than 5e-4 and 1e-3, and steadier than 4e-3
    default_learning_rate: ClassVar[float] = 2e-3

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        if self.use_dora and self.rewrites_base:
            raise ValueError(
                f"initialisation = '{self.initialisation}' and use_dora exclude each other: DoRA measures lengths of "
                "the whole weight. Choose one of the two"
            )
        return self

    @property
    def rewrites_base(self) -> bool:
        """Whether the initialisation moves part of W into A and B."""
        return self.initialisation in ("pissa", "olora")

    @property
    def rows_can_differ(self) -> bool:
        return not self.use_dora

    def at_strength(self, strength: float) -> LoRA:
        if self.use_dora:
            raise UserError(
                "DoRA has no strength: it also trains the length of each weight row, so without B A the model would "
                "not be the base. Choose a run with LoRA."
            )
        return self.model_copy(update={"lora_alpha": self.lora_alpha * strength})  # 0 as well, which no run trains with

    @property
    def scale(self) -> float:
        """What B A x is multiplied by."""
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)

    def title_on(self, model: ModelSpec) -> str:
        name = "DoRA" if self.use_dora else "LoRA"
        stabilised = " (rank-stabilised)" if self.use_rslora else ""
        return ("" if model.quantization == "none" else "Q") + name + stabilised

    def check(self, model: ModelSpec) -> None:
        if self.rewrites_base and model.quantization != "none":
            raise ValueError(
                f"initialisation = '{self.initialisation}' takes its start out of the weights, which then would have "
                "to be quantised again: the base would no longer be the base. Choose quantization 'none', or "
                "initialisation 'default' or 'eva'"
            )

    def check_training(self, training: TrainConfig) -> None:
        if self.rewrites_base and training.weight_decay:
            raise ValueError(
                f"weight_decay would also pull at the start that initialisation = '{self.initialisation}' keeps fixed. "
                "Set weight_decay to 0, or initialisation to 'default'"
            )

    def attach(self, base: Base, rows: Sequence[Encoded] = ()) -> nn.Module:
        from tunelab.techniques import initialisation

        self._check_rank(base)
        if self.initialisation == "eva" and not rows:
            raise UserError("initialisation = 'eva' looks at training rows, and there are none. Choose 'default'.")
        directions = initialisation.input_directions(base, self._adapted(base), rows) if rows and self._eva else {}
        model = self.wrapped(base)
        if self._eva:
            initialisation.start_at_inputs(model, directions)
        elif self.rewrites_base:
            initialisation.start_at_weights(model, self.initialisation)
            initialisation.freeze_start(model)
        return model

    def outline(self, base: Base) -> nn.Module:
        self._check_rank(base)
        return super().outline(base)

    def wrapped(self, base: Base) -> Any:
        from peft.tuners.lora import LoraLayer

        meant = set(self._adapted(base))
        model = super().wrapped(base)
        adapted = {name for name, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer)}
        assert adapted == meant, f"PEFT adapts other layers than asked: {sorted(adapted ^ meant)[:4]}"
        return model

    def notes(self, base: Base) -> list[str]:
        if self.target_modules != "all-linear":
            return []
        notes = places.note_on_experts(base, "LoRA does not adapt them")
        every = places.linear_layers(base.model)
        sizes = {name: places.shape_of(every[name]) for name in self._narrow(every)}
        if sizes and len(sizes) < len(self._candidates(base, every)):
            kinds = sorted({f"{places.last_name(name)} ({out} × {inputs})" for name, (out, inputs) in sizes.items()})
            notes.append(f"{len(sizes)} layers narrower than r = {self.r} are not adapted: {', '.join(kinds)}")
        missed = places.out_of_reach(base, every)
        for reason in dict.fromkeys(missed.values()):
            names = [name for name, why in missed.items() if why == reason]
            kinds = sorted({places.last_name(name) for name in names})
            notes.append(f"{len(names)} layers are not adapted ({', '.join(kinds)}): {reason}")
        return notes

    @property
    def _eva(self) -> bool:
        return self.initialisation == "eva"

    def load(self, base: Base, folder: Path, trainable: bool = False) -> nn.Module:
        from tunelab.techniques import initialisation

        model = super().load(base, folder, trainable)
        if self.rewrites_base and trainable:
            initialisation.freeze_start(model)
        return model

    def trainable_parameters(self, model: nn.Module) -> int:
        # half of what PEFT holds is the start, which does not move
        return super().trainable_parameters(model) // (2 if self.rewrites_base else 1)

    def changes_nothing(self, folder: Path) -> bool:
        from safetensors.torch import load_file

        weights = load_file(adapter_file(folder))
        for b in (b for name, b in weights.items() if ".lora_B." in name):
            start = -b[:, self.r :] if self.rewrites_base else b.new_zeros(())
            if (b[:, : self.r] != start).any():
                return False
        return True

    def factors(self, folder: Path) -> dict[str, tuple[Tensor, Tensor, float]]:
        """A (r, in), B (out, r) and the scale of every adapted layer of a saved adapter, by the layer's name in the
        base: what a decoder needs to answer with several adapters on one untouched base.

        Raises:
            UserError: it is DoRA, which changes whole weights and not only by B A.
        """
        from safetensors.torch import load_file

        return self._factors(load_file(adapter_file(folder)))

    def factors_of(self, model: Any) -> dict[str, tuple[Tensor, Tensor, float]]:
        """As `factors`, of an attached adapter as its parameters are now: they are not copied.

        Raises:
            UserError: as `factors`.
        """
        from peft import get_peft_model_state_dict

        return self._factors({name: value.detach() for name, value in get_peft_model_state_dict(model).items()})

    def _factors(self, weights: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor, float]]:
        if self.use_dora:
            raise UserError(
                "DoRA can't stand in one batch with the base or with other adapters: it also changes the length of "
                "each weight row. Compare it alone; it is answered in a pass of its own."
            )
        layers = sorted({name.split(".lora_")[0] for name in weights})
        return {
            layer.removeprefix("base_model.model."): (
                weights[f"{layer}.lora_A.weight"],
                weights[f"{layer}.lora_B.weight"],
                self.scale,
            )
            for layer in layers
        }

    def peft_config(self, base: Base) -> Any:
        from peft import LoraConfig

        every = places.linear_layers(base.model)
        adapted = self._adapted(base)
        targets, in_layers = self._targets(base, adapted)
        # a start taken from W stands beside the learned factors, at the same scale: see `initialisation.py`
        factor = 2 if self.rewrites_base else 1
        alpha = self.lora_alpha * (factor**0.5 if self.use_rslora else factor)
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.r * factor,
            lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT computes with floats as well
            lora_dropout=self.lora_dropout,
            target_modules=targets,
            layers_to_transform=in_layers,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            fan_in_fan_out=any(places.is_conv1d(every[name]) for name in adapted),
            bias="none",
        )

    def _targets(self, base: Base, adapted: list[str]) -> tuple[list[str], list[int] | None]:
        """How PEFT is told which layers to adapt: names, and the decoder layers in which they count."""
        targets = sorted({places.last_name(name) for name in adapted})
        meant = places.named((name for name, _module in base.model.named_modules()), targets)
        if {name for name in meant if self._in_layers(name)} != set(adapted):
            return places.shortest(adapted, base.model), None
        return targets, None if self.layers == "all" else sorted(set(self.layers))

    def _adapted(self, base: Base) -> list[str]:
        """Names of the layers to adapt, checked against what the model has."""
        every = places.linear_layers(base.model)
        candidates = self._candidates(base, every)
        if self.target_modules != "all-linear":
            return candidates
        narrow, missed = self._narrow(every), places.out_of_reach(base, every)
        reached = [name for name in candidates if name not in narrow and name not in missed]
        if not reached and any(name in missed for name in candidates):
            raise UserError(
                f"target_modules = all-linear: LoRA reaches no layer of this '{base.model.config.model_type}' model. "
                "Choose full fine-tuning, or another model."
            )
        return reached or candidates

    def _candidates(self, base: Base, every: dict[str, nn.Module]) -> list[str]:
        """Names of the layers that the settings ask for.

        Raises:
            UserError: the model has no such layers.
        """
        chosen = list(every)
        if self.target_modules != "all-linear":
            places.check_targets("target_modules", self.target_modules, every, "; or write 'all-linear'")
            chosen = places.named(every, self.target_modules)
            missed = places.out_of_reach(base, every)
            if wrong := next((name for name in chosen if name in missed), None):
                others = places.names_text(name for name in every if name not in missed)
                raise UserError(
                    f"target_modules = {places.last_name(wrong)}: LoRA can't adapt these layers of a model of type "
                    f"'{base.model.config.model_type}': {missed[wrong]}. Choose from {others}."
                )
        elif not every:
            kind = base.model.config.model_type
            raise UserError(f"target_modules = all-linear: a model of type '{kind}' has no linear layers to adapt.")
        places.check_layers(self.layers, base)
        return [name for name in chosen if self._in_layers(name)]

    def _narrow(self, every: dict[str, nn.Module]) -> set[str]:
        """Layers of which a change of rank r would be more than any change."""
        return {name for name, layer in every.items() if self.r > min(places.shape_of(layer)) and self._in_layers(name)}

    def _check_rank(self, base: Base) -> None:
        """Refuse a rank that no change of a layer can have. (An adapter made elsewhere may have it; it is only
        wasteful.)

        Raises:
            UserError: with the layer and its size.
        """
        every = places.linear_layers(base.model)
        for name in self._adapted(base):
            out, inputs = places.shape_of(every[name])
            if self.r > min(out, inputs):
                raise UserError(
                    f"r = {self.r} is above the size of {name} ({out} × {inputs}): a change of rank "
                    f"{min(out, inputs)} is already any change. Choose r ≤ {min(out, inputs)}, or other target_modules."
                )

    def _in_layers(self, name: str) -> bool:
        return self.layers == "all" or places.block_of(name) in self.layers
