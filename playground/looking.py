"""What there is to see of rows before anything is trained on them, step by step, as it is found out: the first rows,
all of them, their lengths, and what the data doctor says. Knows nothing of the page.

The work goes on in a thread; whoever looks may turn away at any moment, and then it ends.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from playground.english import data as say
from playground.troubles import Trouble, trouble_of
from tunelab import DataSpec, ModelSpec, Stage, UserError, examine, read_data
from tunelab.data.doctor import Examination
from tunelab.data.doctor.labels import Labels, spelling
from tunelab.data.examples import Account, DataSplit
from tunelab.data.glance import columns_there, first_rows, rows_there
from tunelab.data.previews import Overview, PreviewRow, Seen
from tunelab.data.split import file_of, stamps_of
from tunelab.errors import explain
from tunelab.machine import libraries
from tunelab.measure.metrics import NAMED
from tunelab.measure.task import task_for

SHOWN = 4  # rows at a time
LARGE = 20_000_000  # bytes of a file of which the first rows are shown while the others are read
KEPT, KEPT_ROWS = 4, 20_000  # readings that are kept, and rows of one at most


@dataclass(frozen=True)
class LabelRows:
    label: str
    train: int
    heldout: int


@dataclass(frozen=True)
class Sight:
    """What is known of rows so far."""

    stage: Stage | None = None
    progress: str = ""  # what is being worked out; empty at the end
    trouble: Trouble | None = None
    columns: tuple[str, ...] = ()
    roles: dict[str, str] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
    train: int = 0
    heldout: int = 0
    unused: int = 0
    is_part: bool = False  # only the first rows have been read yet
    rows: tuple[PreviewRow, ...] = ()
    raw: tuple[dict[str, Any], ...] = ()  # rows as they stand in their source, where there are no others to show
    more_rows: bool = False
    overview: Overview | None = None
    labels: tuple[LabelRows, ...] = ()
    metric: str | None = None
    examination: Examination | None = None
    model_trouble: str = ""  # why rows can't be shown as tokens
    problem: str = ""  # why nothing can be trained on rows that can be read

    @property
    def refusal(self) -> str:
        """Why nothing can be trained on the rows; empty: they can be."""
        return self.problem or (self.overview.refusal if self.overview else None) or ""

    @property
    def is_ready(self) -> bool:
        """Whether training can begin as far as is known."""
        return bool(self.train) and not (self.is_part or self.trouble or self.refusal)


class Over(Exception):
    """Nobody looks any more."""


Tell = Callable[[str], None]


def look(stage: Stage, model: ModelSpec, is_over: Callable[[], bool] = lambda: False) -> Iterator[Sight]:
    """What is known, again whenever there is more of it; nothing once `is_over`."""
    news: queue.SimpleQueue[Any] = queue.SimpleQueue()
    left = threading.Event()

    def told(words: str) -> None:
        if left.is_set() or is_over():
            raise Over
        news.put(words)

    def work() -> None:
        try:
            for sight in _steps(stage, model, told):
                told("")
                news.put(sight)
        except Over:
            pass
        except Exception as error:
            news.put(error)
        news.put(None)

    threading.Thread(target=work, daemon=True, name="look").start()
    try:
        yield from _heard(news, is_over)
    finally:
        left.set()


def _heard(news: queue.SimpleQueue[Any], is_over: Callable[[], bool]) -> Iterator[Sight]:
    sight = Sight()
    while True:
        try:
            heard = news.get(timeout=0.5)
        except queue.Empty:
            heard = ""
        if is_over() or heard is None:
            return
        if isinstance(heard, Exception):
            raise heard
        if isinstance(heard, Sight):
            sight = heard
            yield sight
        elif heard:
            words = say.EXAMINING_MORE if sight.overview else say.READING_MORE
            yield replace(sight, progress=words.format(words=heard))


def _steps(stage: Stage, model: ModelSpec, tell: Tell) -> Iterator[Sight]:
    sight = Sight(stage, say.READING)
    yield sight
    if _is_large(stage.data):
        sight = _first(sight, model)
        yield sight
    try:
        split = read_once(stage, tell)
    except Exception as error:
        if explain(error) is None or isinstance(error, Over):
            raise
        columns, raw = _there(stage.data)
        yield Sight(stage, trouble=trouble_of(stage, error), columns=columns, raw=raw)
        return
    sight = _read(stage, split)
    seen, sight = _with_tokens(sight, split, model)
    yield sight
    sight = replace(
        sight,
        overview=_judged(seen, sight) if seen else None,
        labels=label_rows(split),
        metric=metric_of(stage, split),
        progress=say.EXAMINING,
    )
    yield sight
    yield replace(sight, examination=_examined(stage, model if seen else None, tell), progress="")


def _is_large(data: DataSpec) -> bool:
    file = file_of(data.source)
    return bool(file and file.is_file() and file.stat().st_size > LARGE)


def _first(sight: Sight, model: ModelSpec) -> Sight:
    """With the first rows; as it was where they alone can't be read."""
    assert sight.stage is not None
    try:
        split = first_rows(sight.stage.data, sight.stage.learn)
        read = replace(_read(sight.stage, split), train=0, heldout=0, account=Account())
        return replace(_with_tokens(read, split, model)[1], is_part=True, problem="", progress=say.READING)
    except UserError:
        return sight


