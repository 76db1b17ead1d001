"""Base and tuned, side by side, on one resident base.

Exactly one thread touches a model (`Comparer` owns it; requests queue), because PEFT's switches are not thread-safe.
LoRA answers come from one batch: row 0 without an adapter, row i with adapter i. Any other technique takes turns with
the base, adapter off and on; where there are several, each of them has a pass of its own. Every answer says where it
comes from.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunelab.errors import UserError
from tunelab.run.run import Run, list_runs

if TYPE_CHECKING:
    from tunelab.data import Message
    from tunelab.model.load import Base

MAX_COLUMNS = 9
StopReason = Literal["end of turn", "length", "cancelled"]


@dataclass(frozen=True)
class Provenance:
    """Where an answer comes from, so that nobody has to believe it."""

    base: str
    base_sha256: str
    adapter: str | None  # id of the run; None: the base alone
    precision: str
    template: str
    decoding: str

    @property
    def text(self) -> str:
        """One line for people."""
        adapter = f"adapter {self.adapter} on" if self.adapter else "adapter off"
        return (
            f"{self.base} ({self.base_sha256[:8]}) · {adapter} · {self.precision} · {self.template} · {self.decoding}"
        )


@dataclass(frozen=True)
class Answer:
    label: str
    text: str
    tokens: int
    stop_reason: StopReason | None
    seconds: float
    provenance: Provenance


@dataclass(frozen=True)
class Comparison:
    """One prompt, the same decoding, one answer by the base and one by each adapter."""

    prompt: str
    system: str | None
    answers: tuple[Answer, ...]
    done: bool
    note: str | None = None


@dataclass(frozen=True)
class _Request:
    work: Callable[[], Iterator[Any]]  # run by the owner thread
    updates: queue.SimpleQueue[Any]  # what it yields, then _END or the exception it raised


@dataclass(frozen=True)
class _Question:
    runs: tuple[Run, ...]
    prompt: str
    system: str | None
    max_new_tokens: int
    temperature: float
    seed: int
    cancel: threading.Event


_END = object()
_MakeDecoders = Callable[[int, int], list[Any]]  # for so many prompts of up to so many tokens
_Pass = tuple[list[int], _MakeDecoders]


def _batched(llama: Any, runs: list[Run]) -> _MakeDecoders:
    """One decoder for the base and every run, row by row."""
    from tunelab.fast.decode import FastDecoder
    from tunelab.techniques import LoRA

    adapters: list[Any] = [None]
    for run in runs:
        technique = run.config.technique
        assert isinstance(technique, LoRA), technique
        adapters.append(technique.factors(run.adapter_path))
    return lambda rows, capacity: [FastDecoder(llama, [a for a in adapters for _ in range(rows)], capacity)]


def compare(
    runs: Run | str | Sequence[Run | str],
    prompt: str,
    *,
    root: str | Path | None = None,
    **decoding: Any,
) -> Comparison:
    """The finished comparison of base and runs on one prompt; `decoding` as in `Comparer.stream`.

    Raises:
        UserError: a run has no adapter, or a setting is out of its range.
    """
    chosen = [runs] if isinstance(runs, (Run, str)) else list(runs)
    with Comparer(root) as comparer:
        *_, last = comparer.stream(chosen, prompt, **decoding)
    return last


class Comparer:
    """Owns the thread that touches models, and the one base that is resident. Close it, or use it in a `with`."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = root
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._base: Base | None = None
        self._llama: Any = None  # the resident base as it decodes rows of different adapters
        self._attached: tuple[tuple[str, int], Any, Any] | None = None

    def __enter__(self) -> Comparer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the owner thread and release the model."""
        if self._thread:
            self._requests.put(None)
            self._thread.join()
            self._thread = None

    def stream(
        self,
        runs: Sequence[Run | str],
        prompt: str,
        *,
        system: str | None = None,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
        cancel: threading.Event | None = None,
    ) -> Iterator[Comparison]:
        """The comparison as it grows, a token per answer each time; the last one is `done`.

        Closing the iterator, or setting `cancel`, stops at the next token.

        Raises:
            UserError: a run has no adapter, the runs have different bases, or a setting is out of its range.
        """
        if not prompt.strip():
            raise UserError("The prompt is empty. Write a question, or choose one of the examples.")
        opened = self._opened(runs)
        _check_decoding(max_new_tokens, temperature)
        stop = cancel or threading.Event()
        question = _Question(opened, prompt, system or None, max_new_tokens, temperature, seed, stop)
        try:
            yield from self._submit(lambda: self._answer(question))
        finally:
            stop.set()

    def answers(
        self,
        runs: Sequence[Run | str],
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int = 128,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> list[list[str]]:
        """Greedy answers to many prompts: for each prompt, the base's and each run's. Many rows are decoded at once.

        `prompts` are the turns up to the answer (`Example.asked`); `on_progress` hears how many are done.

        Raises:
            UserError: a run has no adapter, or the runs have different bases.
        """
        opened = self._opened(runs)
        _check_decoding(max_new_tokens, 0.0)
        everything: list[list[str]] = [[] for _ in prompts]
        done = 0
        for indices, answers in self._submit(lambda: self._answer_all(opened, prompts, max_new_tokens)):
            for index, texts in zip(indices, answers, strict=True):
                everything[index] = texts
            done += len(indices)
            on_progress(done)
        return everything

    def _opened(self, runs: Sequence[Run | str]) -> tuple[Run, ...]:
        if not runs:
            raise UserError("No run is chosen to compare with the base. Choose one; if there is none yet, train one.")
        if len(runs) >= MAX_COLUMNS:
            raise UserError(f"{len(runs)} runs: give 1 to {MAX_COLUMNS - 1} to compare with the base.")
        opened = tuple(run if isinstance(run, Run) else Run.open(run, self.root) for run in runs)
        _check_runs(opened)
        return opened

    def _submit(self, work: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """What `work` yields in the owner thread."""
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._own, daemon=True, name="model owner")
                self._thread.start()
        request = _Request(work, queue.SimpleQueue())
        self._requests.put(request)
        while (update := request.updates.get()) is not _END:
            if isinstance(update, BaseException):
                raise update
            yield update

    def _own(self) -> None:
        """The owner thread: one request after the other."""
        while (request := self._requests.get()) is not None:
            try:
                for update in request.work():
                    request.updates.put(update)
                request.updates.put(_END)
            except BaseException as error:
                self._forget()  # whatever state it is in, do not answer from it again
                request.updates.put(error)
        self._forget()

    def _forget(self) -> None:
        self._base = self._llama = self._attached = None

    def _answer(self, asked: _Question) -> Iterator[Comparison]:
        from tunelab.answer.generation import decode, end_ids, text_of
        from tunelab.data.encode import encode_prompt
        from tunelab.data.examples import Message

        spec = asked.runs[0].base_spec
        if self._base is None or self._base.spec != spec:
            swapping = f", in place of {self._base.spec.repo_id} ({self._base.precision})" if self._base else ""
            yield Comparison(asked.prompt, asked.system, (), False, f"loading {spec.repo_id}{swapping} …")
        base = self._resident(asked.runs)
        turns = [Message("user", asked.prompt)]
        system = asked.system or _system_of(asked.runs[0])
        if system:
            turns.insert(0, Message("system", system))
        prompt = encode_prompt(turns, base.tokenizer)
        answers = _blank_answers(base, asked)
        note = _note(asked.runs)
        stops = end_ids(base.tokenizer, base.model)
        for columns, make in self._passes(base, asked.runs):
            generated: dict[int, list[int]] = {column: [] for column in columns}
            started = time.perf_counter()
            for step in decode(
                make(1, len(prompt) + asked.max_new_tokens),
                [prompt],
                end_ids=stops,
                max_new_tokens=asked.max_new_tokens,
                temperature=asked.temperature,
                seed=asked.seed,
                cancelled=asked.cancel.is_set,
            ):
                for column, token in zip(columns, step, strict=True):
                    if token is None:
                        continue
                    if token not in stops:
                        generated[column].append(token)
                    answers[column] = replace(
                        answers[column],
                        text=text_of(base.tokenizer, generated[column]),
                        tokens=len(generated[column]),
                        stop_reason="end of turn" if token in stops else None,
                        seconds=time.perf_counter() - started,
                    )
                yield Comparison(asked.prompt, system, tuple(answers), False, note)
        ending: StopReason = "cancelled" if asked.cancel.is_set() else "length"
        final = tuple(replace(a, stop_reason=a.stop_reason or ending) for a in answers)
        yield Comparison(asked.prompt, system, final, True, note)

    def _answer_all(
        self, runs: tuple[Run, ...], prompts: Sequence[Sequence[Message]], max_new_tokens: int
    ) -> Iterator[tuple[list[int], list[list[str]]]]:
        """Indices of prompts and, for each, the answers of base and runs."""
        from tunelab.answer.generation import answer_many, end_ids, text_of
        from tunelab.data.encode import encode_prompt

        base = self._resident(runs)
        encoded = [encode_prompt(turns, base.tokenizer) for turns in prompts]
        answers = [[""] * (1 + len(runs)) for _ in prompts]
        waiting = [1 + len(runs)] * len(prompts)
        for columns, make in self._passes(base, runs):
            ends = end_ids(base.tokenizer, base.model)
            padded = all(runs[column - 1].config.technique.rows_can_be_padded for column in columns if column)
            answered = answer_many(encoded, make, end_ids=ends, max_new_tokens=max_new_tokens, padded=padded)
            for indices, made in answered:
                for index, texts in zip(indices, made, strict=True):
                    for column, ids in zip(columns, texts, strict=True):
                        answers[index][column] = text_of(base.tokenizer, ids)
                    waiting[index] -= len(columns)
                done = [index for index in indices if not waiting[index]]
                yield done, [answers[index] for index in done]

    def _resident(self, runs: tuple[Run, ...]) -> Base:
        """The base of these runs, loaded in place of the one before if need be."""
        from tunelab.model.load import load

        spec = runs[0].base_spec
        if self._base is None or self._base.spec != spec:
            self._forget()  # release the old one before the new one is loaded
            self._base = load(spec)
        for run in runs:
            run.check_base(spec.repo_id, self._base.sha256)
        return self._base

    def _passes(self, base: Base, runs: tuple[Run, ...]) -> Iterator[_Pass]:
        """How the columns (0 the base, then the runs) are answered: which at once, and by which decoders.

        The base and every run that can share a batch go first, in one. Where there is none, the base takes turns with
        the first run, adapter off and on. Every other run follows in a pass of its own.
        """
        from tunelab.fast.llama import Unsupported

        together = [n for n, run in enumerate(runs, 1) if run.config.technique.rows_can_differ]
        llama = None
        if together:
            self._detach()
            try:
                llama = self._decoding(base)
            except Unsupported:
                together = []
        alone = [n for n in range(1, len(runs) + 1) if n not in together]
        if llama:
            yield [0, *together], _batched(llama, [runs[n - 1] for n in together])
        elif alone:
            first = alone.pop(0)
            yield [0, first], self._by_turns(base, runs[first - 1], with_base=True)
        for number in alone:
            yield [number], self._by_turns(base, runs[number - 1], with_base=False)

    def _decoding(self, base: Base) -> Any:
        """The resident base as `FastLlama`, made once; its weights packed where there is memory for it.

        Raises:
            Unsupported: it is a model that `FastLlama` can't compute.
        """
        from tunelab.fast.llama import FastLlama
        from tunelab.machine import hardware

        if self._llama is None:
            size = sum(p.numel() for p in base.model.parameters()) * base.dtype.itemsize
            spacious = base.spec.keep_dequantized is not False and hardware.affords(size, base.device)
            self._llama = FastLlama(base.model, packed=spacious)
        return self._llama

    def _by_turns(self, base: Base, run: Run, with_base: bool) -> _MakeDecoders:
        from contextlib import nullcontext

        from tunelab.answer.generation import PlainDecoder

        technique = run.config.technique
        # a result that was rolled back, or trained further, is another one
        result = (run.id, run.adapter_path.stat().st_mtime_ns)
        if self._attached is None or self._attached[0] != result:
            self._detach()
            self._attached = (result, technique, technique.load(base, run.adapter_path).eval())
        model = self._attached[2]

        def make(rows: int, _capacity: int) -> list[Any]:
            tuned = PlainDecoder(model, nullcontext, rows)
            return [PlainDecoder(model, lambda: technique.off(model), rows), tuned] if with_base else [tuned]

        return make

    def _detach(self) -> None:
        """Take an attached adapter off the resident base."""
        if self._attached:
            _run_id, technique, model = self._attached
            technique.detach(model)
            self._attached = None


def _check_decoding(max_new_tokens: int, temperature: float) -> None:
    if not 1 <= max_new_tokens <= 4096:
        raise UserError(f"max_new_tokens = {max_new_tokens}: allowed are 1 to 4096.")
    if not 0 <= temperature <= 5:
        raise UserError(f"temperature = {temperature}: allowed are 0 (greedy) to 5.")


def _check_runs(runs: tuple[Run, ...]) -> None:
    for run in runs:
        _ = run.config  # one of another version says so
        if not run.has_adapter:
            raise UserError(
                f"Run {run.id} has no adapter yet ({run.progress().message}). Choose a finished or stopped run."
            )
    specs = [run.base_spec for run in runs]
    if len(set(specs)) > 1:
        differing = [name for name in type(specs[0]).model_fields if len({getattr(spec, name) for spec in specs}) > 1]
        bases = (
            f"{run.name} ({', '.join(f'{name} {getattr(spec, name)}' for name in differing)})"
            for run, spec in zip(runs, specs, strict=True)
        )
        raise UserError(f"These runs stand on different bases: {'; '.join(bases)}. Compare runs of one base.")


def _system_of(run: Run) -> str | None:
    return run.config.stages[-1].data.system


def _blank_answers(base: Base, request: _Question) -> list[Answer]:
    decoding = "greedy" if request.temperature == 0 else f"temperature {request.temperature:g}, seed {request.seed}"
    provenance = Provenance(
        base=base.spec.repo_id,
        base_sha256=base.sha256,
        adapter=None,
        precision=base.precision,
        template="the model's chat template" if base.tokenizer.chat_template else "plain template",
        decoding=decoding,
    )
    blank = Answer("base", "", 0, None, 0.0, provenance)
    tuned = [replace(blank, label=run.name, provenance=replace(provenance, adapter=run.id)) for run in request.runs]
    return [blank, *tuned]


def _note(runs: tuple[Run, ...]) -> str | None:
    notes = []
    for run in runs:
        if run.config.technique.changes_nothing(run.adapter_path):
            notes.append(f"{run.name} changes nothing: its adapter adds zero. Train it for more steps.")
    training = next((r for r in list_runs(runs[0].root) if r.is_alive), None)
    if training:
        notes.append(f"{training.name} is training on this machine, so answers come slower.")
    return " ".join(notes) or None
