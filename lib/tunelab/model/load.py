"""Load a `ModelSpec`: weights frozen, precision measured, quantised if asked.

    ModelSpec ──> load() ──> Base (model, tokenizer, and the facts a run records about them)

Only safetensors are read, never a pickle, and no code from a model's repository is run; an adapter that lies beside
the weights is left alone, and weights that are missing are an error, not random numbers (`folder.py`). Where a
quantised base is kept dequantised (`keep_dequantized`), its linear layers hold the very values the 4-bit weights stand
for: the same base, faster and larger.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.errors import UserError
from tunelab.machine import gpus, hardware, libraries, mapped
from tunelab.model import attention as attending
from tunelab.model import folder as folders
from tunelab.model import from_gguf, hub, starter
from tunelab.spec import STARTER, ModelSpec

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOLD = 160  # characters of another library's message
NUMBERS_AT_ONCE = 32 * 2**20  # that are copied of a large tensor
COPIED_AT_ONCE = 128 * 2**20  # bytes


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
    notes: tuple[str, ...] = ()  # what was left out or done otherwise when it was loaded, a sentence each
    revision: str = ""  # the commit on the Hub that it is of

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def precision(self) -> str:
        """How weights and computation are held, for provenance: 'nf4, bfloat16'."""
        return self.dtype_name if self.spec.quantization == "none" else f"{self.spec.quantization}, {self.dtype_name}"

    @property
    def pad_id(self) -> int:
        """A token to fill rows with. Which one is no matter: padding is told by a row's length."""
        given: int | None = self.tokenizer.pad_token_id
        embeddings: Any = self.model.get_input_embeddings()
        return given if given is not None and given < len(embeddings.weight) else 0


def load(spec: ModelSpec, progress: Callable[[str], None] | None = None, *, attention: str | None = None) -> Base:
    """The model of `spec`, frozen and in evaluation mode, with its tokenizer. `attention`: 'eager' or 'sdpa'; None:
    what measures faster on a CPU, 'sdpa' elsewhere.

    Raises:
        UserError: the model can't be found, fetched, or quantised on this machine.
    """
    folder = find(spec, progress)  # prepares the libraries: has to come before torch
    import torch

    folders.check_config(folders.read_config(folder), spec)
    device = choose_device(spec)
    if device.type == "cpu":
        torch.set_num_threads(hardware.threads())
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
    folders.check_config(folders.read_config(folder), spec)
    device = choose_device(spec)
    dtype = choose_dtype(spec, device)
    return _base(spec, folder, empty_model(folder, dtype), device, dtype)


def empty_model(folder: Path, dtype: torch.dtype, attention: str = "eager") -> PreTrainedModel:
    """The model of a folder on the meta device, frozen: shapes, no contents."""
    import torch
    from transformers import AutoModelForCausalLM

    config = folders.read_config(folder)
    with libraries.building(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention, trust_remote_code=False
        )
    model.requires_grad_(False)
    return model


