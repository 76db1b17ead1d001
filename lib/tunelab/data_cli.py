"""`tunelab data …`: look at rows, mend them and divide them, before anything is trained.

tunelab data show tickets.csv
tunelab data doctor tickets.csv --heldout test.csv --fix drop-leaked drop-duplicates --out mended.jsonl
tunelab data split tickets.csv --columns group=customer --out divided
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.errors import UserError
from tunelab.flags import ROW_FLAGS, data_fields, data_flags, given, spec_flags
from tunelab.machine.files import writing
from tunelab.terminal import say

if TYPE_CHECKING:
    from tunelab.data.doctor import LearningCurve
    from tunelab.data.examples import Example
    from tunelab.data.previews import PreviewRow
    from tunelab.spec import DataSpec, ModelSpec

LEARNED = "⟦", "⟧"  # around what is learned, in a terminal
END = "◼"  # behind what ends a turn
CUT = "✂"  # before what is cut away


def add_commands(commands: Any) -> None:
    """Add `data` with its commands to those of a parser."""
    data = commands.add_parser("data", help="look at rows, mend and divide them", description=_lines()[0])
    data.set_defaults(command=lambda _options: data.print_help())
    own = data.add_subparsers(title="commands")
    _show_flags(_command(own, "show", show, "how rows are read, and what a model sees of them"))
    _doctor_flags(_command(own, "doctor", doctor, "what is wrong with rows, and how to mend it"))
    _split_flags(_command(own, "split", split, "divide rows into training and held-out ones, a file each"))


def _lines() -> list[str]:
    return (__doc__ or "").split("\n\n")


def _command(commands: Any, name: str, run: Any, described: str) -> argparse.ArgumentParser:
    from tunelab.spec import DataSpec, Stage

    command: argparse.ArgumentParser = commands.add_parser(name, help=described, description=described)
    command.set_defaults(command=run)
    data_flags(command, "data")
    spec_flags(command, DataSpec, (*ROW_FLAGS, "template", "system", "seed"))
    learn = Stage.model_fields["learn"].description
    command.add_argument("--learn", choices=("instructions", "text"), default="instructions", help=learn)
    return command


def _show_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--rows", type=int, default=3, help="rows to show (default: 3)")
    _model_flags(command, "starter")


def _doctor_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", metavar="FILE", help="a new .jsonl file for the mended rows")
    command.add_argument("--sample", type=int, default=20_000, help="rows that are read word by word (default: 20000)")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.add_argument(
        "--curve",
        action="store_true",
        help="train on a quarter, a half and all rows, and tell how much more would help (minutes)",
    )
    _model_flags(command, None)


def _split_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", metavar="DIR", required=True, help="folder for train.jsonl and heldout.jsonl")


def _model_flags(command: argparse.ArgumentParser, default: str | None) -> None:
    from tunelab.spec import ModelSpec

    shown = "no answer is looked at for its length" if default is None else default
    command.add_argument(
        "--model", dest="repo_id", default=default, help=f"whose tokenizer and template are asked (default: {shown})"
    )
    spec_flags(command, ModelSpec, ("max_length",))


def show(options: argparse.Namespace) -> int:
    """Print how rows are read and what the model sees of the first ones; the exit code."""
    from tunelab.data import overview
    from tunelab.data.builtin import BUILTIN, card
    from tunelab.spec import Stage

    if options.rows < 1:
        raise UserError(f"--rows {options.rows}: at least 1 row is shown.")
    if options.data in BUILTIN:
        print(card(options.data).markdown())
    seen = overview(Stage(learn=options.learn, data=_spec(options)), _model(options), options.rows)
    warnings = [seen.refusal, *seen.warnings] if seen.refusal else seen.warnings
    print(*seen.notes, seen.lengths.text, *(f"! {warning}" for warning in warnings), sep="\n")
    for number, row in enumerate(seen.rows, 1):
        print(f"\n--- row {number} of those to train on: {row.tokens:,} tokens, {row.scored_tokens:,} learned")
        print(*(f"! {warning}\n" for warning in row.warnings), _marked(row), sep="")
    print(f"\n{LEARNED[0]}…{LEARNED[1]} is learned, {END} ends a turn, what stands behind {CUT} is cut away.")
    return 0


def _marked(row: PreviewRow) -> str:
    """The text of a row with what is learned, where turns end, and where it is cut."""
    said = ""
    for (cut, learned), run in groupby(row.pieces, key=lambda piece: (piece.cut, piece.scored and not piece.cut)):
        text = "".join(piece.text + END * piece.is_end for piece in run)
        said += f"{CUT}{text}" if cut else f"{LEARNED[0]}{text}{LEARNED[1]}" if learned else text
    more = row.cut_tokens - sum(piece.cut for piece in row.pieces)
    return f"{said}… and {more:,} more tokens" if more else said


def doctor(options: argparse.Namespace) -> int:
    """Examine, mend where fixes are named, and write what came of it; the exit code."""
    from tunelab.data.checkup import tokenizer_and_limit
    from tunelab.data.doctor import apply, examine_rows
    from tunelab.data.split import read_undivided

    out = _new_file(options.out, options.fix)
    if options.sample < 1:
        raise UserError(f"--sample {options.sample}: at least 1 row is read word by word.")
    spec = _spec(options)
    train, heldout, notes = read_undivided(spec.model_copy(update={"fixes": ()}), options.learn)
    tokenizer, max_length = tokenizer_and_limit(_model(options) if options.repo_id else None)
    settings = {"tokenizer": tokenizer, "seed": spec.seed}
    examination = examine_rows(
        train, heldout, **settings, max_length=max_length, sample=options.sample, on_progress=say
    )
    rows, record = apply(options.fix, train, heldout, **settings) if options.fix else (train, None)
    if out:
        write_rows(out, rows)
    curve = _curve(spec, options) if options.curve else None
    if options.json:
        fixed = {"fixes": record.as_json(), "out": str(out) if out else None} if record else {}
        points = {"curve": curve[0].points} if curve else {}
        print(json.dumps({"read": notes, **examination.as_json(), **fixed, **points}, ensure_ascii=False, indent=1))
        return 0
    print(*notes, examination.text(), sep="\n")
    if record:
        print(f"\n{record.rows_before:,} rows before, {record.rows_after:,} after:")
        print(*(f"  {line}" for line in record.sentences), sep="\n")
        print(f"Mended rows: {out}" if out else _kept_nowhere(options))
    if curve:
        print(curve[0].text(), *curve[1], sep="\n")
    return 0


def _curve(spec: DataSpec, options: argparse.Namespace) -> tuple[LearningCurve, list[str]]:
    from tunelab.curve import curve_of

    return curve_of(spec, _model(options), options.learn, say)


def _kept_nowhere(options: argparse.Namespace) -> str:
    fixes = " ".join(options.fix)
    return (
        f"Nothing was written. --out FILE.jsonl keeps the mended rows; `tunelab train … --fix {fixes}` mends them "
        "anew for a run, which records it."
    )


def split(options: argparse.Namespace) -> int:
    """Divide rows as training would, and write both sides; the exit code."""
    from tunelab.data import read_data

    folder = Path(options.out).expanduser()
    files = {side: folder / f"{side}.jsonl" for side in ("train", "heldout")}
    if there := [path for path in files.values() if path.exists()]:
        raise UserError(
            f"--out {options.out}: {there[0].name} is there already, and is not overwritten. Choose another."
        )
    rows = read_data(_spec(options), options.learn)
    rows.check()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(f"--out {options.out} can't be made ({problem.strerror}). Choose another folder.") from None
    write_rows(files["train"], rows.train)
    write_rows(files["heldout"], rows.heldout)
    print(*rows.notes, sep="\n")
    print(f"{len(rows.train):,} rows to train on: {files['train']}")
    print(f"{len(rows.heldout):,} rows held out: {files['heldout']}")
    return 0


def write_rows(path: Path, rows: Sequence[Example]) -> None:
    """Rows as JSONL, `messages` or `text`; the file is whole or not there."""
    with writing(path) as file:
        for example in rows:
            file.write(f"{json.dumps(example.as_row, ensure_ascii=False)}\n".encode())


def _new_file(name: str | None, fixes: list[str]) -> Path | None:
    """The file to write. Raises: UserError: it is there already, is no JSONL, or there is nothing to write."""
    if not name:
        return None
    path = Path(name).expanduser()
    if not fixes:
        raise UserError("--out writes mended rows, and no fix is named. Give --fix NAME as well, e.g. drop-duplicates.")
    if path.suffix.lower() != ".jsonl":
        raise UserError(f"--out {name}: mended rows are written as JSONL. Choose a name that ends with .jsonl.")
    if path.exists():
        raise UserError(f"--out {name}: this file is there already, and is not overwritten. Choose another name.")
    if not path.parent.is_dir():
        raise UserError(f"--out {name}: there is no folder {path.parent}. Make it first, or choose another name.")
    return path


def _spec(options: argparse.Namespace) -> DataSpec:
    from tunelab.spec import DataSpec

    return DataSpec.model_validate(data_fields(options))


def _model(options: argparse.Namespace) -> ModelSpec:
    from tunelab.spec import ModelSpec

    return ModelSpec.model_validate({**given(options, "ModelSpec"), "repo_id": options.repo_id or "starter"})
