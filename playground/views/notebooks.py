"""The tutorials as the Learn room shows them: what each is about, read from its file, and the whole of it as markup.

nbconvert writes the markup and `safe_html` decides what of it is shown. Both are loaded when the first notebook is
opened, not when the app starts; what was made of a file is kept until the file changes.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playground.english import learn as say
from tunelab.errors import UserError, shown_name

if TYPE_CHECKING:
    from markupsafe import Markup

log = logging.getLogger("playground")
FOLDER = Path(__file__).parents[2] / "notebooks"
LARGEST = 20_000_000  # bytes
TIME = re.compile(r"took ([\d.,]+) s\b")
# The page's Markdown draws formulas between these and would take a dollar of code for the beginning of one. A letter
# that no text has stands for such dollars until nobody reads the markup again.
DOLLAR = "\ue000"


@dataclass(frozen=True)
class Notebook:
    """A tutorial: what its first cell says it is about, and what its last one measured."""

    path: Path
    title: str
    aim: str
    needs: str
    seconds: float | None  # of the run that left its outputs

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def solutions(self) -> Path | None:
        """The notebook with its solved exercises, if it has one."""
        path = self.path.parent / "solutions" / self.path.name
        return path if path.is_file() else None

    @property
    def minutes(self) -> str:
        """The measured time, for people."""
        if self.seconds is None:
            return say.NOT_TIMED
        return f"{self.seconds:.0f} s" if self.seconds < 90 else f"{self.seconds / 60:.0f} min"


def every_notebook(folder: Path = FOLDER) -> list[Notebook]:
    """The notebooks of a folder, in the order of their names. One that can't be read is among them and says why."""
    return [_outlined(path) for path in sorted(folder.glob("*.ipynb"))]


def command(path: Path) -> str:
    """The line that opens a notebook in JupyterLab, in a terminal in the project's folder."""
    inside = path.relative_to(FOLDER.parent) if path.is_relative_to(FOLDER.parent) else Path(path.name)
    program = ".venv/bin/jupyter" if sys.platform != "win32" else r".venv\Scripts\jupyter"
    own = (FOLDER.parent / ".venv").is_dir()  # else it is installed where `jupyter` is found
    return f"{program if own else 'jupyter'} lab {inside.as_posix()}"


def page(path: Path) -> Markup:
    """A notebook as markup: its texts with formulas between dollars, its code, its outputs. Safe to be shown as it is.

    Raises:
        UserError: it can't be read.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(
            f"{shown_name(path.name)} can't be read ({error.strerror}). Choose another notebook, or reload the page to "
            "see which there are."
        ) from None
    if state.st_size > LARGEST:
        raise UserError(
            f"{shown_name(path.name)} has {state.st_size / 1e6:.0f} MB; up to {LARGEST / 1e6:.0f} MB are shown here. "
            "Open it in JupyterLab, and clear outputs that are not needed."
        )
    return _page(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=32)
def _page(path: Path, _changed: int, _size: int) -> Markup:
    import nbformat
    from markupsafe import Markup

    from playground.views.safe_html import safe

    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        exporter, cells = _exporter(), []
        for cell in notebook.cells:  # each by itself: what one leaves open must not swallow the next
            body, _resources = exporter.from_notebook_node(nbformat.NotebookNode({**notebook, "cells": [cell]}))
            cells.append(safe(_without_dollars_in_code(body)))
    # a file of any content can be called .ipynb, and nbformat looks for no more than its own fields
    except (OSError, ValueError, TypeError, AttributeError, KeyError, nbformat.ValidationError) as error:
        log.info("%s can't be shown", path, exc_info=error)
        raise _unreadable(path, error) from None
    clean = f'<div class="notebook">{"".join(cells)}</div>'
    # one line: an empty one would end what the page's Markdown takes for markup
    return Markup(clean.replace("\n", "&#10;").replace(DOLLAR, "&#36;"))


def _exporter() -> Any:
    from nbconvert import HTMLExporter

    return HTMLExporter(
        template_name="basic",
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )


def _without_dollars_in_code(body: str) -> str:
    """The markup with `DOLLAR` for every dollar that begins no formula: in code, outputs and attributes."""
    from bs4 import BeautifulSoup

    tree = BeautifulSoup(body.replace(DOLLAR, ""), "html.parser")
    for element in tree.find_all(True):
        for name, value in element.attrs.items():
            if isinstance(value, str):
                element[name] = value.replace("$", DOLLAR)
    for outside in tree.select("pre, code, .output, svg"):
        for text in outside.find_all(string=True):
            if "$" in text:
                text.replace_with(text.replace("$", DOLLAR))
    return str(tree)


def _outlined(path: Path) -> Notebook:
    """What a notebook is about, from its file."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        first = _text(cells[0]["source"])
        printed = [_text(out.get("text", "")) for cell in cells for out in cell.get("outputs", [])]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        return Notebook(path, path.stem, str(_unreadable(path, error)), "", None)
    title = re.search(r"^# (.+)$", first, re.M)
    times = [TIME.search(text) for text in printed]
    seconds = next((float(time[1].replace(",", "")) for time in reversed(times) if time), None)
    return Notebook(
        path, _plain(title[1]) if title else path.stem, _said(first, "Aim"), _said(first, "You need"), seconds
    )


def _said(text: str, what: str) -> str:
    """What a first cell says behind a word in bold, to the end of the line; '' where it doesn't."""
    found = re.search(rf"^\*\*{what}\.?\*\*(.*)$", text, re.M)
    return _plain(found[1]) if found else ""


def _plain(markdown: str) -> str:
    """A line of Markdown as words."""
    without_links = re.sub(r"\[([^\]]*)\]\((?:[^()]|\([^()]*\))*\)", r"\1", markdown)
    return re.sub(r"[*`]", "", without_links).strip()


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{shown_name(path.name)} is no notebook that can be read ({type(error).__name__}). Take it from the "
        "repository again, or open it in JupyterLab to see what is wrong."
    )
