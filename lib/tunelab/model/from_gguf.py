"""A model from one GGUF file: dequantised once into the cache, and then a folder like any other.

    FILE.gguf ──> read_header, check_header ──> weights, configuration, tokenizer ──> folder in the cache

It is made in a temporary folder and renamed at the end, under a lock: interrupted, or refused on the way, it leaves
nothing. A file that is changed is read anew, and what was made of it before is removed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tunelab.errors import UserError, shown_name
from tunelab.machine import libraries
from tunelab.machine.files import cache_root, replacing
from tunelab.model.folder import json_of
from tunelab.model.gguf_header import PLAIN_TYPES, ROPE_FACTORS, Header, check_header, failure, read_header, refusal
from tunelab.model.gguf_tokenizer import read_tokenizer

FORMAT = 1
FACTS_FILE = "gguf.json"
HEAD = "lm_head.weight"
SPARE = 500_000_000  # bytes of the disk that are left free
SENTENCE = "The three primary colours are red, green and blue, and water boils at one hundred degrees."
LEARNED = 0.8  # of the loss of guessing: a model that has learned anything is far below

Report = Callable[[str], None]
_READING = threading.Lock()  # one thread of a process at a time: the libraries are not asked for two files at once


def facts(folder: Path) -> dict[str, Any]:
    """What is known of a folder that was made of a GGUF file: `name`, `stored_as`, `source_sha256`, `note`; nothing for
    any other folder."""
    return json_of(folder / FACTS_FILE)


def folder_of(repo_id: str, progress: Report | None = None) -> Path:
    """The folder (safetensors, config, tokenizer) that holds the model of a GGUF file, made first if need be.

    Raises:
        UserError: there is no such file, it can't be read, or the disk is too small for what comes of it.
    """
    from filelock import FileLock

    path = Path(repo_id).expanduser()
    if not path.is_file():
        raise UserError(
            f"repo_id = '{repo_id}': there is no such file. Give the path of a GGUF file on this machine; one on the "
            "Hub is fetched with `hf download OWNER/NAME FILE --local-dir .`."
        )
    path = path.resolve()
    folder = cached_folder(path)
    if (folder / FACTS_FILE).is_file():
        return folder
    report = progress or (lambda message: None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f"{_key(str(path))}.lock"):
        if not (folder / FACTS_FILE).is_file():
            _make(path, folder, report)
    return folder


def cached_folder(path: Path) -> Path:
    """Where what a file holds now is kept, whether it has been made or not."""
    found = path.stat()
    state = _key(f"{FORMAT} {found.st_size} {found.st_mtime_ns}")
    return cache_root() / "gguf" / f"{_key(str(path))}-{state}"


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _make(path: Path, folder: Path, report: Report) -> None:
    with _read_once():
        header = read_header(path)
        check_header(header)
        _check_disk(header, folder.parent)
        report(f"reading {shown_name(path.name)} ({header.numbers / 1e6:,.0f} M weights in {header.stored_as}, once)")
        for leftover in folder.parent.glob(f".{folder.name}.*"):  # of a process that died: this one has the lock
            shutil.rmtree(leftover, ignore_errors=True)
        # without the progress bars of the libraries
        with replacing(folder) as temporary, contextlib.redirect_stderr(io.StringIO()):
            _convert(header, temporary)
    for before in folder.parent.glob(f"{folder.name.partition('-')[0]}-*"):
        if before != folder:
            shutil.rmtree(before, ignore_errors=True)


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Has transformers take the reader that there is already of a file, where it makes one each for the configuration
    and for the weights: with a vocabulary of 50,000 each takes seconds."""
    import gguf

    with _READING:
        reader = gguf.GGUFReader
        gguf.GGUFReader = functools.cache(reader)  # type: ignore[assignment, misc]
        try:
            yield
        finally:
            gguf.GGUFReader = reader  # type: ignore[misc]


def _check_disk(header: Header, place: Path) -> None:
    needed = header.numbers * (4 if header.dtype == "float32" else 2)
    free = shutil.disk_usage(place).free
    if needed + SPARE > free:
        raise UserError(
            f"repo_id = '{shown_name(header.path.name)}': dequantised it takes {needed / 1e9:.1f} GB, and the disk has "
            f"{free / 1e9:.1f} GB free at {place}. Free some space, or set TUNELAB_CACHE to a folder on a larger disk."
        )


