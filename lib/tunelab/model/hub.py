"""Models from the Hugging Face Hub, kept in its cache on this machine.

    name ──> commit ──> what the repository holds ──> refused, or fetched ──> the folder, whole

A branch is pinned to the commit that it stands for before anything is fetched, so that all files are of one state of
the model. What lies in the cache is used only where it is all of a model: a tokenizer alone, weights alone, or some of
them, is what other programs and torn downloads leave there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tunelab.errors import UserError, listed
from tunelab.model import download
from tunelab.model import folder as folders
from tunelab.model.hub_words import ALTERNATIVES, in_words, sized
from tunelab.spec import STARTER, ModelSpec

FILES = ("*.safetensors", "*.json", "*.model", "*.jinja", "merges.txt", "vocab.txt")
NOT_NEEDED = ("consolidated*", "adapter_model*", "*/*")  # the weights again in their makers' own format; adapters
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
COMMIT = re.compile(r"[0-9a-f]{40}")
SPARE = 500_000_000  # bytes of the disk that a download leaves free


def fetch(spec: ModelSpec, progress: Callable[[str], None] | None) -> Path:
    """The folder in the Hub's cache that holds the model, whole; fetched if it is not there, or only in part.

    Raises:
        UserError: the Hub does not have it, can't be reached, or holds no model that can be read here.
    """
    if spec.repo_id[:1] in "./~" or not re.fullmatch(r"[\w.-]+/[\w.-]+", spec.repo_id):
        raise UserError(
            f"repo_id = '{spec.repo_id}' is neither '{STARTER}', nor a folder or GGUF file on this machine, nor a Hub "
            f"id (owner/name). {ALTERNATIVES}."
        )
    cached = _cached(spec)
    whole = cached is not None and not folders.missing_files(cached) and folders.has_tokenizer(cached)
    if cached and whole and (folders.has_chat_template(cached) or _is_listed(cached)):
        return cached
    report = progress or (lambda message: None)
    report(f"fetching {spec.repo_id} from the Hugging Face Hub")
    try:
        fetched = _fetched(spec, report)
    except UserError:
        if cached and whole:  # a model without a chat template, or whose template was not fetched: only the Hub knows
            return cached
        raise
    folders.check_folder(fetched, spec.repo_id)
    return fetched


def commit_of(folder: Path) -> str:
    """The commit whose files a folder of the Hub's cache holds; '' for any other folder."""
    in_cache = folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name)
    return folder.name if in_cache else ""


def cached_commit(spec: ModelSpec) -> str:
    """The commit that a model's revision stands for in the cache; '' where the cache does not know it."""
    if spec.revision and COMMIT.fullmatch(spec.revision):
        return spec.revision
    ref = download.repository_folder(spec.repo_id) / "refs" / (spec.revision or "main")
    try:
        return ref.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def at_commit(spec: ModelSpec) -> ModelSpec:
    """The model at the commit that the branch or tag it names stands for in the cache; one that names none as it is."""
    return spec.model_copy(update={"revision": cached_commit(spec) or spec.revision}) if spec.revision else spec


def cached_models() -> list[str]:
    """The ids of the repositories in the Hub's cache that models lie in, or parts of them."""
    home = download.repository_folder("a/b").parent
    folders_of = (folder.name.split("--") for folder in sorted(home.glob("models--*--*")))
    return ["/".join(parts[1:]) for parts in folders_of if len(parts) == 3]


def cached_folder(repo_id: str) -> Path | None:
    """The folder in the cache that holds a model whole; None where there is none."""
    folder = _cached(ModelSpec(repo_id=repo_id))
    whole = folder and not folders.missing_files(folder) and folders.has_tokenizer(folder)
    return folder if whole else None


def _cached(spec: ModelSpec) -> Path | None:
    """The folder in the cache, whatever there is of the model; None where there is nothing."""
    from huggingface_hub import errors

    try:
        return _snapshot(spec, local_files_only=True)
    except (errors.LocalEntryNotFoundError, FileNotFoundError):
        return None


def _is_listed(folder: Path) -> bool:
    """Whether what the Hub has at the commit of a folder is known here: then the cache gives the folder only where it
    is whole, and what it lacks, a chat template say, the Hub lacks as well."""
    return (folder.parents[1] / "trees" / f"{folder.name}.json").is_file()


