"""Models from the Hugging Face Hub, kept in its cache on this machine.

What lies in the cache is used only where it is all of a model: a tokenizer alone, weights alone, or some of them, is
what other programs and torn downloads leave there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunelab.errors import UserError
from tunelab.model import folder as folders
from tunelab.spec import STARTER, ModelSpec

FILES = ("*.safetensors", "*.json", "*.model", "*.jinja", "merges.txt", "vocab.txt")
NOT_NEEDED = ("consolidated*", "adapter_model*", "*/*")  # the weights again in their makers' own format; adapters
ALTERNATIVES = f"Choose '{STARTER}' (built in, works offline) or a folder with a model"


def fetch(spec: ModelSpec, progress: Callable[[str], None] | None) -> Path:
    """The folder in the Hub's cache that holds the model, whole; fetched if it is not there, or only in part.

    Raises:
        UserError: the Hub does not have it, can't be reached, or holds no model that can be read here.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", spec.repo_id):
        raise UserError(
            f"repo_id = '{spec.repo_id}' is neither '{STARTER}', nor a folder on this machine, nor a Hub id "
            f"(owner/name). {ALTERNATIVES}."
        )
    cached = _cached(spec)
    whole = cached is not None and not folders.missing_files(cached) and folders.has_tokenizer(cached)
    if cached and whole and folders.has_chat_template(cached):
        return cached
    if progress:
        progress(f"fetching {spec.repo_id} from the Hugging Face Hub")
    try:
        fetched = _fetched(spec)
    except UserError:
        if cached and whole:  # a model without a chat template, or whose template was not fetched: only the Hub knows
            return cached
        raise
    missing = folders.missing_files(fetched)
    if missing and not _reached(spec, missing[0]):
        raise _unreachable(spec, missing[0])
    folders.check_folder(fetched, spec.repo_id)
    return fetched


def _cached(spec: ModelSpec) -> Path | None:
    """The folder in the cache, whatever there is of the model; None where there is nothing."""
    from huggingface_hub import errors

    try:
        return _snapshot(spec, local_files_only=True)
    except (errors.LocalEntryNotFoundError, FileNotFoundError):
        return None


def _fetched(spec: ModelSpec) -> Path:
    """The folder as the Hub fills it; where the Hub can't be reached, what the cache has of it."""
    from huggingface_hub import errors

    try:
        return _snapshot(spec)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.GatedRepoError) as error:
        raise UserError(
            f"The Hugging Face Hub does not give out '{spec.repo_id}': {str(error).splitlines()[0]} {ALTERNATIVES}."
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError):
        raise _unreachable(spec) from None


def _snapshot(spec: ModelSpec, **options: Any) -> Path:
    import huggingface_hub

    download: Any = huggingface_hub.snapshot_download
    patterns = {"allow_patterns": list(FILES), "ignore_patterns": list(NOT_NEEDED)}
    return Path(download(spec.repo_id, revision=spec.revision, **patterns, **options))


def _reached(spec: ModelSpec, name: str) -> bool:
    """Whether it was the Hub that said that it has no file of this name, and not the cache alone."""
    import huggingface_hub
    from huggingface_hub import errors

    download: Any = huggingface_hub.hf_hub_download
    try:
        download(spec.repo_id, name, revision=spec.revision)
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        return False
    except errors.EntryNotFoundError:
        return True
    return False  # it has it, and the fetch before was torn


def _unreachable(spec: ModelSpec, missing: str | None = None) -> UserError:
    here = f"only in part on this machine ({missing} is missing)" if missing else "not on this machine"
    return UserError(
        f"repo_id = '{spec.repo_id}' is {here}, and the Hugging Face Hub can't be reached. {ALTERNATIVES}; or connect "
        "once to fetch it."
    )
