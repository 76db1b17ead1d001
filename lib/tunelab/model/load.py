"""Load a `ModelSpec`: weights frozen, precision measured, quantised if asked.

    ModelSpec ──> load() ──> Base (model, tokenizer, and the facts a run records about them)

Only safetensors are read, never a pickle, and no code from a model's repository is run. Where a quantised base is kept
dequantised (`keep_dequantized`), its linear layers hold the very values the 4-bit weights stand for: the same base,
faster and larger.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.errors import UserError
from tunelab.machine import hardware
from tunelab.model import starter
from tunelab.spec import STARTER, ModelSpec

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HUB_FILES = ("*.safetensors", "*.json", "*.model", "*.jinja", "merges.txt", "vocab.txt")


@dataclass
class Base:
    """A loaded base model. `model` is frozen; a technique adds what is trained."""

    spec: ModelSpec
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype
    device: torch.device
    sha256: str  # of the weight files it was loaded from
    published_name: str  # how others find it
    note: str  # what to know about it, e.g. that it was rounded

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def precision(self) -> str:
        """How weights and computation are held, for provenance: 'nf4, bfloat16'."""
        return self.dtype_name if self.spec.quantization == "none" else f"{self.spec.quantization}, {self.dtype_name}"


def load(spec: ModelSpec, progress: Callable[[str], None] | None = None, *, attention: str | None = None) -> Base:
    """The model of `spec`, frozen and in evaluation mode, with its tokenizer. `attention`: 'eager' or 'sdpa'; None:
    what measures faster on a CPU, 'sdpa' elsewhere.

    Raises:
        UserError: the model can't be found, fetched, or quantised on this machine.
    """
    import torch

    folder = find(spec, progress)
    device = choose_device(spec)
    if device.type == "cpu":
        torch.set_num_threads(hardware.physical_cores())
    dtype = choose_dtype(spec, device)
    model = _load_weights(spec, folder, device, dtype, attention)
    model.requires_grad_(False)
    model.eval()
    return _base(spec, folder, model, device, dtype)


def skeleton(spec: ModelSpec, progress: Callable[[str], None] | None = None) -> Base:
    """The base of `spec` without its weights: `model` is on the meta device, names and shapes and nothing else. What
    does not fit the base is found here in a second, before anything is loaded.

    Raises:
        UserError: the model can't be found or fetched.
    """
    folder = find(spec, progress)
    device = choose_device(spec)
    dtype = choose_dtype(spec, device)
    return _base(spec, folder, empty_model(folder, dtype), device, dtype)


def empty_model(folder: Path, dtype: torch.dtype, attention: str = "eager") -> PreTrainedModel:
    """The model of a folder on the meta device, frozen: shapes, no contents."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention, trust_remote_code=False
        )
    model.requires_grad_(False)
    return model


