"""What a zip or folder from a stranger may hold, and what its files say before they are read.

Nothing is unpacked: names are checked, then the three files that matter are read in memory, their sizes known before.
What a trainer leaves beside an adapter (its optimiser's state, checkpoints, a tokenizer) is passed over unopened.
"""

from __future__ import annotations

import hashlib
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from math import prod
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tunelab.errors import UserError
from tunelab.export.foreign_config import parse_json
from tunelab.techniques.base import CONFIG_FILE, WEIGHTS_FILE

MAX_ENTRIES = 64
MAX_JSON_BYTES = 1_000_000
MAX_HEADER_BYTES = 16_000_000
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
CODE = (".py", ".pyc", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat")
PICKLED_WEIGHTS = "adapter_model.bin"
# what trainers (Trainer, TRL, Unsloth, DeepSpeed, FSDP) leave in an adapter's folder, beside plain text
TRAINERS_FILES = re.compile(
    r"training_args\.bin|adapter_model\.bin|(optimizer|scheduler|scaler)(_\d+)?\.(pt|pth|bin)|rng_state(_\d+)?\.pth"
    r"|zero_to_fp32\.py|pytorch_model_fsdp(_\d+)?\.bin|random_states_\d+\.pkl|sampler(_\d+)?\.bin"
    r"|dl_state_dict(_\d+)?\.bin|custom_checkpoint_\d+\.pkl|value_head\.bin"
)
TRAINERS_FOLDERS = re.compile(r"(checkpoint-|global_step)\d+|runs|logs")
TYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Entry:
    """A file in a folder or a zip."""

    size: int
    open: Callable[[], IO[bytes]]


@contextmanager
def open_entries(source: Path) -> Iterator[dict[str, Entry]]:
    """The files beside the adapter's configuration, by name, all names checked."""
    if source.is_dir():
        files = [p for p in sorted(source.iterdir()) if p.is_file()]
        yield _needed({p.name: Entry(p.stat().st_size, partial(FileIO, p)) for p in files}, source)
        return
    if not source.is_file():
        raise UserError(f"There is no file or folder {source}. Give an adapter's folder, or a zip of it.")
    try:
        with zipfile.ZipFile(source) as archive:
            infos = _safe_infos(archive)
            _check_infos({n: i for n, i in infos.items() if not _of_a_trainer(PurePosixPath(n))})
            folder = _folder_of_adapter(list(infos), source)
            inside = {n: i for n, i in infos.items() if PurePosixPath(n).parent == folder}
            _check_infos(inside)
            found = {PurePosixPath(n).name: Entry(i.file_size, partial(archive.open, i)) for n, i in inside.items()}
            yield _needed(found, source)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise UserError(
            f"{source.name} is not a zip that can be read ({error}). Give an adapter's folder, or a zip of it."
        ) from None


def _safe_infos(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files in a zip by name, none of which leads out of its folder."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    for info in infos:
        name = info.orig_filename
        if name.startswith("/") or "\\" in name or "\0" in name or ":" in name or ".." in PurePosixPath(name).parts:
            raise UserError(f"The zip holds {name!r}, a name that leads out of its folder. Such a zip is refused.")
    if len({info.filename for info in infos}) < len(infos):
        raise UserError("The zip holds two files of the same name. Such a zip is refused.")
    return {info.filename: info for info in infos}


def _check_infos(infos: dict[str, zipfile.ZipInfo]) -> None:
    if len(infos) > MAX_ENTRIES:
        raise UserError(f"The zip holds {len(infos)} files; an adapter has a handful, allowed are {MAX_ENTRIES}.")
    for name, info in infos.items():
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(f"The zip holds {name!r}, a link. Put the file itself into the zip.")
        if info.flag_bits & 1:
            raise UserError(f"The zip's {name!r} is encrypted. Give a zip without a password.")
    _check_names(list(infos))


def _of_a_trainer(path: PurePosixPath) -> bool:
    """Whether it is what a trainer left, by its own name or its folder's."""
    inside = any(TRAINERS_FOLDERS.fullmatch(part) for part in path.parts[:-1])
    return inside or bool(TRAINERS_FILES.fullmatch(path.name))


def _check_names(names: list[str]) -> None:
    for name in names:
        suffix = PurePosixPath(name).suffix.lower()
        if TRAINERS_FILES.fullmatch(PurePosixPath(name).name):
            continue
        if suffix in PICKLES:
            raise UserError(
                f"{name} is a pickle, which can run code when it is read, so an adapter with one is refused. Save it "
                f"again with PEFT's save_pretrained(safe_serialization=True), and leave only {CONFIG_FILE} and "
                f"{WEIGHTS_FILE}."
            )
        if suffix in CODE:
            raise UserError(f"{name} is code, and an adapter needs none. Leave only {CONFIG_FILE} and {WEIGHTS_FILE}.")


def _folder_of_adapter(names: list[str], source: Path) -> PurePosixPath:
    """The folder in a zip that holds the adapter; one in a trainer's checkpoints counts where it is the only one."""
    folders = [PurePosixPath(name).parent for name in names if PurePosixPath(name).name == CONFIG_FILE]
    results = [folder for folder in folders if not any(TRAINERS_FOLDERS.fullmatch(part) for part in folder.parts)]
    chosen = results or folders
    if len(chosen) != 1:
        raise UserError(f"{source.name} holds {len(chosen)} files called {CONFIG_FILE}; one adapter has exactly one.")
    return chosen[0]


def _needed(entries: dict[str, Entry], source: Path) -> dict[str, Entry]:
    if WEIGHTS_FILE not in entries and PICKLED_WEIGHTS in entries:
        raise UserError(
            f"{source.name} holds its weights in {PICKLED_WEIGHTS}, a pickle, which can run code when it is read. "
            "Where it was made, load it with PEFT's PeftModel.from_pretrained(base, folder) and write it with "
            f"save_pretrained(new_folder): that makes {WEIGHTS_FILE}."
        )
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in entries:
            raise UserError(
                f"{source.name} is no adapter: {name} is missing. PEFT's save_pretrained() writes it."
                f"{_checkpoints(source)}"
            )
    return entries


def _checkpoints(source: Path) -> str:
    """A hint where the adapters lie in a trainer's checkpoints below the folder that was given."""
    if not source.is_dir():
        return ""
    found = sorted((p.parent for p in source.glob(f"checkpoint-*/{CONFIG_FILE}")), key=lambda p: (len(p.name), p.name))
    return f" It holds checkpoints; give one of them, e.g. {found[-1].name}." if found else ""


def read_json(entries: dict[str, Entry], name: str) -> dict[str, Any]:
    if entries[name].size > MAX_JSON_BYTES:
        raise UserError(f"{name} has {entries[name].size:,} bytes; allowed are {MAX_JSON_BYTES:,}.")
    with entries[name].open() as file:
        return parse_json(file.read(MAX_JSON_BYTES + 1), name)


def read_header(entry: Entry) -> Shapes:
    """Names and shapes in a safetensors file, from its header alone; the weights are not read.

    Raises:
        UserError: it is not one, or its size is not what the header says.
    """
    problem = f"{WEIGHTS_FILE} is damaged, or no safetensors file"
    with entry.open() as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, entry.size - 8):
            raise UserError(f"{problem}: its header would have {length:,} bytes. Export the adapter again.")
        header = parse_json(file.read(length), f"The header of {WEIGHTS_FILE}")
    header.pop("__metadata__", None)
    shapes: Shapes = {}
    expected = 8 + length
    for name, tensor in header.items():
        kind, shape = (tensor.get("dtype"), tensor.get("shape")) if isinstance(tensor, dict) else (None, None)
        if kind not in TYPE_BYTES:
            raise UserError(f"{WEIGHTS_FILE}: {name[:200]} has type {kind!r}; allowed: {', '.join(TYPE_BYTES)}.")
        if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
            raise UserError(f"{problem}: {name[:200]} has the shape {str(shape)[:80]}. Export the adapter again.")
        shapes[name] = tuple(shape)
        expected += TYPE_BYTES[kind] * prod(shape)
    if expected != entry.size:
        raise UserError(f"{problem}: it has {entry.size:,} bytes where its header says {expected:,}.")
    return shapes


def sha256_of(entry: Entry) -> str:
    with entry.open() as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
