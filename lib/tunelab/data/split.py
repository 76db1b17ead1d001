"""Read a `DataSpec` and divide its rows into training and held-out, so that no prompt stands on both sides."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from pathlib import Path
from typing import Any

from tunelab.data.builtin import BUILTIN
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
        train, heldout = _divide(examples, spec)
    if not train or not heldout:
        raise UserError(
            f"{spec.title}: {len(examples)} rows and heldout = {spec.heldout} leave {len(train)} to train on and "
            f"{len(heldout)} held out; both need at least one. Add rows, or change heldout."
        )
    train = train[: spec.limit]
    return DataSplit(spec.title, train, heldout, _sha256(train, heldout), tuple(notes))


def read_examples(spec: DataSpec, learn: str = "instructions") -> list[Example]:
    """Every row of `spec` as an example, undivided: for rows that are only trained on, or only measured.

    Raises:
        UserError: as `read_data`.
    """
    return to_examples(_rows(spec), spec, learn, spec.title)[0]


def _rows(spec: DataSpec) -> list[Row]:
    if spec.rows is not None:
        if not spec.rows:
            raise UserError("rows = []: there is nothing to learn from. Give at least two rows.")
        return list(spec.rows)
    source = str(spec.source)
    if source in BUILTIN:
        return BUILTIN[source]()
    path = Path(source).expanduser()
    if path.suffix.lower() in SUFFIXES or path.exists():
        return read_rows(path)
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


def _divide(examples: list[Example], spec: DataSpec) -> tuple[list[Example], list[Example]]:
    """Held-out groups of equal prompts until there are enough rows, the rest to train on; both shuffled by the seed."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(_key(example.prompt), []).append(example)
    keys = list(groups)
    random.Random(spec.seed).shuffle(keys)
    amount = float(spec.heldout)
    wanted = max(1, round(amount * len(examples))) if amount < 1 else int(amount)
    heldout: list[Example] = []
    while keys and len(heldout) < wanted:
        heldout += groups[keys.pop()]
    return [example for key in keys for example in groups[key]], heldout


def _leaks(train: list[Example], heldout: list[Example]) -> list[str]:
    trained = {(_key(e.prompt), _key(e.answer)) for e in train}
    leaked = [e.row for e in heldout if (_key(e.prompt), _key(e.answer)) in trained]
    if not leaked:
        return []
    return [
        f"warning: {len(leaked)} held-out rows are also training rows (held-out row "
        f"{', '.join(map(str, leaked[:5]))}): their score says nothing about new prompts"
    ]


def _key(text: str) -> str:
    return " ".join(text.split()).casefold()


def _sha256(*sides: list[Example]) -> str:
    content: list[Any] = [[[[m.role, m.content] for m in e.messages] or e.text for e in side] for side in sides]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
