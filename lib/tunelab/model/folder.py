"""What a folder with a model holds, told before anything of it is loaded.

transformers loads more by itself than it is asked for: an adapter that lies beside the weights, weights at random in
place of missing ones, a quantised model where a plain one was meant. Each of them would make the base another model
than the one that was named; each is refused or left out here, and said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.errors import UserError

if TYPE_CHECKING:
    from tunelab.spec import ModelSpec

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
NO_ADAPTER = {"subfolder": "no adapter is looked for"}  # `adapter_kwargs` of from_pretrained: where it looks for one
REASON_LENGTH = 160
BUFFERS = re.compile(r"(attn|attention)\.(masked_)?bias$")  # masks that GPT-2 and its kin once saved
# layers that predict tokens further on, beside the model's own: https://arxiv.org/abs/2412.19437, section 2.2
AHEAD, LAYER = re.compile(r"\.(eh_proj|enorm|hnorm|nextn\w*|mtp\w*)\."), re.compile(r".*?\.\d+\.")
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt")


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads the weights from, whether they are there or not; none where it finds none."""
    named = json_of(folder / CONFIG).get("transformers_weights")
    first = named or next((name for name in (WEIGHTS, INDEX) if (folder / name).is_file()), None)
    if first is None:
        return []
    if not first.endswith(".index.json"):
        return [folder / first]
    named = json_of(folder / first).get("weight_map")
    shards = set(named.values()) if isinstance(named, dict) else set()
    return [folder / name for name in sorted(map(str, shards))]


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies in the folder, in one of its formats."""
    return any((folder / name).is_file() for name in TOKENIZERS) or any(folder.glob("*.model"))


def has_chat_template(folder: Path) -> bool:
    """Whether a chat template lies in the folder."""
    return (folder / "chat_template.jinja").is_file() or "chat_template" in json_of(folder / "tokenizer_config.json")


def missing_files(folder: Path) -> list[str]:
    """What a whole model needs and this folder lacks, by name."""
    weights = weight_files(folder)
    lacking = [path.name for path in weights if not path.is_file()]
    if not weights:
        lacking.append(WEIGHTS)
    return ([] if (folder / CONFIG).is_file() else [CONFIG]) + lacking


def check_folder(folder: Path, repo_id: str) -> None:
    """Refuse a folder that holds no whole model.

    Raises:
        UserError: with what is missing and what to give instead.
    """
    missing = missing_files(folder)
    if not missing:
        return
    if (folder / ADAPTER_CONFIG).is_file() and (CONFIG in missing or not weight_files(folder)):
        made_for = str(json_of(folder / ADAPTER_CONFIG).get("base_model_name_or_path") or "the model it was trained on")
        raise UserError(
            f"repo_id = '{repo_id}' holds an adapter and no model. Give its base ({made_for[:80]}) as the model, and "
            f"bring the adapter in with `tunelab import {folder} --model BASE`."
        )
    if weight_files(folder) and CONFIG not in missing:
        raise UserError(
            f"repo_id = '{repo_id}': the folder lacks {len(missing)} of its weight files, e.g. {missing[0]}. Copy or "
            "fetch the whole folder."
        )
    what = CONFIG if CONFIG in missing else "safetensors weights"
    raise UserError(
        f"repo_id = '{repo_id}': the folder holds no {what}. Give a folder written by save_pretrained() with "
        "safetensors (pickled .bin weights are refused), a Hub id, or 'starter'."
    )


def read_config(folder: Path) -> Any:
    """The model's configuration, as transformers reads it; code of the folder's own is never run.

    Raises:
        UserError: it can't be read, or is of a model that transformers does not have.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each model's own checks raise what they like
        values = json_of(folder / CONFIG)
        kind = values.get("model_type")
        if "auto_map" in values:
            reason = f"a model of type '{kind}' comes with code of its own, which is never run"
        elif isinstance(error, ValueError) and "does not recognize" in str(error):
            reason = f"transformers has no model of type '{kind}'"
        else:
            reason = f"it can't be read ({type(error).__name__}: {' '.join(str(error).split())[:REASON_LENGTH]})"
        raise UserError(f"{CONFIG} in {folder.name}: {reason}. Choose another model.") from None


