"""`models_for`: which models there are for some rows, what each takes on this machine, and which one to begin with."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import ValidationError

from tunelab.choice.advice import recommendation
from tunelab.choice.ahead import Ahead, Timed, ahead_at_hand, ahead_of, outline_of
from tunelab.choice.at_hand import AtHand, at_hand
from tunelab.choice.measuring import known_by, learned_bytes, split_by
from tunelab.choice.published import Published, published
from tunelab.choice.suited import Choice, Suited
from tunelab.data import DataSplit, Encoded, Example, read_data, training_rows
from tunelab.data.store import pick
from tunelab.errors import UserError, shortened
from tunelab.machine import libraries
from tunelab.model.load import load_tokenizer
from tunelab.paces import PACES
from tunelab.spec import STARTER, DataSpec, ModelSpec, Stage

ROWS = 50  # that a model is measured on
PACED_ROWS = 2000  # training rows that batches are made of: more change neither memory nor a step

Say = Callable[[str], None]


def models_for(
    data: Any = None,
    *,
    learn: Literal["instructions", "text"] = "instructions",
    model: ModelSpec | None = None,
    also: Sequence[str] = (),
    rows: int = ROWS,
    probe: bool = False,
    on_progress: Say = lambda message: None,
) -> Choice:
    """The models that rows could be learned by: what lies on this machine, measured on `rows` of them, and what is open
    on the Hub; for each the memory and the time of a quick run here (60 steps of LoRA).

    data: a `DataSpec`, a `Stage`, a file, a built-in name or a Hub id, or rows in memory. None: nothing is measured.
    model: how models are held; its `repo_id` is not looked at. Default: in nf4, as `tunelab train` does.
    also: folders, GGUF files or Hub ids to look at as well. probe: measure again after 20 steps of training.

    Raises:
        UserError: the rows can't be read, or one of `also` is no model.
    """
    libraries.prepare()
    if rows < 1:
        raise UserError(f"rows = {rows}: a model is measured on at least 1 row; {ROWS} are usual.")
    held = model or ModelSpec(repo_id=STARTER, quantization="nf4")
    here, notes = at_hand(also, on_progress)
    if isinstance(data, Stage):
        learn, data = data.learn, data.data
    split = data if isinstance(data, DataSplit) else read_data(_spec(data), learn)
    split.check()
    examples = _some(split, rows) if data is not None else []
    search = _Search(held, split.train[:PACED_ROWS], examples, on_progress)
    found = [search.at_hand(one) for one in here]
    if examples:
        found = search.measured(found, probe)
    at_hand_first, said = recommendation(found, search.away(here), len(search.places), probe)
    return Choice(tuple(at_hand_first), said, len(search.places), (*notes, *search.notes))


def _spec(data: Any) -> DataSpec:
    """The rows that `data` names; without any those that are built in, for the forecast alone."""
    if data is None:
        return DataSpec(source="python-docs")
    if isinstance(data, DataSpec):
        return data
    if isinstance(data, str | os.PathLike):
        return DataSpec(source=os.fspath(data))
    try:
        return DataSpec(rows=data)
    except ValidationError:
        raise UserError(
            "models_for takes rows (a list of objects, a DataFrame, a data set), a file's name or a DataSpec; this is "
            f"{shortened(data, 60)}. Give e.g. tunelab.models_for('rows.jsonl')."
        ) from None


def _some(split: DataSplit, count: int) -> Sequence[Example]:
    """Held-out rows to measure on, drawn by chance, always the same."""
    places = range(len(split.heldout))
    drawn = sorted(random.Random(0).sample(places, min(count, len(places))))
    return pick(split.heldout, drawn)


class _Search:
    """What is asked of every model, of the same rows."""

    def __init__(self, held: ModelSpec, train: Sequence[Example], examples: Sequence[Example], say: Say) -> None:
        self.held, self.train, self.examples, self.say = held, train, examples, say
        self.training = PACES["quick"].training.model_copy(update={"samples": 0})
        self.notes: list[str] = []
        self.places: list[int] = []  # of the examples that every measured model takes whole
        self.known: Timed | None = None
        self.encoded: dict[str, list[Encoded]] = {}

    def spec(self, repo_id: str) -> ModelSpec:
        return self.held.model_copy(update={"repo_id": repo_id, "revision": None})

    def at_hand(self, one: AtHand) -> Suited:
        """A model on this machine, with what it takes and how it splits the rows."""
        spec = self.spec(one.repo_id)
        from tunelab.model.quantization import count_parameters

        self.say(f"looking at {one.name}")
        suited = _described(one)
        try:
            base = outline_of(spec)
            millions = round(count_parameters(base.model) / 1e6)
            suited = replace(suited, parameters=suited.parameters or millions)
            train, _notes = training_rows(self.train, base.tokenizer, spec.max_length)
            self.encoded[one.repo_id] = train
            ahead, known = ahead_at_hand(base, train, self.training)
            self.known = self.known or known
            split = split_by(spec, self.examples) if self.examples else None
            return replace(suited, ahead=ahead, split=split)
        except UserError as error:
            return replace(suited, note=str(error))

    def measured(self, models: list[Suited], probe: bool) -> list[Suited]:
        """The same with what each knows of the rows that all of them take whole."""
        taking = [one.split.fitting for one in models if one.split and one.split.fitting]
        self.places = sorted(set.intersection(*taking)) if taking else []
        if left := len(self.examples) - len(self.places):
            self.notes.append(f"{left} of {len(self.examples)} rows are not measured: not every model takes them whole")
        sizes = [learned_bytes(self.examples[place]) for place in self.places]
        return [self._measured(one, sizes, probe) for one in models] if self.places else models

    def _measured(self, one: Suited, sizes: list[int], probe: bool) -> Suited:
        if not one.split or not one.split.fitting:
            return replace(one, note=one.note or "none of the rows fits")
        if not one.ahead.fits:
            return replace(one, note="it needs more memory than is free now")
        self.say(f"measuring {one.name}" + (", and training it for 20 steps" if probe else ""))
        rows = [one.split.rows[place] for place in self.places]
        try:
            knows = known_by(self.spec(one.repo_id), rows, sizes, self.encoded[one.repo_id] if probe else ())
        except UserError as error:
            return replace(one, note=str(error))
        return replace(one, knows=knows)

    def away(self, here: Sequence[AtHand]) -> list[Suited]:
        """The models of the table that are not on this machine."""
        ids = {one.published.id for one in here if one.published and one.origin != "built in"}
        if not self.encoded:
            return [
                _of_table(one, Ahead(None, None, False, "no model is at hand to split rows by")) for one in published()
            ]
        repo_id, train = next(iter(self.encoded.items()))
        tokenizer = load_tokenizer(self.spec(repo_id))
        self.say("working out what the models of the table would take")
        return [
            _of_table(one, ahead_of(one, self.spec(one.id), train, self.training, self.known, tokenizer))
            for one in published()
            if one.id not in ids
        ]


def _described(one: AtHand) -> Suited:
    from tunelab.model.folder import read_config
    from tunelab.model.positions import positions

    of = one.published
    return Suited(
        repo_id=one.repo_id,
        name=one.name,
        origin=one.origin,
        parameters=of.parameters if of else None,
        kind=of.kind if of else "",
        licence=of.licence if of else "",
        languages=of.languages if of else "",
        context=of.context if of else positions(read_config(one.folder)),
        gated=False,
        ahead=Ahead(None, None, False),
    )


def _of_table(one: Published, ahead: Ahead) -> Suited:
    return Suited(
        repo_id=one.id,
        name=one.id,
        origin=None,
        parameters=one.parameters,
        kind=one.kind,
        licence=one.licence,
        languages=one.languages,
        context=one.context,
        gated=one.gated,
        ahead=ahead,
    )