def _read(stage: Stage, split: DataSplit) -> Sight:
    return Sight(
        stage,
        say.JUDGING,
        columns=split.account.found,
        roles=split.columns,
        account=split.account,
        train=len(split.train),
        heldout=len(split.heldout),
        unused=len(split.unused),
        problem=split.problem or "",
    )


def _with_tokens(sight: Sight, split: DataSplit, model: ModelSpec) -> tuple[Seen | None, Sight]:
    """The rows as the model reads them, where it can be had."""
    assert sight.stage is not None
    try:
        seen = _seen(split, sight.stage, model)
        rows, _notes = seen.shown(SHOWN + 1)
    except Exception as error:
        words = explain(error)
        if words is None:
            raise
        return None, replace(sight, model_trouble=words, raw=_there(sight.stage.data)[1])
    return seen, replace(sight, rows=tuple(rows[:SHOWN]), more_rows=len(rows) > SHOWN)


def _seen(split: DataSplit, stage: Stage, model: ModelSpec) -> Seen:
    libraries.load()  # a tokenizer needs them, and another thread may be the first to import them
    return Seen(split, stage, model)


def _judged(seen: Seen, sight: Sight) -> Overview:
    warnings, lengths, refusal, of = seen.judged()
    return Overview(list(sight.rows), tuple(of), warnings, lengths, refusal)


def _examined(stage: Stage, model: ModelSpec | None, tell: Tell) -> Examination | None:
    try:
        return examine(stage, model=model, on_progress=tell)
    except UserError:  # there are no rows but held-out ones
        return None


def rows_from(stage: Stage, model: ModelSpec, first: int) -> tuple[tuple[PreviewRow, ...], bool]:
    """Rows behind the `first` ones, and whether more follow.

    Raises:
        UserError: they can't be read any more.
    """
    rows, _notes = _seen(read_once(stage), stage, model).shown(SHOWN + 1, first)
    return tuple(rows[:SHOWN]), len(rows) > SHOWN


_readings: OrderedDict[object, DataSplit] = OrderedDict()
_lock = threading.Lock()


def read_once(stage: Stage, tell: Tell = lambda words: None) -> DataSplit:
    """As `read_data`; of rows that are few the last readings are kept, by what their files hold now."""
    key = _identity(stage)
    with _lock:
        if key in _readings:
            _readings.move_to_end(key)
            return _readings[key]
    split = read_data(stage.data, stage.learn, on_progress=tell)
    if len(split.train) + len(split.heldout) <= KEPT_ROWS and key == _identity(stage):
        with _lock:
            _readings[key] = split
            while len(_readings) > KEPT:
                _readings.popitem(last=False)
    return split


def _identity(stage: Stage) -> object:
    return stage.data.model_dump_json(), stage.learn, stamps_of((stage.data.source, stage.data.heldout))


def _there(data: DataSpec) -> tuple[tuple[str, ...], tuple[dict[str, Any], ...]]:
    """The columns, and the first rows as they stand there: who is to say which column is which has to see them."""
    try:
        return tuple(columns_there(data)), tuple(rows_there(data, SHOWN))
    except Exception as error:
        if explain(error) is None:
            raise
        return (), ()


def label_rows(split: DataSplit) -> tuple[LabelRows, ...]:
    """How many rows each label has, the most frequent first; nothing where answers are no labels."""
    labels, sides = Labels(), (split.train, split.heldout)
    for example in chain(*sides):
        labels.see(example)
        if not labels.possible:
            return ()
    names = {spelled: ways[0] for spelled, ways in labels.groups().items()}
    if not names:
        return ()
    train, heldout = (Counter(spelling(e.answer) for e in side if e.answer.strip()) for side in sides)
    counts = [LabelRows(name, train[spelled], heldout[spelled]) for spelled, name in names.items()]
    return tuple(sorted(counts, key=lambda one: (-one.train - one.heldout, one.label)))


def metric_of(stage: Stage, split: DataSplit) -> str | None:
    """The figure that answers to these rows are measured by while a model learns them."""
    answers = [example.answer for example in split.heldout if example.text is None]
    if not answers or stage.learn == "text":
        return None
    metrics = task_for(stage.data.source, split.train, answers).metrics
    return next((metric.name for metric in metrics if metric.name in NAMED), None)