def check_config(config: Any, spec: ModelSpec) -> None:
    """Refuse a model that is not what the spec says.

    Raises:
        UserError: it does not go on with a text, or is stored quantised otherwise than the spec asks.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    # encoders have a head that goes on with a text as well; their layers look at what follows unless told otherwise
    looks_ahead = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or looks_ahead or getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"repo_id = '{spec.repo_id}': a model of type '{config.model_type}' does not go on with a text. Choose a "
            "causal language model, such as 'starter'."
        )
    stored = stored_quantization(config)
    if stored and stored != spec.quantization:
        choose = f"Choose quantization '{stored}'" if stored in ("nf4", "int8") else "Choose the unquantised model"
        raise UserError(
            f"repo_id = '{spec.repo_id}': its weights are stored quantised ({stored}), and quantization = "
            f"'{spec.quantization}' was asked for. {choose}, or another model."
        )


def misfit(folder: Path, model: Any, info: Mapping[str, Any]) -> str:
    """What is wrong where the weights of a folder are not those of the model that its configuration describes; '' where
    they are. `info`: what transformers says of loading them."""
    kind = f"model_type = '{model.config.model_type}' of its {CONFIG}"
    missing, sizes = sorted(info["missing_keys"]), sorted(name for name, *_sizes in info["mismatched_keys"])
    nearly_all = 2 * len(missing) > len(list(model.parameters()))
    beside = _beside(folder, info["unexpected_keys"], None if nearly_all else model)
    if (missing or sizes) and beside:
        return (
            f"are of another architecture than {kind}: {len(missing) + len(sizes)} that it has are missing, e.g. "
            f"{[*missing, *sizes][0]}, and {len(beside)} that it has not are there, e.g. {beside[0]}. Give the "
            f"{CONFIG} that the weights were saved with."
        )
    if sizes:
        return (
            f"don't fit its {CONFIG}: {len(sizes)} have other sizes, e.g. {sizes[0]}. Give the {CONFIG} that they were "
            "saved with."
        )
    if missing:
        return (
            f"are not all of the model: {len(missing)} that {CONFIG} speaks of are missing, e.g. {missing[0]}. "
            "They would be random numbers. Fetch the model again, or save it again with save_pretrained()."
        )
    if beside:
        return (
            f"are of another architecture than {kind}: {len(beside)} have no place in it, e.g. {beside[0]}, and it "
            f"would compute without them. Give the {CONFIG} that the weights were saved with."
        )
    return ""


def _beside(folder: Path, names: Iterable[str], model: Any) -> list[str]:
    """The weights in the files, of those that the model has no place for, that it would compute otherwise without. With
    no model to compare with, all that are weights."""
    weights = [name for name in names if name.endswith((".weight", ".bias")) and not BUFFERS.search(name)]
    if model is None:
        return sorted(weights)
    modules = {name for name, _module in model.named_modules()}
    ahead = {layer[0] for name in weights if AHEAD.search(name) and (layer := LAYER.match(name))}
    beside = [
        name for name in weights if _belongs(name, modules) and not ((layer := LAYER.match(name)) and layer[0] in ahead)
    ]
    return sorted(set(beside) - _zeros(folder, [name for name in beside if name.endswith(".bias")]))


def _belongs(name: str, modules: set[str]) -> bool:
    """Whether a weight stands where the model has modules and no such weight: a norm of the queries, a bias, a layer
    more. Towers for pictures beside a text model, heads that judge, and what older versions saved, do not."""
    parts = name.split(".")[:-1]
    return any(".".join(parts[:depth]) in modules for depth in range(min(2, len(parts)), len(parts) + 1))


def _zeros(folder: Path, names: Sequence[str]) -> set[str]:
    """Those of the weights that are nothing but zeros in the files: biases that some converters write, which add
    nothing."""
    if not names:
        return set()
    from safetensors import safe_open

    zeros = set()
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            zeros |= {name for name in set(names) & set(file.keys()) if not file.get_tensor(name).any()}
    return zeros


def stored_quantization(config: Any) -> str | None:
    """How the weights in the files are quantised: 'nf4' and 'int8' as a `ModelSpec` says it, anything else by its own
    name; None: they are not."""
    quantization = getattr(config, "quantization_config", None)
    if not quantization:
        return None
    values = quantization if isinstance(quantization, dict) else quantization.to_dict()
    if values.get("load_in_4bit"):
        return str(values.get("bnb_4bit_quant_type", "fp4"))
    return "int8" if values.get("load_in_8bit") else str(values.get("quant_method", "in an unknown way"))


def notes_on(folder: Path) -> list[str]:
    """What lies beside the model and is left alone, a sentence each."""
    if not (folder / ADAPTER_CONFIG).is_file():
        return []
    return [
        "an adapter lies beside the model in its folder (adapter_config.json); it is not loaded: the base is the model "
        "alone. `tunelab import` brings an adapter in"
    ]


def json_of(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; an empty one where there is none that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