def _base(spec: ModelSpec, folder: Path, model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> Base:
    facts = starter.facts(folder) if spec.repo_id == STARTER else None
    return Base(
        spec=spec,
        model=model,
        tokenizer=load_tokenizer(spec),
        dtype=dtype,
        device=device,
        sha256=facts["weights_sha256"] if facts else weights_sha256(folder),
        published_name=starter.PUBLISHED_AS if facts else Path(spec.repo_id).name if is_folder(spec) else spec.repo_id,
        note=starter.NOTE if facts else "",
    )


def unwrapped(model: Any) -> Any:
    """The transformers model inside PEFT's, with what the adapter put into its layers; or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def load_tokenizer(spec: ModelSpec, progress: Callable[[str], None] | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of `spec`, with a padding token.

    Raises:
        UserError: the model can't be found or fetched.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(find(spec, progress), local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def is_folder(spec: ModelSpec) -> bool:
    return Path(spec.repo_id).expanduser().is_dir()


def find(spec: ModelSpec, progress: Callable[[str], None] | None = None) -> Path:
    """The folder on this machine that holds the model, fetched if need be.

    Raises:
        UserError: there is no such folder, or the Hub does not have it or can't be reached.
    """
    if spec.repo_id == STARTER:
        return starter.starter_path(progress)
    if is_folder(spec):
        folder = Path(spec.repo_id).expanduser().resolve()
        for pattern, what in (("config.json", "config.json"), ("*.safetensors", "safetensors weights")):
            if not any(folder.glob(pattern)):
                raise UserError(
                    f"repo_id = '{spec.repo_id}': the folder holds no {what}. Give a folder written by "
                    "save_pretrained() with safetensors (pickled .bin weights are refused), "
                    f"a Hub id, or '{STARTER}'."
                )
        return folder
    return _fetch(spec, progress)


def _fetch(spec: ModelSpec, progress: Callable[[str], None] | None) -> Path:
    import huggingface_hub
    from huggingface_hub import errors as hub

    alternatives = f"Choose '{STARTER}' (built in, works offline) or a folder with a model"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", spec.repo_id):
        raise UserError(
            f"repo_id = '{spec.repo_id}' is neither '{STARTER}', nor a folder on this machine, nor a Hub id "
            f"(owner/name). {alternatives}."
        )
    fetch: Any = huggingface_hub.snapshot_download
    wanted: dict[str, Any] = {"revision": spec.revision, "allow_patterns": list(HUB_FILES)}
    try:
        return Path(fetch(spec.repo_id, local_files_only=True, **wanted))
    except (hub.LocalEntryNotFoundError, FileNotFoundError):
        pass
    if progress:
        progress(f"fetching {spec.repo_id} from the Hugging Face Hub")
    try:
        return Path(fetch(spec.repo_id, **wanted))
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.GatedRepoError) as error:
        raise UserError(
            f"The Hugging Face Hub does not give out '{spec.repo_id}': {str(error).splitlines()[0]} {alternatives}."
        ) from None
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, hub.HfHubHTTPError, OSError):
        raise UserError(
            f"repo_id = '{spec.repo_id}' is not on this machine, and the Hugging Face Hub can't be reached. "
            f"{alternatives}; or connect once to fetch it."
        ) from None


def choose_device(spec: ModelSpec) -> torch.device:
    import torch

    if spec.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[spec.device]:
        here = ", ".join(name for name, there in available.items() if there)
        raise UserError(f"device = '{spec.device}' is not on this machine. Available: {here}. Or choose 'auto'.")
    return torch.device(spec.device)


def choose_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """The dtype asked for, or the one measured (CPU) or known (GPU) to be fast on this device."""
    import torch

    if spec.dtype != "auto":
        return getattr(torch, spec.dtype)
    if device.type == "cuda":
        # bf16 needs Ampere; transformers would accept it emulated on older cards
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return hardware.best_cpu_dtype() if device.type == "cpu" else torch.float16


def choose_attention(device: torch.device, dtype: torch.dtype) -> str:
    """'eager' or 'sdpa': what the plain path attends with on this device."""
    return hardware.best_cpu_attention(dtype) if device.type == "cpu" else "sdpa"


def _load_weights(
    spec: ModelSpec, folder: Path, device: torch.device, dtype: torch.dtype, attention: str | None
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from tunelab.model import quantization

    logging.disable_progress_bar()

    options: dict[str, Any] = {}
    if spec.quantization != "none":
        quantization.check_available(spec, device)
        options["quantization_config"] = quantization.bitsandbytes_config(spec, dtype)
        options["device_map"] = {"": device}
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        attn_implementation=attention or choose_attention(device, dtype),
        **options,
    )
    if spec.quantization == "none":
        model.to(device)
    elif quantization.should_dequantize(spec, quantization.quantized_weights(model), dtype, device):
        quantization.dequantize_linears(model, dtype)
    else:
        quantization.keep_trainable(model)
    if device.type == "cpu":
        _leave_file(model)
    return model


def _leave_file(model: PreTrainedModel) -> None:
    """Copy what still lies in the mapped weight file: one such tensor keeps all of the file in memory. What loading and
    quantising left behind is given back."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()
    gc.collect()  # quantised layers that were replaced form cycles
    hardware.release_free_memory()


def weights_sha256(folder: Path) -> str:
    """sha256 over the weight files of a folder. The Hub's cache names files by their sha256: those are not read."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        blob = path.resolve().name
        if re.fullmatch(r"[0-9a-f]{64}", blob):
            digest = blob
        else:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(json.dumps([path.name, digest]).encode())
    return total.hexdigest()
