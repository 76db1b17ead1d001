"""PEFT's `adapter_config.json`, read as what it is: a text from a stranger.

Each key is either a setting that becomes one of ours, or has to stand at the value that changes nothing; one that is
not known must say nothing (null, false, empty). So nothing in the file can name code, a path or a base to load, and
nothing that would change the computation is passed over in silence.

Which layers are adapted, the names of the weights say exactly. A regular expression, as Unsloth writes it, is never
run: the layers are taken from there.

Adding a technique is one entry in `FOREIGN`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tunelab.errors import UserError, explain, shortened
from tunelab.techniques import IA3, BottleneckAdapter, LoRA, PrefixTuning, PromptTuning, Technique
from tunelab.techniques.base import CONFIG_FILE

MAX_TARGETS = 10_000
NOTHING: tuple[Any, ...] = (None, False, [], {})
COMMON: dict[str, tuple[Any, ...]] = {"task_type": (None, "CAUSAL_LM")}
INFORMATION = ("peft_type", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping")
# PEFT writes `auto_mapping` where the task was not told: whose class was adapted; nothing of it is looked up here
MODELS_OF = re.compile(r"transformers(_modules)?\.[\w.]+")
WHY_NOT = {
    "modules_to_save": "it holds whole layers of the base, trained",
    "rank_pattern": "every layer has the same rank here",
    "alpha_pattern": "every layer has the same scale here",
    "bias": "the base's biases are not trained here",
    "target_parameters": "tensors that are no layers are not adapted here",
    "trainable_token_indices": "embeddings are not trained here",
}


@dataclass(frozen=True)
class Foreign:
    """How the configuration of one type becomes a technique."""

    technique: type[Technique]
    settings: dict[str, str]  # their key → our field, which validates the value
    needed: tuple[str, ...]  # the two sides have other defaults
    neutral: dict[str, tuple[Any, ...]]  # allowed at these values only, which change nothing
    ignored: tuple[str, ...] = ()  # how training began: nothing of it is left in the result


NAMED_BY_THE_WEIGHTS = ("exclude_modules", "layers_pattern")  # further ways to say which layers are adapted

LORA = Foreign(
    technique=LoRA,
    settings={"layers_to_transform": "layers"}
    | {key: key for key in ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora")},
    needed=("r", "lora_alpha", "target_modules"),
    ignored=("eva_config", *NAMED_BY_THE_WEIGHTS),
    neutral={
        "bias": ("none",),
        "fan_in_fan_out": (False, True),  # PEFT sets it by the type of the layer
        # others (PiSSA, OLoRA, …) change the base, and what they leave is wrong on the plain one
        "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
        "megatron_core": (None, "megatron.core"),
        "qalora_group_size": (None, 16),  # read with use_qalora only
    }
    | dict.fromkeys(
        (
            "alora_invocation_tokens", "alpha_pattern", "arrow_config", "corda_config", "ensure_weight_tying",
            "kasa_config", "layer_replication", "loftq_config", "lora_bias",
            "lora_ga_config", "megatron_config", "modules_to_save", "monteclora_config", "rank_pattern",
            "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora", "velora_config",
        ),
        NOTHING,
    ),
)  # fmt: skip

IA3_TYPE = Foreign(
    technique=IA3,
    settings={"target_modules": "scaled_modules", "feedforward_modules": "scaled_inputs"},
    needed=("target_modules", "feedforward_modules"),
    neutral={"fan_in_fan_out": (False, True), "init_ia3_weights": (True, False)}
    | dict.fromkeys(("exclude_modules", "modules_to_save"), NOTHING),
)

# numbers PEFT copies from the base; the shape of the weights says the same and is checked
OF_THE_BASE = ("token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers")
PREFIX = Foreign(
    technique=PrefixTuning,
    settings={"num_virtual_tokens": "num_virtual_tokens"},
    needed=("num_virtual_tokens",),
    ignored=(*OF_THE_BASE, "encoder_hidden_size", "init_weights"),
    neutral=dict.fromkeys(("prefix_projection", "modules_to_save"), NOTHING),
)
PROMPT = Foreign(
    technique=PromptTuning,
    settings={"num_virtual_tokens": "num_virtual_tokens"},
    needed=("num_virtual_tokens",),
    ignored=(*OF_THE_BASE, "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"),
    neutral=dict.fromkeys(("modules_to_save", "tokenizer_kwargs"), NOTHING),
)

OURS = ("placement", "size", "activation", "dropout")
BOTTLENECK = Foreign(
    technique=BottleneckAdapter,
    settings={key: key for key in OURS},
    needed=OURS,
    ignored=("adapter_type",),
    neutral={"kind": ("bottleneck",)},
)

FOREIGN: dict[str, Foreign] = {
    "LORA": LORA,
    "IA3": IA3_TYPE,
    "PREFIX_TUNING": PREFIX,
    "PROMPT_TUNING": PROMPT,
    "BOTTLENECK": BOTTLENECK,
}


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """The mapping that a JSON file holds.

    Raises:
        UserError: it is no JSON, or no mapping.
    """
    try:
        values = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not valid JSON: {str(error)[:200]}. Export the adapter again.") from None
    if not isinstance(values, dict):
        raise UserError(f"{name} holds no mapping. Export the adapter again with PEFT's save_pretrained().")
    return values


def technique_of(config: dict[str, Any], adapted: Sequence[str] = ()) -> Technique:
    """The technique that an adapter's configuration describes; `adapted`: the layers that its weights are of.

    Raises:
        UserError: an unknown type, an unknown key, or a value that is not allowed; each by its name.
    """
    kind = config.get("peft_type", config.get("adapter_type"))
    if not isinstance(kind, str) or kind not in FOREIGN:
        raise UserError(
            f"{CONFIG_FILE}: peft_type = {shortened(kind)} can't be imported; allowed: {', '.join(FOREIGN)}."
        )
    foreign = FOREIGN[kind]
    _check_keys(config, foreign)
    values = {ours: config[theirs] for theirs, ours in foreign.settings.items() if config.get(theirs) is not None}
    if foreign.technique is LoRA and _said_by_the_weights(config):
        values["target_modules"] = _named(config["target_modules"], adapted)
        values.pop("layers", None)
    for key in ("target_modules", "scaled_modules", "scaled_inputs"):
        if key in values:
            values[key] = _targets(values[key])
    if foreign.technique is IA3:  # PEFT's targets hold both
        values["scaled_modules"] = sorted(set(values["scaled_modules"]) - set(values["scaled_inputs"]))
    try:
        return foreign.technique.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{CONFIG_FILE}: {explain(error)}") from None


def _said_by_the_weights(config: dict[str, Any]) -> bool:
    """Whether the configuration says which layers are adapted in a way that is not followed here."""
    targets = config["target_modules"]
    pattern = isinstance(targets, str) and targets != "all-linear"
    return pattern or any(config.get(key) not in NOTHING for key in NAMED_BY_THE_WEIGHTS)


def _named(targets: Any, adapted: Sequence[str]) -> Any:
    """The layers the weights are of, where the configuration speaks of them too; else what it says."""
    if isinstance(targets, str) and not all(layer.rpartition(".")[2] in targets for layer in adapted):
        return targets
    return list(adapted) or targets


def _check_keys(config: dict[str, Any], foreign: Foreign) -> None:
    neutral = COMMON | foreign.neutral
    unknown = sorted(config.keys() - {*INFORMATION, *neutral, *foreign.settings, *foreign.ignored})
    if any(config[key] not in NOTHING for key in unknown):
        names = ", ".join(shortened(name) for name in unknown[:8])
        raise UserError(
            f"{CONFIG_FILE}: keys that are not known and so not allowed: {names}. If they mean nothing for this "
            "adapter, remove them from the file."
        )
    mapping = config.get("auto_mapping")
    if mapping is not None and not (isinstance(mapping, dict) and _of_transformers(mapping)):
        raise UserError(f"{CONFIG_FILE}: auto_mapping = {shortened(mapping)} names no model of transformers.")
    for key, allowed in neutral.items():
        # by their JSON: in Python 1 == True and 0 == False
        if key in config and json.dumps(config[key]) not in [json.dumps(value) for value in allowed]:
            why = f" ({WHY_NOT[key]})" if key in WHY_NOT else ""
            raise UserError(
                f"{CONFIG_FILE}: {key} = {shortened(config[key])} is not supported{why}; allowed: "
                f"{', '.join(json.dumps(value) for value in allowed)}."
            )
    for key in foreign.needed:
        if config.get(key) is None:
            raise UserError(f"{CONFIG_FILE}: {key} is missing. Export the adapter again with PEFT's save_pretrained().")


def _of_transformers(mapping: dict[str, Any]) -> bool:
    library = mapping.get("parent_library")
    return isinstance(library, str) and bool(MODELS_OF.fullmatch(library))


def _targets(value: Any) -> Any:
    """Names of layers, or their last parts. A text other than 'all-linear' would be a regular expression, run on every
    name of the model."""
    if value == "all-linear":
        return value
    names = value if isinstance(value, list) else [value]
    good = isinstance(value, list) and len(names) <= MAX_TARGETS
    if not good or not all(isinstance(name, str) and re.fullmatch(r"[\w.]{1,300}", name) for name in names):
        raise UserError(
            f"{CONFIG_FILE}: target_modules = {shortened(value)}: allowed are a list of layer names such as "
            '["q_proj", "v_proj"], or "all-linear". A regular expression is not run: list the names instead.'
        )
    return sorted(set(names))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
