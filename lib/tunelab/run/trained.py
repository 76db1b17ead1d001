"""Which rows a run was trained on, so that no reader takes them for rows it never saw.

    trained_rows.npz   written into the run's directory when training starts: digests of every row of the data, of all
                       that was learned, and of the held-out rows that chose which step's result is kept

`heldout_again()` reads a run's held-out rows as they were, or refuses; `known_rows()` recognises rows of any data. The
rows themselves are not kept.
"""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from tunelab.data.content import lesson, marks, row_digest
from tunelab.data.examples import DataSplit, Example
from tunelab.data.split import file_of, read_data, read_examples
from tunelab.errors import UserError
from tunelab.machine.files import write_atomically
from tunelab.run.run import Run
from tunelab.spec import Stage

if TYPE_CHECKING:
    import numpy

TRAINED_FILE = "trained_rows.npz"
SETS = ("prompts", "pairs", "chose")


@dataclass(frozen=True)
class TrainedRows:
    """Digests of rows, as numbers."""

    prompts: frozenset[int] = frozenset()  # conversations so far, and plain texts
    pairs: frozenset[int] = frozenset()  # the same with their answers
    chose: frozenset[int] = frozenset()  # held-out rows that chose which step's result was kept
    rows: tuple[tuple[int, ...], ...] = ()  # of each stage's data, all there were
    passages: Any = field(default=(), compare=False)  # marks of plain text, an array

    @classmethod
    def of(cls, stages: Sequence[Stage], splits: Sequence[DataSplit], replayed: Iterable[Example] = ()) -> TrainedRows:
        """What training these stages on these rows, and on replayed ones, will have learned."""
        learned = [example for split in splits for example in split.train] + list(replayed)
        lessons = [lesson(example) for example in learned]
        chose = [lesson(example) for example in _choosing(stages, splits)]
        return cls(
            prompts=_numbers(prompt for one in lessons for prompt in one.prompts),
            pairs=_numbers(pair for one in lessons for pair in one.pairs),
            chose=_numbers(one.pairs[-1] for one in chose if one.pairs),
            rows=tuple(_row_numbers(split) for split in splits),
            passages=_joined([marks(example.text) for example in learned if example.text is not None]),
        )

    def __or__(self, other: TrainedRows) -> TrainedRows:
        """All that either has learned."""
        sets = {name: getattr(self, name) | getattr(other, name) for name in SETS}
        return TrainedRows(**sets, passages=_joined([self.passages, other.passages]))

    def learned(self, example: Example) -> bool:
        """Whether its question was trained on, or one of its turns with its answer."""
        one = lesson(example)
        return _number(one.asked) in self.prompts or not self.pairs.isdisjoint(map(_number, one.pairs))

    def learned_passage(self, text: str) -> bool | None:
        """Whether at least half of a text was trained on, by its marks; None where it is too short to have one."""
        import numpy

        found, known = marks(text), numpy.asarray(self.passages, dtype=numpy.uint64)
        return bool(numpy.isin(found, known).mean() >= 0.5) if len(found) else None

    def chosen_by(self, example: Example) -> bool:
        """Whether it was one of the rows that chose which step's result was kept."""
        one = lesson(example)
        return bool(one.pairs) and _number(one.pairs[-1]) in self.chose

    def write(self, folder: Path) -> None:
        """Keep them in a run's folder."""
        import numpy

        arrays: dict[str, Any] = {name: _array(getattr(self, name)) for name in SETS}
        arrays["passages"] = _joined([self.passages])
        arrays |= {f"rows_{stage}": _array(rows) for stage, rows in enumerate(self.rows)}
        file = io.BytesIO()
        numpy.savez_compressed(file, **arrays)
        write_atomically(folder / TRAINED_FILE, file.getvalue())

    @classmethod
    def read(cls, folder: Path) -> TrainedRows | None:
        """Those kept in a run's folder; None where there are none, as in runs of older versions."""
        import numpy

        try:
            with numpy.load(folder / TRAINED_FILE, allow_pickle=False) as kept:
                sets = {name: frozenset(kept[name].tolist()) for name in SETS}
                stages = sum(name.startswith("rows_") for name in kept.files)
                rows = tuple(tuple(kept[f"rows_{stage}"].tolist()) for stage in range(stages))
                return cls(**sets, rows=rows, passages=kept["passages"])
        except (FileNotFoundError, BadZipFile, ValueError, KeyError, EOFError):
            return None