def read_model(folder: Path, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    """The model whose weights lie in a folder, and nothing else that lies there.

    Raises:
        UserError: weights are missing, damaged, or of other sizes than config.json says.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    where = f"The weights in {folder.name}"
    load_with: Any = AutoModelForCausalLM.from_pretrained
    try:
        with libraries.building(), mapped.given_back_while_read(folders.weight_files(folder)):
            model, info = load_with(
                folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                adapter_kwargs=dict(folders.NO_ADAPTER),
                ignore_mismatched_sizes=True,  # they are told, as those that are missing
                output_loading_info=True,
                **options,
            )
    except SafetensorError as error:
        raise UserError(f"{where} are damaged ({error}). Copy or fetch them again.") from None
    if wrong := folders.misfit(folder, model, info):
        raise UserError(f"{where} {wrong}")
    # a head of its own in the files is used whatever config.json says; whoever writes the model must know
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is not embeddings.weight:
        model.config.get_text_config().tie_word_embeddings = False
    return model


def _base(spec: ModelSpec, folder: Path, model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> Base:
    from tunelab.model import quantization

    known = _published(spec, folder)
    return Base(
        spec=spec,
        model=model,
        tokenizer=load_tokenizer(spec),
        dtype=dtype,
        device=device,
        sha256=known.get("weights_sha256") or weights_sha256(folder),
        published_name=known["name"],
        note=known["note"],
        notes=(*origin_notes(spec, folder), *quantization.notes_on(model, spec)),
        revision=hub.commit_of(folder),
    )


def _published(spec: ModelSpec, folder: Path) -> dict[str, Any]:
    """How others find a model, and what to know about it: `name`, `note`; of the starter also `weights_sha256`."""
    if spec.repo_id == STARTER:
        return starter.facts(folder) | {"name": starter.PUBLISHED_AS, "note": starter.NOTE}
    if is_folder(spec):
        return {"name": folder.name, "note": ""}
    if spec.names_gguf:
        return {key: value for key, value in from_gguf.facts(folder).items() if key in ("name", "note")}
    return {"name": spec.repo_id, "note": ""}


def origin_notes(spec: ModelSpec, folder: Path) -> list[str]:
    """What to know of where a model comes from, a sentence each."""
    notes = folders.notes_on(folder)
    if spec.names_gguf and (doubt := from_gguf.facts(folder).get("doubt")):
        notes.append(doubt)
    if spec.revision and not hub.commit_of(folder):
        notes.append(f"revision = '{spec.revision}' is left out: only a model on the Hub has revisions")
    return notes


def unwrapped(model: Any) -> Any:
    """The transformers model inside PEFT's, with what the adapter put into its layers; or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def load_tokenizer(spec: ModelSpec, progress: Callable[[str], None] | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of `spec`, with a padding token where it has an end. Where it names no end of text, the model's
    settings may.

    Raises:
        UserError: the model can't be found or fetched.
    """
    from transformers import AutoTokenizer

    folder = find(spec, progress)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # files of many formats, read by as many libraries
        reason = " ".join(str(error).split())[:TOLD]
        raise UserError(
            f"repo_id = '{spec.repo_id}': its tokenizer can't be read ({type(error).__name__}: {reason}). The folder "
            "needs tokenizer.json, or the files of a tokenizer that transformers knows."
        ) from None
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = _end_in_settings(folder, tokenizer)
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _end_in_settings(folder: Path, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The end-of-text token that the settings beside a model name, if they name one that the tokenizer has."""
    for name in ("generation_config.json", "config.json"):
        named = folders.json_of(folder / name).get("eos_token_id")
        for index in named if isinstance(named, list) else [named]:
            if not isinstance(index, int) or not 0 <= index < len(tokenizer):
                continue
            token = tokenizer.convert_ids_to_tokens(index)
            # a configuration class may name its own default, which is an ordinary word to this tokenizer
            if isinstance(token, str) and (index in tokenizer.added_tokens_decoder or re.fullmatch("<.+>", token)):
                return token
    return None


def is_folder(spec: ModelSpec) -> bool:
    return os.path.isdir(os.path.expanduser(spec.repo_id))  # False also for what can't be the name of a folder


def find(spec: ModelSpec, progress: Callable[[str], None] | None = None) -> Path:
    """The folder on this machine that holds the model, fetched, or made of a GGUF file, if need be.

    Raises:
        UserError: there is no such folder or file, it holds no model, or the Hub does not have it or can't be reached.
    """
    libraries.prepare()  # every way of loading anything comes by here
    if spec.repo_id == STARTER:
        return starter.starter_path(progress)
    if is_folder(spec):
        folder = Path(spec.repo_id).expanduser().resolve()
        folders.check_folder(folder, spec.repo_id)
        return folder
    if spec.names_gguf:
        return from_gguf.folder_of(spec.repo_id, progress)
    return hub.fetch(spec, progress)


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
        return gpus.half_precision(device)
    return hardware.best_cpu_dtype() if device.type == "cpu" else torch.float16


def _load_weights(
    spec: ModelSpec, folder: Path, device: torch.device, dtype: torch.dtype, attention: str | None
) -> PreTrainedModel:
    from transformers.utils import logging

    from tunelab.model import quantization

    logging.disable_progress_bar()

    options: dict[str, Any] = {}
    if spec.quantization != "none":
        quantization.check_available(spec, device)
        options["device_map"] = {"": device}
        if not folders.stored_quantization(folders.read_config(folder)):
            options["quantization_config"] = quantization.bitsandbytes_config(spec, dtype)
    attending.prepare(device)
    chosen = attending.choose_attention(folder, device, dtype, attention)
    model: Any = read_model(folder, dtype, attn_implementation=chosen, **options)
    if spec.quantization == "none":
        model.to(device)
    elif quantization.should_dequantize(spec, quantization.quantized_weights(model), dtype, device):
        quantization.dequantize_linears(model, dtype)
    else:
        quantization.keep_trainable(model)
        quantization.compute_in(model, dtype)
    if device.type == "cpu":
        _leave_file(model, folders.weight_files(folder))
    return model


def _leave_file(model: PreTrainedModel, files: Sequence[Path]) -> None:
    """Copy what still lies in the mapped weight files: one such tensor keeps all of a file in memory. What loading and
    quantising left behind is given back."""
    import torch

    copied = 0
    for parameter in model.parameters():
        if not parameter.is_floating_point():
            continue
        before, parameter.data = parameter.data, torch.empty_like(parameter.data)
        whole = before.is_contiguous()
        each = (tensor.view(-1) if whole else torch.atleast_1d(tensor) for tensor in (before, parameter.data))
        parts = (tensor.split(NUMBERS_AT_ONCE) for tensor in each)
        for source, target in zip(*parts, strict=True):
            target.copy_(source)
            copied += source.nbytes
            if copied > COPIED_AT_ONCE:
                mapped.give_back(files)
                copied = 0
    gc.collect()  # quantised layers that were replaced form cycles
    hardware.release_free_memory()


def weights_sha256(folder: Path) -> str:
    """sha256 over the files that a folder's weights are read from. The Hub's cache names files by their sha256: those
    are not read."""
    total = hashlib.sha256()
    for path in folders.weight_files(folder):
        blob = path.resolve().name
        if re.fullmatch(r"[0-9a-f]{64}", blob):
            digest = blob
        else:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(json.dumps([path.name, digest]).encode())
    return total.hexdigest()
