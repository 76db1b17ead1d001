"""What people say of a run after it was made: a name, tags and a note, in `labels.json` beside its `config.json`.

The configuration never changes, so that the run can be repeated; the labels may, at any time, while it trains too. A
file that is broken, or was written by hand with anything in it, gives empty labels and a sentence that says so.
"""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tunelab.errors import UserError, shortened
from tunelab.machine.files import write_atomically

LABELS_FILE = "labels.json"
LONGEST_NAME = 60  # characters, as of RunConfig.name
MOST_TAGS, LONGEST_TAG = 12, 30
LONGEST_NOTE = 2000
LARGEST_FILE = 100_000  # bytes: what these limits allow fits into it
JOINERS = "\u200c\u200d"  # are not seen either, and belong to Persian words and to emoji
_writing = threading.Lock()


@dataclass(frozen=True)
class Labels:
    """What people call a run and say about it."""

    name: str | None = None  # None: the one it was made with
    tags: tuple[str, ...] = ()
    note: str = ""
    problem: str = ""  # why labels that stand in the file are not among these, in words


def read_labels(folder: Path) -> Labels:
    """The labels of a run's folder. An unchanged file is not read again."""
    path = folder / LABELS_FILE
    try:
        found = path.stat()
    except OSError:
        return Labels()
    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_FILE:
        return Labels(problem=f"{LABELS_FILE} is no file of labels. Labels given now take its place.")
    return _read(path, (found.st_ino, found.st_size, found.st_mtime_ns))


def change_labels(
    folder: Path, name: str | None = None, tags: Iterable[str] | None = None, note: str | None = None
) -> Labels:
    """The labels of a run's folder, changed: what is None stays as it is, what is empty is taken away.

    Raises:
        UserError: a label is too long, there are too many, or one holds letters that are not seen.
    """
    if not folder.is_dir():
        raise UserError(f"Run {folder.name} is not there any more, so it can't be labelled. See `tunelab runs`.")
    given_tags = None if tags is None else _checked_tags(tags)
    given_name = None if name is None else _checked(" ".join(name.split()), "name", LONGEST_NAME)
    given_note = None if note is None else _checked("\n".join(note.splitlines()).strip(), "note", LONGEST_NOTE)
    with _writing:
        before = read_labels(folder)
        after = Labels(
            name=before.name if given_name is None else given_name or None,
            tags=before.tags if given_tags is None else given_tags,
            note=before.note if given_note is None else given_note,
        )
        content = {"name": after.name, "tags": after.tags, "note": after.note}
        write_atomically(folder / LABELS_FILE, json.dumps(content, ensure_ascii=False))
    return after


def _checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Each tag once, however it is written."""
    words = [_checked(" ".join(tag.split()), "tag", LONGEST_TAG) for tag in tags]
    known = {word.casefold(): word for word in reversed(words) if word}
    kept = tuple(known[key] for key in dict.fromkeys(word.casefold() for word in words if word))
    if len(kept) > MOST_TAGS:
        raise UserError(f"tags: {len(kept)} are given, {MOST_TAGS} at most are kept. Leave some out.")
    return kept


def _checked(text: str, what: str, longest: int) -> str:
    if len(text) > longest:
        raise UserError(f"{what} = {shortened(text, 40)}: {len(text):,} characters, {longest:,} at most. Shorten it.")
    if text != _seen(text):
        raise UserError(f"{what} = {shortened(text, 40)}: it holds letters that are not seen. Write it without them.")
    return text


def _seen(text: str) -> str:
    """The text, with a sign for each letter that is not seen, such as those that turn the direction of writing."""
    return "".join(c if c.isprintable() or c in "\n\t" or c in JOINERS else "�" for c in text)


@lru_cache(maxsize=1024)
def _read(path: Path, _version: tuple[int, int, int]) -> Labels:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return Labels(problem=f"{LABELS_FILE} is damaged: name, tags and note are lost. Give them again.")
    name, tags, note = content.get("name"), content.get("tags"), content.get("note")
    listed = tags if isinstance(tags, list) else []
    kept = Labels(
        name=_text(name, LONGEST_NAME, _line) or None,
        tags=tuple(dict.fromkeys(t for tag in listed[:MOST_TAGS] if (t := _text(tag, LONGEST_TAG, _line)))),
        note=_text(note, LONGEST_NOTE, str),
    )
    same = (kept.name, list(kept.tags), kept.note) == (name, tags or [], note or "")
    return kept if same else Labels(kept.name, kept.tags, kept.note, f"{LABELS_FILE} holds what no label may hold.")


def _line(text: str) -> str:
    return " ".join(text.split())


def _text(value: Any, longest: int, formed: Callable[[str], str]) -> str:
    """What a file says, as a label may be: a text, seen, not too long."""
    return _seen(formed(value))[:longest] if isinstance(value, str) else ""