def _convert(header: Header, folder: Path) -> None:
    """Write safetensors, configuration, tokenizer and facts.

    Raises:
        UserError: the file lacks weights of its model, holds others, or its tokenizer can't be read.
    """
    import torch
    from huggingface_hub import save_torch_state_dict
    from transformers import GenerationConfig

    config = _config(header)
    tokenizer, ends = read_tokenizer(header)
    if len(tokenizer) > config.vocab_size:
        tokens = f"its tokenizer has {len(tokenizer):,} tokens, and its model {config.vocab_size:,} embeddings"
        raise refusal(header.path, tokens)
    model = _model(header, config)
    loss = _loss(model, tokenizer)
    model.to(getattr(torch, header.dtype))
    config.dtype = header.dtype
    config.architectures = [type(model).__name__]
    for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
        setattr(config, name, getattr(tokenizer, name))
    save_torch_state_dict(_weights_of(model), folder)  # a model loaded from GGUF does not save itself
    config.save_pretrained(folder)
    GenerationConfig(
        eos_token_id=ends or None, bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with open(header.path, "rb") as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    known = {"format": FORMAT, "name": header.path.stem, "source": str(header.path), "source_sha256": source}
    known |= {"stored_as": header.stored_as, "note": _note(header), "doubt": _doubt(loss, config.vocab_size)}
    (folder / FACTS_FILE).write_text(json.dumps(known, indent=1), encoding="utf-8")


def _note(header: Header) -> str:
    kind = header.stored_as
    return f"weights of a GGUF file in {kind}" + ("" if kind in PLAIN_TYPES else ", dequantised")


def _doubt(loss: float, words: int) -> str:
    """What to say where the model that was read predicts an ordinary sentence hardly better than chance."""
    if loss < LEARNED * math.log(words):
        return ""
    return (
        f"read from GGUF, it predicts an ordinary sentence hardly better than chance ({loss:.1f} nats a token): either "
        "it has learned no English, or its file was written in a way that is not known here"
    )


def _config(header: Header) -> Any:
    """The configuration, with what transformers leaves at its defaults taken from the file."""
    from transformers import AutoConfig, LlamaConfig

    path = header.path
    try:
        config: Any = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # it asks several libraries
        raise failure(path, "settings", error) from None
    if config.model_type == "mistral":  # a llama file that is called so, with the window of the first Mistral
        config = LlamaConfig.from_dict(config.to_dict() | {"model_type": "llama", "sliding_window": None})
    vars(config).pop("quantization_config", None)
    config.pad_token_id = None  # the class's own may be beyond the embeddings; the tokenizer's is set later
    config.head_dim = header.head_size
    if window := header.setting("attention.sliding_window"):
        config.sliding_window = int(window)
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if (cap := header.setting(name)) is not None:
            setattr(config, name, float(cap))
    if header.architecture in ("gemma2", "gemma3"):
        config.query_pre_attn_scalar = header.head_size
    theta = header.setting("rope.freq_base")
    if theta is not None:
        _set_theta(config, float(theta))
    if header.rope_factors:
        _set_llama3_rope(config, header)
    return config


def _set_theta(config: Any, theta: float) -> None:
    """The base of the RoPE; where layers differ, it is that of those that see everything."""
    rope = config.rope_parameters
    (rope if "rope_type" in rope else rope["full_attention"])["rope_theta"] = theta


def _set_llama3_rope(config: Any, header: Header) -> None:
    """The scaling whose result the file holds, found by computing it.

    Raises:
        UserError: it is not the one of Llama 3.1 and 3.2.
    """
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    factors = torch.tensor(header.rope_factors, dtype=torch.float32)
    theta, size = config.rope_parameters["rope_theta"], header.head_size
    plain = 1.0 / theta ** (torch.arange(0, size, 2).float() / size)
    settings = {"factor": float(factors.max()), "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config.rope_parameters = {
        **{"rope_type": "llama3", "rope_theta": theta, "original_max_position_embeddings": 8192},
        **settings,
    }
    scaled, _attention = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    if factors.shape != plain.shape or not torch.allclose(plain / factors, scaled, rtol=1e-4):
        raise refusal(
            header.path, f"{ROPE_FACTORS} scales its RoPE otherwise than Llama 3.1 and 3.2 do, which is not known here"
        )


def _model(header: Header, config: Any) -> Any:
    """The model with the file's weights, every one of them in its place."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    path = header.path
    load_with: Any = AutoModelForCausalLM.from_pretrained
    try:
        with libraries.building():
            source, info = load_with(
                path.parent,
                gguf_file=path.name,
                config=config,
                quantization_config=GgufConfig(dequantize=True),
                dtype=getattr(torch, header.dtype),
                output_loading_info=True,
            )
    except Exception as error:
        raise failure(path, "weights", error) from None
    lacking = sorted(set(info["missing_keys"]) - ({HEAD} if _is_tied(source) else set()))
    places = len({id(weight) for weight in source.parameters()})
    held = len(set(header.tensors) - {ROPE_FACTORS})
    if lacking or info["mismatched_keys"] or held != places:
        what = f"e.g. {lacking[0]}" if lacking else f"it holds {held} tensors, and the model has {places}"
        raise refusal(path, f"its weights are not those of a {header.architecture} model ({what})")
    return source


def _is_tied(model: Any) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _weights_of(model: Any) -> dict[str, Any]:
    """The weights by name, a head that is the embeddings left out."""
    return {k: v for k, v in model.state_dict().items() if not (_is_tied(model) and k == HEAD)}


def _loss(model: Any, tokenizer: Any) -> float:
    """Nats a token of an ordinary sentence."""
    import torch

    ids = tokenizer(SENTENCE, return_tensors="pt").input_ids
    with torch.no_grad():
        return float(model.eval()(input_ids=ids, labels=ids).loss)
