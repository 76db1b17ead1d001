"""Examples on the disk: of large data, rows are written to an Arrow file as they are read, and memory stays flat."""

from __future__ import annotations

import marshal
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, overload

from tunelab.data.examples import Example, Message
from tunelab.machine.files import cache_root

if TYPE_CHECKING:
    import numpy

IN_MEMORY = 100_000  # examples
AT_ONCE = 4096  # examples in a batch of the file


def collected(examples: Iterable[Example]) -> Sequence[Example]:
    """The examples as a list, or as a sequence on the disk where there are more than `IN_MEMORY`."""
    source = iter(examples)
    first = list(islice(source, IN_MEMORY + 1))
    return first if len(first) <= IN_MEMORY else Stored(chain(first, source))


def pick(examples: Sequence[Example], indices: Sequence[int]) -> Sequence[Example]:
    """The examples with these indices, in this order; those on the disk stay there."""
    return Picked(examples, indices) if isinstance(examples, Stored) else [examples[index] for index in indices]


class View(Sequence[Example]):
    """A sequence whose slices are read as views."""

    def _at(self, index: int) -> Example:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return Picked(self, range(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._at(index % len(self))


class Stored(View):
    """Examples in an Arrow file of their own, which goes when they do."""

    def __init__(self, examples: Iterable[Example]) -> None:
        import pyarrow

        folder = cache_root() / "rows"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".arrow", delete=False) as file:
            self.path = Path(file.name)
        self._finalizer = weakref.finalize(self, self.path.unlink, missing_ok=True)
        schema = pyarrow.schema([("example", pyarrow.large_binary())])
        self._count = 0
        with pyarrow.OSFile(str(self.path), "wb") as sink, pyarrow.ipc.new_file(sink, schema) as writer:
            source = iter(examples)
            while batch := [_packed(example) for example in islice(source, AT_ONCE)]:
                writer.write_batch(pyarrow.record_batch([pyarrow.array(batch, pyarrow.large_binary())], schema))
                self._count += len(batch)
        file = pyarrow.ipc.open_file(pyarrow.memory_map(str(self.path)))
        self._batches = [file.get_batch(number).column(0) for number in range(file.num_record_batches)]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Example]:
        for batch in self._batches:
            yield from map(_unpacked, batch.to_pylist())

    def _at(self, index: int) -> Example:
        batch, place = divmod(index, AT_ONCE)
        return _unpacked(self._batches[batch][place].as_py())


class Picked(View):
    """Some of a sequence, in an order of its own."""

    _examples: Sequence[Example]
    _indices: Sequence[int] | numpy.ndarray

    def __init__(self, examples: Sequence[Example], indices: Sequence[int] | numpy.ndarray) -> None:
        if isinstance(examples, Picked):
            indices = [examples._indices[index] for index in indices]
            examples = examples._examples
        self._examples, self._indices = examples, indices

    def __len__(self) -> int:
        return len(self._indices)

    def _at(self, index: int) -> Example:
        return self._examples[int(self._indices[index])]


def _packed(example: Example) -> bytes:
    """In Python's own format, the fastest there is; no other process ever reads the file."""
    messages = [(m.role, str(m.content), m.learned, m.extra) for m in example.messages]  # str: NumPy's text is no other
    text = None if example.text is None else str(example.text)
    return marshal.dumps((messages, text, example.row, example.whole, example.group))


def _unpacked(data: bytes) -> Example:
    messages, *rest = marshal.loads(data)
    return Example(tuple([Message(*message) for message in messages]), *rest)
