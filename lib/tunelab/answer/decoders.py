"""Which decoder answers: the one place that decides it, for comparing and for measuring.

    Resident(base).passes(results) ──> passes, each some columns (0 the base, n the n-th result) and their decoders

The base and every result that can share a batch with it (LoRA) go first, in one. Where there is none, the base takes
turns with the first result, adapter off and on. Every other result follows in a pass of its own.

    Resident(base).split(results) ──> which of some rows can share a batch
                  .turns(results) ──> the same passes for rows in any order, each with a prompt of its own
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.answer.generation import Decoder, PlainDecoder
from tunelab.fast.changes import Unsupported
from tunelab.fast.decode import Factors, FastDecoder
from tunelab.fast.llama import FastLlama
from tunelab.fast.probe import check
from tunelab.machine import hardware
from tunelab.techniques import LoRA, Technique

if TYPE_CHECKING:
    from tunelab.model.load import Base
    from tunelab.run.run import Run

ROOM = 64  # tokens of answers for which there is space at first; decoders grow
KEPT_FACTORS = 8  # adapters whose factors are kept as they were read; questions to more of them read them again

Around = Callable[[], AbstractContextManager[Any]]
MakeDecoders = Callable[[int, int], list[Decoder]]  # for so many prompts of up to so many tokens


@dataclass(frozen=True)
class Result:
    """What a run's training left: an adapter, or a model."""

    technique: Technique
    folder: Path
    changed: int  # when: a result that was rolled back, or trained further, is another one

    @classmethod
    def of(cls, run: Run, strength: float = 1.0) -> Result:
        technique = run.config.technique if strength == 1 else run.config.technique.at_strength(strength)
        return cls(technique, run.adapter_path, run.adapter_path.stat().st_mtime_ns)


@dataclass(frozen=True)
class Pass:
    """Columns that are answered together."""

    columns: list[int]
    decoders: MakeDecoders
    padded: bool  # prompts of different lengths can be padded on the left


@dataclass(frozen=True)
class Turn:
    """Rows that are answered together, and their decoders, which have them in this order."""

    rows: list[int]
    decoders: list[Decoder]


