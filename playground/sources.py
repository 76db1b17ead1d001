"""What the page may read: files that came through it, and what is public; other files of the server's machine only for
whoever runs the server.

A data set or a model is named by one word, which can be a built-in name, an id on the Hub or a path. Without this,
whoever opens the page could have any file of this machine shown to them as rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from playground.owners import Caller, Owners
from tunelab import DataSpec, ModelSpec, RunConfig, UserError

FOLDERS = ("uploads", "handed")  # of the runs root: what came through the page, and what a notebook handed over


def check_config(config: RunConfig, owners: Owners, caller: Caller) -> None:
    """Refuse a configuration that reads what the caller may not.

    Raises:
        UserError: with what to do instead.
    """
    check_model(config.model, owners, caller)
    for stage in config.stages:
        check_data(stage.data, owners, caller)
        if stage.replay:
            check_data(stage.replay, owners, caller)


def check_data(data: DataSpec, owners: Owners, caller: Caller) -> None:
    """Refuse rows, or held-out rows, from a file that the caller may not read.

    Raises:
        UserError: with what to do instead.
    """
    for name in _named(data):
        if _is_file(name) and not _is_inside(_at_home(name), owners.root) and not owners.runs_server(caller):
            raise UserError(
                f"{name[:120]!r} is a file on the server's machine. Only whoever runs the server can read those: "
                "upload your file, or open the address that the server's terminal printed."
            )


def check_model(model: ModelSpec, owners: Owners, caller: Caller) -> None:
    """Refuse a model in a folder or GGUF file of the server's machine that the caller may not read; a name that can
    only be that of a file also where there is none, so that nobody learns which there are.

    Raises:
        UserError: with what to do instead.
    """
    if (_is_file(model.repo_id) or model.names_gguf) and not owners.runs_server(caller):
        raise UserError(
            f"{model.repo_id[:120]!r} is a folder or file on the server's machine. Only whoever runs the server can "
            "load those: choose starter or an id on the Hub, or open the address that the server's terminal printed."
        )


def _named(data: DataSpec) -> Iterator[str]:
    yield from (str(name) for name in (data.source, data.heldout) if isinstance(name, str | Path))


def _is_file(name: str) -> bool:
    """Whether a name can be that of a file: one that is there, or is written as a path."""
    try:
        path = _at_home(name)
        return path.is_absolute() or ".." in path.parts or name.startswith("~") or path.exists()
    except (OSError, ValueError):  # too long, or with characters no path has: then it is none
        return False


def _at_home(name: str) -> Path:
    """The path; also where its '~somebody' has no home, of which `Path.expanduser` makes an error."""
    return Path(os.path.expanduser(name))


def _is_inside(path: Path, root: Path) -> bool:
    """Whether a file, links followed, lies where the page's own files lie."""
    try:
        real = path.resolve()
    except (OSError, ValueError):
        return False
    return any(real.is_relative_to((root / folder).resolve()) for folder in FOLDERS)
