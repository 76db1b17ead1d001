"""Which decoder answers: the one place that decides it, for comparing and for measuring.

    Resident(base).passes(results) ──> passes, each some columns (0 the base, n the n-th result) and their decoders

The base and every result that can share a batch with it (LoRA) go first, in one. Where there is none, the base takes
turns with the first result, adapter off and on. Every other result follows in a pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.answer.generation import Decoder, PlainDecoder
from tunelab.fast.decode import Factors, FastDecoder
from tunelab.fast.llama import FastLlama
from tunelab.fast.structure import Unsupported
from tunelab.machine import hardware
from tunelab.spec import base_differences
from tunelab.techniques import LoRA, Technique

if TYPE_CHECKING:
    from tunelab.model.load import Base
    from tunelab.run.run import Run
    from tunelab.spec import ModelSpec

KEPT_FACTORS = 8  # adapters whose factors are kept as they were read; questions to more of them read them again

MakeDecoders = Callable[[int, int], list[Decoder]]  # for so many prompts of up to so many tokens


@dataclass(frozen=True)
class Result:
    """What a run's training left: an adapter, or a model."""

    technique: Technique
    folder: Path
    changed: int  # when: a result that was rolled back, or trained further, is another one

    @classmethod
    def of(cls, run: Run) -> Result:
        return cls(run.config.technique, run.adapter_path, run.adapter_path.stat().st_mtime_ns)


@dataclass(frozen=True)
class Pass:
    """Columns that are answered together."""

    columns: list[int]
    decoders: MakeDecoders
    padded: bool  # prompts of different lengths can be padded on the left


class Resident:
    """A base that answers, and the one result that is attached to it at a time."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._llama: FastLlama | None = None
        self._knows_llama = False
        self._attached: tuple[Result, Any] | None = None
        self._factors: dict[Result, Factors] = {}

    @classmethod
    def measured(cls, base: Base, result: Result, model: Any, llama: FastLlama | None) -> Resident:
        """A base whose result is attached already, as `model`; `llama`: how both compute their losses, if fast."""
        resident = cls(base)
        resident._attached, resident._llama, resident._knows_llama = (result, model), llama, True
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

    def in_one_batch(self, runs: Sequence[Run], spec: ModelSpec) -> bool:
        """Whether base and the results of these runs, which stand on `spec`, answer in one batch."""
        together = all(run.config.technique.rows_can_differ for run in runs)
        return together and not base_differences(self.base.spec, spec) and self._fast() is not None

    def llama(self) -> FastLlama:
        """The base as it decodes rows of different adapters."""
        llama = self._fast()
        assert llama is not None
        return llama

    def factors(self, result: Result) -> Factors:
        """Those of a LoRA adapter; questions to the same one share them."""
        if result not in self._factors:
            technique = result.technique
            assert isinstance(technique, LoRA), technique
            while len(self._factors) >= KEPT_FACTORS:
                self._factors.pop(next(iter(self._factors)))
            self._factors[result] = technique.factors(result.folder)
        return self._factors[result]

    def detach(self) -> None:
        """Take an attached result off the base."""
        if self._attached:
            result, model = self._attached
            result.technique.detach(model)
            self._attached = None

    def _fast(self) -> FastLlama | None:
        """The base as it decodes rows of different adapters, made once; its weights packed where there is memory for
        it. None for a model that is not known there."""
        if self._attached and not self._attached[0].technique.rows_can_differ:
            self.detach()
        if not self._knows_llama:
            self.detach()
            base = self.base
            size = sum(p.numel() for p in base.model.parameters()) * base.dtype.itemsize
            spacious = base.spec.keep_dequantized is not False and hardware.affords(size, base.device)
            try:
                self._llama = FastLlama(base.model, packed=spacious)
            except Unsupported:
                self._llama = None
            self._knows_llama = True
        return self._llama

    def _alternating(self, result: Result | None, on: Sequence[bool]) -> MakeDecoders:
        """A decoder for each column, with the result's adapter on or off; without a result, the base as it is."""
        if result is None:
            self.detach()
            return lambda rows, _capacity: [PlainDecoder(self.base.model, nullcontext, rows) for _ in on]
        if self._attached is None or self._attached[0] != result:
            self.detach()
            self._attached = (result, result.technique.load(self.base, result.folder).eval())
        model, technique = self._attached[1], result.technique
        around = [nullcontext if tuned else lambda: technique.off(model) for tuned in on]
        return lambda rows, _capacity: [PlainDecoder(model, switch, rows) for switch in around]


def while_training(model: Any, technique: Technique, llama: FastLlama | None, tuned: bool) -> Pass:
    """How a model that is being trained answers now, with its adapter as it is, or without it; `llama`: how it computes
    its losses, if fast."""
    if llama is not None and isinstance(technique, LoRA):
        factors = technique.factors_of(model) if tuned else None
        return Pass([0], lambda rows, capacity: [FastDecoder(llama, [factors] * rows, capacity)], padded=True)
    around = nullcontext if tuned else lambda: technique.off(model)
    return Pass([0], lambda rows, _capacity: [PlainDecoder(model, around, rows)], technique.rows_can_be_padded)


def _batched(llama: FastLlama, results: Sequence[Result | None]) -> MakeDecoders:
    """One decoder for all columns, row by row; None stands for the base."""
    adapters: list[Any] = []
    for result in results:
        technique = result.technique if result else None
        assert technique is None or isinstance(technique, LoRA), technique
        adapters.append(technique.factors(result.folder) if technique and result else None)
    return lambda rows, capacity: [FastDecoder(llama, [a for a in adapters for _ in range(rows)], capacity)]
