"""Read a `DataSpec`: its rows as examples, to train on and held out."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from pathlib import Path

from tunelab.data.builtin import BUILTIN
from tunelab.data.content import as_json, lesson
from tunelab.data.divide import divide
from tunelab.data.examples import DataSplit, Example
from tunelab.data.readers import SUFFIXES, Row, read_rows
from tunelab.data.shapes import to_examples
from tunelab.errors import UserError
from tunelab.spec import DataSpec, plain_rows


def read_data(spec: DataSpec, learn: str = "instructions") -> DataSplit:
    """The rows of `spec` as examples, divided; `learn` is `Stage.learn`.

    Raises:
        UserError: a file, a column or the division is wrong; the message says which and what to do.
    """
    examples, notes = to_examples(_rows(spec), spec, learn, spec.title)
    if spec.heldout_rows is not None or isinstance(spec.heldout, str):
        train, heldout, more = examples, *_heldout_of_its_own(spec, learn)
        notes += more + _leaks(train, heldout)
        random.Random(spec.seed).shuffle(heldout)  # files are often sorted, and evaluation takes the first rows
    else:
        train, heldout, more = divide(examples, spec)
        notes += more
    used, unused = train[: spec.limit], train[spec.limit :] if spec.limit else []
    return DataSplit(spec.title, used, heldout, _sha256(used, heldout), tuple(notes), tuple(unused))


def read_examples(spec: DataSpec, learn: str = "instructions") -> list[Example]:
    """Every row of `spec` as an example, undivided: for rows that are only trained on, or only measured.

    Raises:
        UserError: as `read_data`.
    """
    return to_examples(_rows(spec), spec, learn, spec.title)[0]


def absolute(spec: DataSpec) -> DataSpec:
    """The same with its files named from the root, so that they are found from any directory."""
    named = {"source": spec.source, "heldout": spec.heldout}
    files = {name: os.path.abspath(file) for name, value in named.items() if (file := file_of(value))}
    return spec.model_copy(update=files)


def file_of(source: str | float | None) -> Path | None:
    """The file that a `source` or a `heldout` names, there or not; None for anything else."""
    if not isinstance(source, str) or source in BUILTIN:
        return None
    path = Path(source).expanduser()
    return path if path.suffix.lower() in SUFFIXES or os.path.exists(path) else None


def _rows(spec: DataSpec) -> list[Row]:
    if spec.rows is not None:
        if not spec.rows:
            raise UserError("rows = []: there is nothing to learn from. Give at least two rows.")
        return list(spec.rows)
    source = str(spec.source)
    if source in BUILTIN:
        return BUILTIN[source]()
    if file := file_of(source):
        return read_rows(file)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return _rows_from_hub(source)
    raise UserError(
        f"source = '{source}' is neither a built-in set ({', '.join(BUILTIN)}), nor a file "
        f"({', '.join(SUFFIXES)}), nor a Hub data set (owner/name)."
    )


def _rows_from_hub(name: str) -> list[Row]:
    import datasets

    try:
        return list(plain_rows(datasets.load_dataset(name, split="train")))
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        reason = "the Hub is switched off (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") else str(error)
        raise UserError(
            f"source = '{name}' can't be had from the Hugging Face Hub: {reason.splitlines()[0][:200]}. Connect, give "
            f"a file ({', '.join(SUFFIXES)}), or use a built-in set ({', '.join(BUILTIN)})."
        ) from None


def _heldout_of_its_own(spec: DataSpec, learn: str) -> tuple[list[Example], list[str]]:
    if spec.heldout_rows is not None:
        return to_examples(list(spec.heldout_rows), spec, learn, "held-out rows")[0], []
    name = Path(str(spec.heldout)).name
    return to_examples(read_rows(str(spec.heldout)), spec, learn, name)[0], [f"held out: {name}"]


def _leaks(train: list[Example], heldout: list[Example]) -> list[str]:
    """Warnings of held-out rows that ask or answer what is trained on."""
    lessons = [lesson(example) for example in train]
    asked = {prompt for one in lessons for prompt in one.prompts}
    answered = {pair for one in lessons for pair in one.pairs}
    rows: dict[str, list[int]] = {}
    for example in heldout:
        one = lesson(example)
        if one.asked in asked and (not one.pairs or one.pairs[-1] in answered):
            rows.setdefault("are also training rows", []).append(example.row)
        elif answered.intersection(one.pairs):
            rows.setdefault("hold a turn that is also learned from training rows", []).append(example.row)
        elif one.asked in asked:
            rows.setdefault("ask what training rows ask", []).append(example.row)
    return [
        f"warning: {len(found)} held-out rows {what} (held-out row {', '.join(map(str, found[:5]))}): their score says "
        "nothing about new prompts"
        for what, found in rows.items()
    ]


def _sha256(*sides: list[Example]) -> str:
    content = [[as_json(example) for example in side] for side in sides]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
