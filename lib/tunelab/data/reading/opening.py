"""A path as the files that it holds: itself, what a gz unpacks to, or the members of a zip. Nothing is ever written to
the disk, and what unpacks to too much is refused while it is read."""

from __future__ import annotations

import gzip
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tunelab.errors import UserError, shown_name

MAX_BYTES = 2_000_000_000  # of a file that is read row by row
MAX_UNPACKED_RATIO = 200  # text packs to a twentieth, and what repeats itself to less
RATIO_FROM = 50_000_000  # bytes; below them no ratio is too much
MAX_MEMBERS = 1000
# how files begin that are often named for what they are not
SIGNATURES = (
    (b"\x80\x02", "a Python pickle, which can run code and is never read; save the rows as JSON"),
    (b"\x80\x03", "a Python pickle, which can run code and is never read; save the rows as JSON"),
    (b"\x80\x04", "a Python pickle, which can run code and is never read; save the rows as JSON"),
    (b"\x80\x05", "a Python pickle, which can run code and is never read; save the rows as JSON"),
    (b"%PDF", "a PDF; save its text as .txt"),
    (b"SQLite format 3\0", "an SQLite database; export a table as CSV"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"\xd0\xcf\x11\xe0", "an old Office file; save it as .xlsx or CSV"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd; unpack it"),
    (b"BZh", "packed with bzip2; unpack it"),
    (b"\xfd7zXZ", "packed with xz; unpack it"),
)
GZIP, ZIP, PARQUET = b"\x1f\x8b", b"PK\x03\x04", b"PAR1"


@dataclass(frozen=True)
class Member:
    """One file: its name as it is shown, its suffix in lower case, and how it is opened."""

    name: str
    suffix: str
    open: Callable[[], IO[bytes]]
    path: Path | None = None  # where it lies on the disk as it is


def members(path: Path) -> list[Member]:
    """The files in a file, in order of their names.

    Raises:
        UserError: there is no such file; it is too large, of a kind that is not read, or an archive that is unsafe.
    """
    name = shown_name(path.name)
    if not os.path.isfile(path):  # nor could be one, by its name
        raise UserError(
            f"There is no file {shown_name(str(path))}. Check the path, or use the built-in set 'python-docs'."
        )
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UserError(
            f"{name} has {size / 1e6:,.0f} MB; at most {MAX_BYTES / 1e6:,.0f} MB are read. Take a part of it."
        )
    with open(path, "rb") as file:
        head = file.read(16)
    _check_signature(head, name)
    suffix = path.suffix.lower()
    if head.startswith(GZIP):
        inner = path.with_suffix("") if suffix in (".gz", ".gzip") else path
        return [Member(name, inner.suffix.lower(), lambda: _counted(lambda: gzip.open(path), name, size))]
    if head.startswith(ZIP) and suffix != ".xlsx":
        return _zip_members(path, name)
    return [Member(name, suffix, lambda: open(path, "rb"), path)]


def _check_signature(head: bytes, name: str) -> None:
    for start, what in SIGNATURES:
        if head.startswith(start):
            raise UserError(
                f"{name} is {what}. Files with rows of text are read: CSV, JSON, JSONL, Parquet, Excel, plain text."
            )


def _zip_members(path: Path, name: str) -> list[Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{name} can't be unpacked: {_short(error)}. Pack it again, or give the file in it.") from None
    if len(infos) > MAX_MEMBERS:
        raise UserError(
            f"{name} holds {len(infos):,} files; at most {MAX_MEMBERS:,} are looked at. Give those with rows."
        )
    found = []
    for info in infos:
        inside = PurePosixPath(info.filename.replace("\\", "/"))
        shown = shown_name(info.filename)
        if inside.is_absolute() or ".." in inside.parts or stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(
                f"{name} holds '{shown}', which leads out of the archive; it is not read. Pack the files without "
                "links and '..'."
            )
        if info.flag_bits & 1:
            raise UserError(f"{name} is encrypted ('{shown}'). Give the file in it unpacked.")
        if any(part.startswith((".", "__MACOSX")) for part in inside.parts):
            continue
        found.append(_zip_member(path, info, f"{name}/{shown}", inside.suffix.lower()))
    return sorted(found, key=lambda member: member.name)


def _zip_member(path: Path, info: zipfile.ZipInfo, shown: str, suffix: str) -> Member:
    def unpack() -> IO[bytes]:
        return zipfile.ZipFile(path).open(info)

    return Member(shown, suffix, lambda: _counted(unpack, shown, max(1, info.compress_size)))


def _counted(unpack: Callable[[], Any], name: str, packed: int) -> IO[bytes]:
    try:
        return io.BufferedReader(_Counted(unpack(), name, packed), 1 << 16)
    except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{name} can't be unpacked: {_short(error)}. Pack it again, or give it unpacked.") from None


class _Counted(io.RawIOBase):
    """Unpacked bytes; reading ends with an error where they are too many."""

    def __init__(self, file: IO[bytes], name: str, packed: int) -> None:
        self._file, self._name, self._packed, self._count = file, name, packed, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except (OSError, EOFError, zlib.error, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{self._name} can't be unpacked: {_short(error)}. Pack it again, or give it unpacked."
            ) from None
        self._count += len(data)
        if self._count > MAX_BYTES or (self._count > RATIO_FROM and self._count > MAX_UNPACKED_RATIO * self._packed):
            raise UserError(
                f"{self._name} unpacks to more than {self._count / 1e6:,.0f} MB from {self._packed / 1e6:,.2f} MB; "
                "that is no "
                "text that somebody wrote. Give the part that you need, unpacked."
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:100].rstrip(".")
