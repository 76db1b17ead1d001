"""What goes wrong with the Hub, in words: each failure with the step that helps against it."""

from __future__ import annotations

import errno
from typing import Any

from tunelab.errors import UserError
from tunelab.spec import STARTER, ModelSpec

ALTERNATIVES = f"Choose '{STARTER}' (built in, works offline) or a folder with a model"
LOGIN = "`hf auth login`"
BUSY = 429  # too many requests


def in_words(spec: ModelSpec, error: BaseException, state: str) -> UserError | None:
    """The sentence for a failure to fetch a model; None for what is a bug, or told elsewhere (a full disk). `state`:
    what of the model is here."""
    from huggingface_hub import errors

    if isinstance(error.__cause__, errors.HfHubHTTPError):  # told as a name that is not in the cache
        error = error.__cause__
    name = f"repo_id = '{spec.repo_id}'"
    page = f"{_endpoint()}/{spec.repo_id}"
    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"{name} is gated: its makers give it to those who accept their terms. Accept them at {page}, then "
            f"{_log_in()} and start again. {ALTERNATIVES} meanwhile."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(
            f"revision = '{spec.revision}': {spec.repo_id} has no such branch, tag or commit. See {page}/commits/main, "
            "or leave revision out for the default branch."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(
            f"{name}: the Hugging Face Hub has no such model, or it is private. Check the name at {page}; for a "
            f"private one {_log_in()} and start again. {ALTERNATIVES}."
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _answered(spec, error, state)
    if isinstance(error, errors.OfflineModeIsEnabled) or _is_offline(error):
        return UserError(
            f"{name}: {state}, and the Hugging Face Hub can't be reached because HF_HUB_OFFLINE is set. Unset it to "
            f"fetch the model. {ALTERNATIVES}."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return None
    return unreachable(spec, state) if _is_of_network(error) else None


def unreachable(spec: ModelSpec, state: str) -> UserError:
    """That the Hub can't be reached, or broke off."""
    again = "connect, and start again to go on where it broke off" if "kept" in state else "connect once to fetch it"
    return UserError(
        f"repo_id = '{spec.repo_id}': {state}, and the Hugging Face Hub ({_endpoint()}) can't be reached. "
        f"{ALTERNATIVES}; or {again}."
    )


def _answered(spec: ModelSpec, error: Any, state: str) -> UserError:
    """What the Hub answered in place of the model."""
    status = error.response.status_code
    name = f"repo_id = '{spec.repo_id}'"
    if status == 401:
        return UserError(
            f"{name}: the Hugging Face Hub does not know the token it was sent (401). Log in again with {LOGIN}, or "
            "unset HF_TOKEN: open models need none."
        )
    if status == 403:
        return UserError(
            f"{name}: the token in use may not read this model (403). Give the token that right at "
            f"{_endpoint()}/settings/tokens, or log in as somebody else with {LOGIN}."
        )
    why = "is asked too often" if status == BUSY else "does not work right now"
    return UserError(f"{name}: {state}; the Hugging Face Hub {why} ({status}). Wait a minute and start again.")


def _log_in() -> str:
    """What to do so that the Hub knows who asks."""
    from huggingface_hub import get_token

    return (
        f"check who is logged in (`hf auth whoami`), or log in with {LOGIN}" if get_token() else f"log in with {LOGIN}"
    )


def _is_offline(error: BaseException) -> bool:
    """Whether it was the setting, and not the network, that kept the Hub from being asked."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode()) and _is_of_network(error)


def _is_of_network(error: BaseException) -> bool:
    from huggingface_hub import errors

    # its client is a package of its own, whose name has changed before
    by_client = any(kind.__module__.partition(".")[0].startswith(("httpx", "httpcore")) for kind in type(error).__mro__)
    return by_client or isinstance(error, (errors.LocalEntryNotFoundError, errors.RevisionResolutionError, OSError))


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def sized(count: float) -> str:
    """So many bytes, in the unit that people would choose."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
