"""`report`: a run's card, kept as one HTML file and as JSON beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tunelab.errors import UserError, shown_name
from tunelab.machine.files import write_atomically
from tunelab.measure.card.facts import FORMAT, RunCard
from tunelab.measure.card.gather import card_of
from tunelab.measure.card.page import GENERATOR, page_of
from tunelab.run.run import Run

ROWS = 5
MOST_ROWS = 100
CARD_FILE = "card.html"


def report(
    run: Run | str | Path,
    *,
    out: str | Path | None = None,
    rows: int = ROWS,
    root: str | Path | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> RunCard:
    """The card of a run (or of the one with this id or name under `root`), whatever its state; with `out`, an .html
    file, it is written there, and as JSON beside it.

    The data is read again and examined where it is still what the run was trained on. `rows` rows of it are shown of
    each kind: most improved, most worsened, examples of a finding; 0 shows none, and no words of answers either.
    Personal data in them is masked.

    Raises:
        UserError: there is no such run, its configuration can't be read, or `out` can't be written or is something
            else than a card.
    """
    if not 0 <= rows <= MOST_ROWS:
        raise UserError(f"rows = {rows}: of each kind 0 to {MOST_ROWS} rows are shown. Usual is {ROWS}.")
    path = _new_card(Path(out).expanduser()) if out is not None else None
    opened = run if isinstance(run, Run) else Run.open(run, root)
    opened.check_whole()
    card = card_of(opened, rows=rows, on_progress=on_progress)
    if path:
        write_card(card, path)
    return card


def write_card(card: RunCard, path: Path) -> None:
    """Keep it as an HTML file, and as JSON beside it.

    Raises:
        UserError: the folder can't be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(json_file(path), card.model_dump_json(indent=1))
        write_atomically(path, page_of(card))
    except OSError as error:
        raise _not_written(path, error) from None


def json_file(path: Path) -> Path:
    """Where the facts of a page stand."""
    return path.with_suffix(".json")


def _new_card(path: Path) -> Path:
    """The file to write; a card that stands there is replaced, anything else is left alone."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {shown_name(str(path))}: a card is an HTML file. Choose a name that ends with .html.")
    for file, mark in ((path, GENERATOR), (json_file(path), FORMAT)):
        if not _is_free(file, mark, path):
            raise UserError(
                f"--out {shown_name(str(path))}: {shown_name(file.name)} is there already, is no card, and is not "
                "overwritten. Choose another name."
            )
    return path


def _is_free(file: Path, mark: str, out: Path) -> bool:
    """Whether nothing stands there, or an older card."""
    try:
        return not file.exists() or _begins_with(file, mark)
    except OSError as error:  # a name that is too long, a file that may not be read
        raise _not_written(out, error) from None


def _not_written(path: Path, error: OSError) -> UserError:
    return UserError(f"--out {shown_name(str(path))} can't be written: {error.strerror}. Give another file.")


def _begins_with(file: Path, mark: str) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        return mark.encode() in opened.read(1000)