def _fetched(spec: ModelSpec, report: Callable[[str], None]) -> Path:
    """The folder as the Hub fills it, every file of it there.

    Raises:
        UserError: with what the Hub, the network or the disk refuses, and the next step.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        revision = api.resolve_revision(spec.repo_id, revision=spec.revision)
        held = [file for file in api.list_repo_tree(spec.repo_id, revision=revision.resolved) if hasattr(file, "size")]
        _check_held(spec, [file.path for file in held])
        needed = [file for file in held if _is_needed(file.path)]
        _check_disk(spec, needed)
        download.fetch_large(spec.repo_id, revision.resolved, needed, report)
        return _snapshot(spec.model_copy(update={"revision": revision.resolved}))
    except UserError:
        raise
    except Exception as error:  # of the network, of HTTP and of the Hub, each from a library of its own
        if known := in_words(spec, error, _state(spec)):
            raise known from None
        raise


def _snapshot(spec: ModelSpec, **options: Any) -> Path:
    import huggingface_hub

    fetch_all: Any = huggingface_hub.snapshot_download
    patterns = {"allow_patterns": list(FILES), "ignore_patterns": list(NOT_NEEDED)}
    return Path(fetch_all(spec.repo_id, revision=spec.revision, **patterns, **options))


def _is_needed(name: str) -> bool:
    return any(fnmatch(name, one) for one in FILES) and not any(fnmatch(name, one) for one in NOT_NEEDED)


def _check_held(spec: ModelSpec, names: Sequence[str]) -> None:
    """Refuse a repository that holds no model that can be read here, before anything of it is fetched.

    Raises:
        UserError: with what it holds instead, and what to do with that.
    """
    if any(fnmatch(name, "*.safetensors") and _is_needed(name) for name in names) and folders.CONFIG in names:
        return
    where = f"repo_id = '{spec.repo_id}'"
    if folders.ADAPTER_CONFIG in names:
        raise UserError(
            f"{where} holds an adapter and no model. Give its base as the model; the adapter's files, fetched into a "
            "folder, are brought in with `tunelab import FOLDER --model BASE`."
        )
    if ggufs := sorted(name for name in names if name.endswith(".gguf")):
        raise UserError(
            f"{where} holds GGUF files and no safetensors. Fetch one with `hf download {spec.repo_id} FILE --local-dir "
            f".` and give its path as repo_id, e.g. of {listed(ggufs, 2)}."
        )
    if any(fnmatch(name, one) for name in names for one in PICKLES):
        raise UserError(
            f"{where} holds no safetensors weights, only pickled ones (.bin, .pt), which can run code when they are "
            f"read and are refused. Look for a repository with .safetensors. {ALTERNATIVES}."
        )
    lacking = folders.CONFIG if folders.CONFIG not in names else "safetensors weights"
    raise UserError(f"{where}: the repository holds no {lacking}, so no model. {ALTERNATIVES}.")


def _check_disk(spec: ModelSpec, files: Sequence[Any]) -> None:
    """Refuse a model that is larger than what is free where it would lie.

    Raises:
        UserError: with both sizes.
    """
    needed, home = download.missing_bytes(spec.repo_id, files), download.repository_folder(spec.repo_id)
    place = next(folder for folder in home.parents if folder.exists())
    free = shutil.disk_usage(place).free
    if needed and needed + SPARE > free:
        raise UserError(
            f"repo_id = '{spec.repo_id}' takes {sized(needed)} more, and the disk has {sized(free)} free at {place}. "
            "Free some space, set HF_HUB_CACHE to a folder on a larger disk, or choose a smaller model (`tunelab "
            "models`)."
        )


def _state(spec: ModelSpec) -> str:
    """What is here of a model that could not be fetched, in a clause."""
    blobs = download.repository_folder(spec.repo_id) / "blobs"
    parts = sum(part.stat().st_size for part in blobs.glob(f"*{download.PART}"))
    if parts:
        return f"{sized(parts)} of it are here and are kept"
    part = _part(spec)
    missing = folders.missing_files(part) if part else []
    if missing:
        return f"only a part of it is here ({missing[0]} is missing)"
    return "some of its files are missing here" if part else "it is not on this machine"


def _part(spec: ModelSpec) -> Path | None:
    """The folder in the cache that some files of the model lie in; None where there is none."""
    from huggingface_hub import errors

    try:
        return _snapshot(spec, local_files_only=True)
    except errors.IncompleteSnapshotError as error:
        return Path(error.snapshot_path)
    except (errors.LocalEntryNotFoundError, FileNotFoundError):
        return None