class Resident:
    """A base that answers, and the one result that is attached to it at a time."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._llama: FastLlama | None = None
        self._knows_llama = False
        self._attached: tuple[Result, Any] | None = None
        self._factors: dict[tuple[Path, int], Factors] = {}

    @classmethod
    def measured(cls, base: Base, result: Result, model: Any, llama: FastLlama | None) -> Resident:
        """A base whose result is attached already, as `model`; `llama`: how both compute their losses, if fast."""
        resident = cls(base)
        resident._attached, resident._knows_llama = (result, model), True
        resident._llama = llama if _decodes(llama, result.technique) else None
        return resident

    def passes(self, results: Sequence[Result], columns: Collection[int] | None = None) -> Iterator[Pass]:
        """How the columns are answered, those of base and results, or the ones asked for. A pass has to be used up
        before the next one is taken: it may detach what the one before stands on."""
        together = [n for n, result in enumerate(results, 1) if result.technique.rows_can_differ]
        llama = self._fast() if together or not results else None
        alone = [n for n in range(1, len(results) + 1) if not (llama and n in together)]
        first = together if llama else alone[:1]
        for group in ([0, *first], *([n] for n in alone if n not in first)):
            asked = [column for column in group if columns is None or column in columns]
            if not asked:
                continue
            of_group = [results[column - 1] if column else None for column in asked]
            if llama and group[0] == 0:
                yield Pass(asked, _batched(llama, of_group), padded=True)
            else:
                beside = results[group[-1] - 1] if group[-1] else None
                padded = all(result is None or result.technique.rows_can_be_padded for result in of_group)
                yield Pass(asked, self._alternating(beside, [column > 0 for column in asked]), padded)

    def turns(self, results: Sequence[Result | None], prompts: Sequence[Sequence[int]]) -> Iterator[Turn]:
        """How rows are answered, each by the base (None) or a result, to a prompt of its own. A turn has to be used up
        before the next one is taken: it may detach what the one before stands on."""
        batch, rest = self.split(results)
        if batch:
            factors = [self._factors_or_none(results[row]) for row in batch]
            capacity = max(len(prompts[row]) for row in batch) + ROOM
            yield Turn(batch, [FastDecoder(self.llama(), factors, capacity)])
        bases = [row for row in rest if results[row] is None]
        others = dict.fromkeys(result for row in rest if (result := results[row]) is not None)
        for place, result in enumerate(others or [None]):
            tuned = [row for row in rest if result is not None and results[row] == result]
            beside = bases if place == 0 else []
            if not tuned and not beside:
                continue
            padded = result is None or result.technique.rows_can_be_padded
            groups = [
                (group, on) for rows, on in ((beside, False), (tuned, True)) for group in _alike(rows, prompts, padded)
            ]
            model, switched = self._attach(result)
            decoders: list[Decoder] = [PlainDecoder(model, switched[on], len(group)) for group, on in groups]
            yield Turn([row for group, _on in groups for row in group], decoders)

    def split(self, results: Sequence[Result | None]) -> tuple[list[int], list[int]]:
        """The rows that can share a batch, and the others. The base is with the batch if a result is, or if there is
        none; else it takes turns with the first result, so that both are computed in the same way."""
        wanted = any(result is not None and result.technique.rows_can_differ for result in results)
        if not (wanted or all(result is None for result in results)) or self._fast() is None:
            return [], list(range(len(results)))
        batch = [row for row, result in enumerate(results) if result is None or result.technique.rows_can_differ]
        return batch, [row for row in range(len(results)) if row not in batch]

    @property
    def knows_llama(self) -> bool:
        """Whether it is known if rows can share a batch. To find out, what is attached is detached."""
        return self._knows_llama

    @property
    def bytes_of_token(self) -> int:
        """What the keys and values of a token take, by the model's configuration."""
        config = self.base.model.config.get_text_config()
        heads = getattr(config, "num_attention_heads", None) or 1
        keys = getattr(config, "num_key_value_heads", None) or heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return int(2 * config.num_hidden_layers * keys * size * self.base.dtype.itemsize)

    def llama(self) -> FastLlama:
        """The base as it decodes rows of different adapters."""
        llama = self._fast()
        assert llama is not None
        return llama

    def prepare(self) -> None:
        """Make what the first answer needs, before anybody asks."""
        self._fast()

    def factors(self, result: Result) -> Factors:
        """Those of a LoRA adapter, as strong as its technique says; questions to the same one share them."""
        technique, key = result.technique, (result.folder, result.changed)
        assert isinstance(technique, LoRA), technique
        if key not in self._factors:
            while len(self._factors) >= KEPT_FACTORS:
                self._factors.pop(next(iter(self._factors)))
            self._factors[key] = technique.factors(result.folder)
        self._factors[key] = self._factors.pop(key)  # the last one that was asked for is forgotten last
        return {name: (a, b, technique.scale) for name, (a, b, _scale) in self._factors[key].items()}

    def _factors_or_none(self, result: Result | None) -> Factors | None:
        return None if result is None else self.factors(result)

    def detach(self) -> None:
        """Take an attached result off the base."""
        if self._attached:
            result, model = self._attached
            result.technique.detach(model)
            self._attached = None

    def _fast(self) -> FastLlama | None:
        """The base as it decodes rows of different adapters, made once; its weights packed where there is memory for
        it. None for a model that is not known there."""
        if not self._knows_llama:
            self.detach()
            base = self.base
            size = sum(p.numel() for p in base.model.parameters()) * base.dtype.itemsize
            spacious = base.spec.keep_dequantized is not False and hardware.affords(size, base.device)
            try:
                check(base.model, to_decode=True)
                llama = FastLlama(base.model, packed=spacious)
                self._llama = llama if llama.packed else llama.join()
            except Unsupported:
                self._llama = None
            self._knows_llama = True
        return self._llama

    def _alternating(self, result: Result | None, on: Sequence[bool]) -> MakeDecoders:
        """A decoder for each column, with the result's adapter on or off; without a result, the base as it is."""
        model, switched = self._attach(result)
        return lambda rows, _capacity: [PlainDecoder(model, switched[tuned], rows) for tuned in on]

    def _attach(self, result: Result | None) -> tuple[Any, dict[bool, Around]]:
        """The model with a result, and what is around it with its adapter off and on; without a result, the base as it
        is. The base's own weights stay where they are outside of it: others compute with them meanwhile."""
        if result is None:
            self.detach()
            return self.base.model, {False: nullcontext}
        if self._attached is None or self._attached[0] != result:
            self.detach()
            model = result.technique.load(self.base, result.folder).eval()
            self._attached = (result, model)
            result.technique.rest(model)
        model, technique = self._attached[1], result.technique
        return model, {False: lambda: technique.off(model), True: lambda: technique.on(model)}


def while_training(model: Any, technique: Technique, llama: FastLlama | None, tuned: bool) -> Pass:
    """How a model that is being trained answers now, with its adapter as it is, or without it; `llama`: how it computes
    its losses, if fast."""
    if llama is not None and _decodes(llama, technique):
        assert isinstance(technique, LoRA), technique
        factors = technique.factors_of(model) if tuned else None
        return Pass([0], lambda rows, capacity: [FastDecoder(llama, [factors] * rows, capacity)], padded=True)
    around = nullcontext if tuned else lambda: technique.off(model)
    return Pass([0], lambda rows, _capacity: [PlainDecoder(model, around, rows)], technique.rows_can_be_padded)


def _decodes(llama: FastLlama | None, technique: Technique) -> bool:
    """Whether it answers as the base, and as the model with the technique: in a batch it knows no other changes than
    low-rank ones."""
    return llama is not None and llama.rows_alone and technique.rows_can_differ


def _batched(llama: FastLlama, results: Sequence[Result | None]) -> MakeDecoders:
    """One decoder for all columns, row by row; None stands for the base."""
    adapters: list[Any] = []
    for result in results:
        technique = result.technique if result else None
        assert technique is None or isinstance(technique, LoRA), technique
        adapters.append(technique.factors(result.folder) if technique and result else None)
    return lambda rows, capacity: [FastDecoder(llama, [a for a in adapters for _ in range(rows)], capacity)]


def _alike(rows: Sequence[int], prompts: Sequence[Sequence[int]], padded: bool) -> list[list[int]]:
    """Rows that one decoder takes: all of them, or where padding would change answers, those of the same length."""
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(0 if padded else len(prompts[row]), []).append(row)
    return list(groups.values())
