"""The large files of a repository on the Hub, fetched so that what broke off goes on where it was.

huggingface_hub goes on within one call, and throws away what it has when that fails. Here the part of a file stays in
the Hub's cache, and the next call, in any process, fetches the rest of it. A whole file is compared with the sha256
that the Hub names, and only then gets the name under which huggingface_hub finds it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tunelab.errors import UserError

LARGE = 5_000_000  # bytes: what is smaller is fetched anew
TOLD_PARTS = 20  # of a download: as many messages
PART = ".part.incomplete"  # as huggingface_hub calls what it is fetching


def repository_folder(repo_id: str) -> Path:
    """Where the Hub's cache keeps a model's repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{repo_id.replace('/', '--')}"


def missing_bytes(repo_id: str, files: Sequence[Any]) -> int:
    """How much of the files of a repository (`RepoFile`s) is not in the cache yet."""
    blobs = repository_folder(repo_id) / "blobs"
    return sum(max(0, file.size - _have(blobs, file)) for file in files)


def fetch_large(repo_id: str, commit: str, files: Sequence[Any], report: Callable[[str], None]) -> None:
    """Have the large ones of the files (`RepoFile`s) at a commit in the cache, whole.

    Raises:
        UserError: what came is not what the Hub has.
        huggingface_hub.errors.HfHubHTTPError, httpx2.HTTPError, OSError: it does not come.
    """
    blobs = repository_folder(repo_id) / "blobs"
    missing = [file for file in files if _is_large(file) and not (blobs / file.lfs.sha256).is_file()]
    if not missing:
        return
    blobs.mkdir(parents=True, exist_ok=True)
    have = sum(_have(blobs, file) for file in missing)
    meter = Meter(repo_id, sum(file.size for file in missing), have, report)
    for file in missing:
        _fetch(repo_id, commit, file, blobs, meter)


def _is_large(file: Any) -> bool:
    return file.lfs is not None and file.size >= LARGE


def _have(blobs: Path, file: Any) -> int:
    """Bytes of a file that are there, as a whole or as a part."""
    if (blobs / (file.lfs.sha256 if file.lfs else file.blob_id)).is_file():
        return int(file.size)
    part = blobs / f"{file.lfs.sha256}{PART}" if file.lfs else None
    return part.stat().st_size if part and part.is_file() else 0


def _fetch(repo_id: str, commit: str, file: Any, blobs: Path, meter: Meter) -> None:
    """Fetch what is missing of a file, and give it its name. Others who want the same file wait meanwhile."""
    from filelock import FileLock
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    digest = file.lfs.sha256
    lock = blobs.parent.parent / ".locks" / blobs.parent.name / f"{digest}.lock"  # huggingface_hub's own
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock, mode=0o664):
        if (blobs / digest).is_file():
            return
        part = blobs / f"{digest}{PART}"
        if part.is_file() and part.stat().st_size > file.size:
            part.unlink()
        with open(part, "ab") as stream:
            http_get(
                hf_hub_url(repo_id, file.path, revision=commit),
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.path,
                tqdm_class=meter,  # type: ignore[arg-type]
            )
            stream.flush()
            os.fsync(stream.fileno())
        with open(part, "rb") as stream:
            came = hashlib.file_digest(stream, "sha256").hexdigest()
        if came != digest:
            part.unlink()
            raise UserError(
                f"repo_id = '{repo_id}': what came of {file.path} is not the file that the Hub has (sha256 {came[:12]}…"
                f", expected {digest[:12]}…). It was removed: start again to fetch it anew."
            )
        os.replace(part, blobs / digest)


class Meter:
    """Tells how much has come. Stands where huggingface_hub expects a class of progress bars: called, it is its own
    bar."""

    def __init__(self, name: str, total: int, have: int, report: Callable[[str], None]) -> None:
        self.name, self.total, self.have, self.report = name, total, have, report
        self._told = have
        if have:
            report(f"going on with {name}: {self._text}")

    @property
    def _text(self) -> str:
        return f"{self.have / 1e9:.2f} of {self.total / 1e9:.2f} GB"

    def __call__(self, **_settings: Any) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, count: float | None = 1) -> None:
        """So many bytes more have come; less than none where a server begins anew."""
        self.have += int(count or 0)
        if self.have - self._told >= self.total / TOLD_PARTS:
            self._told = self.have
            self.report(f"fetching {self.name}: {self._text}")