def known_rows(run: Run) -> tuple[TrainedRows, list[str]]:
    """What a run and those it started from were trained on, and notes that say of which of them nothing is known."""
    known, notes = TrainedRows(), []
    for one in [run, *map(run.beside, run.lineage)]:
        own = TrainedRows.read(one.path) or _read_anew(one)
        if own is None:
            notes.append(f"which rows {one.id} was trained on is not known, so some of them may be among these")
        else:
            known = known | own
    return known, notes


def heldout_again(run: Run, stage: int = -1) -> DataSplit:
    """The data of a run's stage, divided as it was for training.

    Raises:
        UserError: it is not what the run was trained on any more, or nothing is known of it; with what has changed.
    """
    data = run.config.stages[stage].data
    hashes = _hashes(run)
    if not hashes:
        raise UserError(f"Which rows run {run.id} was trained on is not known here. {_other_data(run)}")
    for source in (data.source, data.heldout):
        file = file_of(source)
        if file and not file.is_file():
            path = str(file) if len(str(file)) <= 120 else f"…{str(file)[-119:]}"
            raise UserError(
                f"{path}, which run {run.id} was trained on, is not there any more. Bring it back. {_other_data(run)}"
            )
    started = run.progress().started
    split = read_data(data, run.config.stages[stage].learn, started.columns_of(stage) if started else None)
    if split.sha256 != hashes[stage]:
        raise UserError(
            f"{data.title} is no longer what run {run.id} was trained on: {what_changed(run, stage, split)}. Rows it "
            f"was trained on could pass for held-out ones. Bring the old rows back. {_other_data(run)}"
        )
    return split


def heldout_examples(run: Run, count: int) -> list[Example]:
    """The first held-out rows of a run's last stage that nothing trained on, to try it on.

    Raises:
        UserError: as `heldout_again`.
    """
    known, _notes = known_rows(run)
    unseen = (example for example in heldout_again(run).heldout if not known.learned(example))
    return list(itertools.islice(unseen, count))


def what_changed(run: Run, stage: int, split: DataSplit) -> str:
    """In what a stage's data differs from what it was when the run started."""
    now = Counter(_row_numbers(split))
    kept, started = TrainedRows.read(run.path), run.progress().started
    if kept is None or started is None:
        count = started.train_rows[stage] + started.heldout_rows[stage] if started else 0
        return f"{count:,} rows were used then, {len(split.train) + len(split.heldout):,} now, or other ones"
    then = Counter(kept.rows[stage])
    new, gone = (now - then).total(), (then - now).total()
    if not new and not gone:
        return "its rows stand in another order, or another version of tunelab divided them"
    parts = [f"{n:,} {'row is' if n == 1 else 'rows are'} {what}" for n, what in ((new, "new"), (gone, "gone")) if n]
    return f"{', '.join(parts)} ({then.total():,} then, {now.total():,} now)"


def _other_data(run: Run) -> str:
    named = f"tunelab evaluate {run.id} --data FILE"
    return f"To measure on other data, name it: `{named}`; rows it was trained on are left out."


def _hashes(run: Run) -> tuple[str, ...]:
    started = run.progress().started
    return started.data_sha256 if started else ()


def _read_anew(run: Run) -> TrainedRows | None:
    """From the data itself, where that is what it was."""
    if not run.readable or len(_hashes(run)) != len(run.config.stages):
        return None
    stages = run.config.stages
    try:
        splits = [heldout_again(run, stage) for stage in range(len(stages))]
        replayed = [e for stage in stages if stage.training.replay_share for e in read_examples(stage.replayed)]
    except UserError:
        return None
    return TrainedRows.of(stages, splits, replayed)


def _choosing(stages: Sequence[Stage], splits: Sequence[DataSplit]) -> Iterable[Example]:
    for stage, split in zip(stages, splits, strict=True):
        yield from split.heldout[: stage.training.choosing_rows]


def _row_numbers(split: DataSplit) -> tuple[int, ...]:
    examples = [*split.train, *split.unused, *split.heldout]
    if not all(example.whole for example in examples):  # a document of which the end is held out, at last
        end = examples.pop().text or ""
        examples = [one if one.whole else replace(one, text=f"{one.text}{end}") for one in examples]
    return tuple(_number(row_digest(example)) for example in examples)


def _numbers(digests: Iterable[bytes]) -> frozenset[int]:
    return frozenset(map(_number, digests))


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")


def _array(numbers: Iterable[int]) -> numpy.ndarray:
    import numpy

    return numpy.array(sorted(numbers), dtype=numpy.uint64)


def _joined(arrays: Iterable[Any]) -> numpy.ndarray:
    import numpy

    parts = [numpy.asarray(part, dtype=numpy.uint64) for part in arrays]
    return numpy.unique(numpy.concatenate(parts)) if parts else numpy.zeros(0, numpy.uint64)
